from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.batch import IGNORE
from medseg_ssl.augment import (
    AXES,
    Placement,
    StrongView,
    WeakView,
    cut,
    in_voxels,
    place,
    rotation,
)

STILL = WeakView(flip_axes=(), affine_share=0)
CORNER = st.tuples(*[st.integers(-5, 9)] * 3)
SIDES = st.tuples(*[st.integers(1, 7)] * 3)


def volume_and_target(seed=0, shape=(9, 8, 7)):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(2, *shape)).astype(np.float32), rng.integers(0, 3, shape, np.uint8)


@given(start=CORNER, sides=SIDES)
def test_a_cut_holds_the_voxels_of_its_box_and_fill_elsewhere(start, sides):
    volume = np.arange(6 * 5 * 4).reshape(6, 5, 4)
    box = cut(volume, start, sides, fill=-1)
    for index in np.ndindex(*sides):
        source = tuple(np.add(start, index))
        inside = all(0 <= at < n for at, n in zip(source, volume.shape, strict=True))
        assert box[index] == (volume[source] if inside else -1)


def test_the_still_view_is_the_patch_itself():
    volume, target = volume_and_target()
    view = place(STILL, (2, 1, 0), (4, 4, 4), spacing_mm=(1, 1, 1), rng=np.random.default_rng(0))
    np.testing.assert_array_equal(view.image(volume), volume[:, 2:6, 1:5, 0:4])
    np.testing.assert_array_equal(view.target(target), target[2:6, 1:5, 0:4])
    assert view.valid(target.shape).all()


def test_padding_is_zero_ignored_and_not_valid():
    volume, target = volume_and_target()
    view = place(STILL, (-2, 0, 3), (12, 8, 8), spacing_mm=(1, 1, 1), rng=np.random.default_rng(0))
    valid = view.valid(target.shape)
    assert int(valid.sum()) == 9 * 8 * 4
    assert (view.image(volume)[:, ~valid] == 0).all()
    assert (view.target(target)[~valid] == IGNORE).all()
    assert (view.target(target)[valid] != IGNORE).all()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_image_and_label_move_as_one(seed):
    """Where the image is the label itself, both views agree wherever nearest and linear must."""
    rng = np.random.default_rng(seed)
    target = np.zeros((12, 11, 10), np.uint8)
    target[3:9, 3:8, 2:8] = 1
    weak = WeakView(affine_share=1.0, rotation_degrees=25, scale=0.2)
    view = place(weak, (1, -1, 2), (10, 12, 8), spacing_mm=(1, 1.3, 2.1), rng=rng)
    image = view.image(target[None].astype(np.float32))[0]
    moved, valid = view.target(target), view.valid(target.shape)
    assert ((moved == IGNORE) == ~valid).all()
    sure = (image < 0.05) | (image > 0.95)
    agrees = (image.round() == moved) | ~valid | ~sure
    assert agrees.all()


def test_a_flip_is_a_flip():
    volume, target = volume_and_target()
    view = Placement((1, 1, 1), (4, 5, 6), matrix=None, flips=(0, 2))
    expected = volume[:, 1:5, 1:6, 1:7][:, ::-1, :, ::-1]
    np.testing.assert_array_equal(view.image(volume), expected)
    np.testing.assert_array_equal(view.target(target), target[1:5, 1:6, 1:7][::-1, :, ::-1])


def test_only_the_named_axes_are_flipped():
    volume, _ = volume_and_target()
    weak = WeakView(flip_axes=("back_front",), affine_share=0)
    patch = volume[:, :4, :4, :4]
    seen = set()
    for seed in range(20):
        rng = np.random.default_rng(seed)
        image = place(weak, (0, 0, 0), (4, 4, 4), spacing_mm=(1, 1, 1), rng=rng).image(volume)
        if np.array_equal(image, patch):
            seen.add("kept")
        elif np.array_equal(image, patch[:, :, ::-1]):
            seen.add("flipped")
        else:
            pytest.fail("another axis moved")
    assert seen == {"kept", "flipped"}


def test_a_quarter_turn_is_exact():
    volume, target = volume_and_target(shape=(5, 5, 5))
    matrix = rotation(np.array([0, 0, np.pi / 2]))
    view = Placement((0, 0, 0), (5, 5, 5), matrix=matrix, flips=())
    expected = np.rot90(volume, k=-1, axes=(1, 2))
    np.testing.assert_allclose(view.image(volume), expected, atol=1e-4)
    np.testing.assert_array_equal(view.target(target), np.rot90(target, k=-1, axes=(0, 1)))
    assert view.valid(target.shape).all()


def test_rotation_acts_in_mm_so_thick_slices_do_not_shear():
    spacing = (0.5, 0.5, 5.0)
    matrix = in_voxels(rotation(np.array([0.2, 0.1, -0.3])), spacing)
    in_mm = np.diag(spacing) @ matrix @ np.diag(1 / np.array(spacing))
    np.testing.assert_allclose(in_mm @ in_mm.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(in_mm) == pytest.approx(1)


def test_a_view_is_a_function_of_its_generator():
    volume, _ = volume_and_target()
    weak = WeakView(affine_share=0.5)
    images = [
        place(weak, (0, 0, 0), (6, 6, 6), spacing_mm=(1, 1, 1), rng=np.random.default_rng(3))
        .image(volume)
        .numpy()
        for _ in range(2)
    ]
    np.testing.assert_array_equal(*images)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_strong_view_keeps_shape_and_finiteness_and_is_drawn_from_torch(seed):
    image = torch.randn(3, 2, 8, 9, 7)
    torch.manual_seed(seed)
    strong = StrongView()(image)
    assert strong.shape == image.shape
    assert bool(strong.isfinite().all())
    torch.manual_seed(seed)
    assert torch.equal(StrongView()(image), strong)


def test_the_strong_view_moves_no_voxel():
    axes = torch.meshgrid(*[torch.arange(15.0)] * 3, indexing="ij")
    away = sum((axis - at) ** 2 for axis, at in zip(axes, (4, 9, 6), strict=True))
    blob = 10 * torch.exp(-away / 8)
    image = blob.repeat(4, 1, 1, 1, 1)
    torch.manual_seed(0)
    for _ in range(10):
        brightest = StrongView()(image).flatten(1).argmax(dim=1)
        place = torch.stack(torch.unravel_index(brightest, (15, 15, 15)), dim=1)
        assert (place - torch.tensor([4, 9, 6])).abs().max() <= 1


def test_a_strong_view_without_share_is_the_weak_one():
    calm = {name: {"share": 0} for name in StrongView.model_fields if name != "monai"}
    image = torch.randn(2, 1, 6, 6, 6)
    assert torch.equal(StrongView.model_validate(calm)(image), image)


def test_the_strong_view_of_nothing_is_nothing():
    assert StrongView()(torch.zeros(0, 1, 4, 4, 4)).shape == (0, 1, 4, 4, 4)


@pytest.mark.parametrize(
    ("flipped", "axes"),
    [((), ()), (("down_up", "left_right"), (0, 2)), (("back_front",), (1,)), (AXES, (0, 1, 2))],
)
def test_mirrors_are_the_axes_of_the_grid_that_are_flipped(flipped, axes):
    assert WeakView(flip_axes=flipped).mirrors == axes
