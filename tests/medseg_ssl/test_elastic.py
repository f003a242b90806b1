"""Elastic moves: in mm, smooth, without folds, the same for image and label."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.interpolate import BSpline

from common.batch import IGNORE
from medseg_ssl.augment import Placement, WeakView, place
from medseg_ssl.elastic import FOLDS, Elastic
from medseg_ssl.splines import control_points, smooth

SIDES = st.tuples(*[st.integers(1, 14)] * 3)
SPACING = st.tuples(*[st.floats(0.4, 6)] * 3)


def bending(share=1.0, **values):
    return WeakView(flip_axes=(), affine_share=0, elastic=Elastic(share=share, **values))


@settings(max_examples=30, deadline=None)
@given(side=st.integers(1, 20), interval=st.floats(0.7, 9), seed=st.integers(0, 99))
def test_a_smooth_field_is_the_cubic_spline_of_its_control_points(side, interval, seed):
    count = control_points(side, interval)
    control = np.random.default_rng(seed).normal(size=count)
    spline = BSpline(np.arange(-3, count + 1, dtype=float), control, 3)
    field = smooth(torch.from_numpy(control)[None], [side], [interval])[0]
    np.testing.assert_allclose(field, spline(np.arange(side) / interval), atol=1e-9)


def test_equal_control_points_span_an_equal_field_along_every_axis():
    control = torch.arange(6.0).view(6, 1, 1).expand(6, 5, 4)  # rises along the first axis alone
    field = smooth(control, (7, 6, 5), (2.0, 3.0, 4.0))
    torch.testing.assert_close(field, (1 + torch.arange(7) / 2).view(7, 1, 1).expand(7, 6, 5))


@settings(max_examples=40, deadline=None)
@given(
    sides=SIDES,
    spacing_mm=SPACING,
    control_mm=st.floats(3, 40),
    part=st.floats(0, 1),
    seed=st.integers(0, 999),
)
def test_no_voxel_shifts_farther_than_the_strength_and_none_across_a_slice(
    sides, spacing_mm, control_mm, part, seed
):
    strength = part * FOLDS * control_mm * 0.999
    elastic = Elastic(strength_mm=strength, control_spacing_mm=control_mm)
    shift = elastic.displacement_mm(sides, spacing_mm, np.random.default_rng(seed))
    assert shift.shape == (*sides, 3)
    assert np.linalg.norm(shift, axis=-1).max() <= strength + 1e-9
    for axis, side in enumerate(sides):
        if side == 1:
            assert (shift[..., axis] == 0).all()


@settings(max_examples=40, deadline=None)
@given(spacing_mm=SPACING, control_mm=st.floats(4, 30), seed=st.integers(0, 999))
def test_nothing_folds_at_the_largest_strength(spacing_mm, control_mm, seed):
    """A voxel and its three neighbors keep their orientation, however control points fall."""
    strength = FOLDS * control_mm * 0.999
    elastic = Elastic(strength_mm=strength, control_spacing_mm=control_mm)
    shift = elastic.displacement_mm((10, 10, 10), spacing_mm, np.random.default_rng(seed))
    axes = np.meshgrid(*[np.arange(10) * mm for mm in spacing_mm], indexing="ij")
    places = np.stack(axes, axis=-1) + shift
    edges = [np.diff(places, axis=axis)[:9, :9, :9] for axis in range(3)]
    assert (np.linalg.det(np.stack(edges, axis=-2)) > 0).all()


def test_the_worst_control_points_do_not_fold_either():
    """Signs that alternate from point to point bend most."""
    interval, fine = 10.0, 0.5
    signs = np.indices((8, 8, 8)).sum(axis=0) % 2 * 2 - 1
    control = torch.from_numpy(np.stack([signs * FOLDS * interval] * 3).astype(float))
    sides = (50, 50, 50)
    shift = np.moveaxis(smooth(control, sides, [interval / fine] * 3).numpy(), 0, -1)
    slopes = np.stack([np.gradient(shift, fine, axis=axis) for axis in range(3)], axis=-1)
    assert (np.linalg.det(np.eye(3) + slopes) > 0).all()


def test_what_could_fold_is_refused():
    with pytest.raises(ValidationError) as error:
        Elastic(strength_mm=9, control_spacing_mm=20)
    assert (
        "strength_mm 9 could fold tissue onto itself where control points are 20 mm apart. Give at "
        "most 8, or a control_spacing_mm of at least 22.5." in str(error.value)
    )
    assert Elastic(strength_mm=8, control_spacing_mm=20).strength_mm == 8


def test_without_a_share_or_strength_a_patch_is_as_it_was_and_the_draws_too():
    volume = np.random.default_rng(0).normal(size=(1, 12, 11, 10)).astype(np.float32)
    found = []
    for weak in (WeakView(), WeakView(elastic=Elastic(share=0))):
        rng = np.random.default_rng(5)
        view = place(weak, (1, 2, 0), (8, 7, 6), spacing_mm=(1, 1, 2), rng=rng)
        found.append((view.image(volume), rng.random()))
    assert torch.equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]
    view = place(
        bending(strength_mm=0),
        (1, 2, 0),
        (8, 7, 6),
        spacing_mm=(1, 1, 2),
        rng=np.random.default_rng(0),
    )
    assert view.shift is not None
    np.testing.assert_allclose(view.image(volume), volume[:, 1:9, 2:9, 0:6], atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), affine=st.sampled_from([0.0, 1.0]))
def test_image_and_label_move_as_one(seed, affine):
    """Where the image is the label itself, both views agree wherever nearest and linear must."""
    rng = np.random.default_rng(seed)
    target = np.zeros((16, 15, 12), np.uint8)
    target[3:12, 3:11, 2:9] = 1
    weak = WeakView(
        affine_share=affine, elastic=Elastic(share=1, strength_mm=3, control_spacing_mm=8)
    )
    view = place(weak, (1, -1, 2), (14, 15, 9), spacing_mm=(1, 1.3, 2.1), rng=rng)
    image = view.image(target[None].astype(np.float32))[0]
    moved, valid = view.target(target), view.valid(target.shape)
    assert ((moved == IGNORE) == ~valid).all()
    assert (image[~valid] == 0).all()
    sure = (image < 0.05) | (image > 0.95)
    agrees = (image.round() == moved) | ~valid | ~sure
    assert agrees.all()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_each_voxel_shows_the_place_it_came_from(seed):
    """An image of its own coordinates tells where each voxel was sampled: nothing is cut off."""
    spacing_mm, sides, start = (1.0, 0.8, 3.0), (12, 14, 5), (4, 4, 2)
    grid = np.stack(np.meshgrid(*map(np.arange, (20, 22, 9)), indexing="ij")).astype(np.float32)
    weak = bending(strength_mm=3.2, control_spacing_mm=8)
    view = place(weak, start, sides, spacing_mm=spacing_mm, rng=np.random.default_rng(seed))
    own = np.stack(np.meshgrid(*map(np.arange, sides), indexing="ij"))
    moved = view.image(grid).numpy() - own - np.array(start)[:, None, None, None]
    in_mm = moved * np.array(spacing_mm)[:, None, None, None]
    within = view.valid(grid.shape[1:]).numpy()
    assert within.all()
    assert np.linalg.norm(in_mm, axis=0).max() <= 3.2 + 1e-3
    assert np.abs(in_mm).max() > 0.1
    expected = np.moveaxis(view.shift, -1, 0)
    np.testing.assert_allclose(moved, expected, atol=1e-3)


def test_a_bend_beyond_the_corners_of_a_patch_still_finds_its_voxels():
    volume = np.arange(12, dtype=np.float32).reshape(1, 12, 1, 1).repeat(3, 2).repeat(3, 3)
    shift = np.zeros((4, 3, 3, 3))
    shift[2, 1, 1, 0] = 5  # the corners stay
    view = Placement((2, 0, 0), (4, 3, 3), matrix=None, flips=(0,), shift=shift)
    assert view.image(volume)[0, 1, 1, 1] == pytest.approx(9)
    assert view.image(volume)[0, 1, 0, 0] == pytest.approx(4)


def test_a_slice_stays_a_slice():
    volume = np.zeros((1, 24, 24, 6), dtype=np.float32)
    volume[..., 3] = 1
    for seed in range(5):
        rng = np.random.default_rng(seed)
        weak = bending(strength_mm=4, control_spacing_mm=10)
        patch = place(weak, (4, 4, 3), (16, 16, 1), spacing_mm=(1, 1, 8), rng=rng)
        assert patch.image(volume).min() == pytest.approx(1)
        assert np.abs(patch.shift[..., :2]).max() > 0.3


def test_a_view_is_a_function_of_its_generator():
    volume = np.random.default_rng(0).normal(size=(1, 12, 12, 12)).astype(np.float32)
    views = [
        place(bending(), (0, 0, 0), (12,) * 3, spacing_mm=(1,) * 3, rng=np.random.default_rng(n))
        for n in (3, 3, 4)
    ]
    images = [view.image(volume) for view in views]
    assert torch.equal(images[0], images[1])
    assert not torch.equal(images[0], images[2])
