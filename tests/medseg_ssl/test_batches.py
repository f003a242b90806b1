from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.batch import IGNORE
from common.sampling import BatchSize, TwoStream, generator
from medseg_ssl.augment import WeakView
from medseg_ssl.batches import Cutting, LabeledPool, UnlabeledPool, anywhere, around
from medseg_ssl.elastic import Elastic
from medseg_ssl.hints import WeakLabels
from medseg_ssl.layouts import read_catalog
from medseg_ssl.preprocess import Recipe
from medseg_ssl.store import Store
from tests.medseg_ssl.volumes import plain

NOTHING = WeakLabels(classes=("a", "b"))
STILL = WeakView(flip_axes=(), affine_share=0)


@pytest.fixture
def pools(tmp_path):
    def make(*, patch=(8, 8, 8), weak=STILL, foreground_share=0.0):
        from dataclasses import replace

        cases = read_catalog(plain(tmp_path / "data")).cases
        store = Store(tmp_path / "cache", Recipe(spacing_mm=(1, 1, 1)))
        cutting = Cutting(patch, 1, weak, foreground_share)
        labeled = [replace(c, values=(0, 1, 4)) for c in cases if c.label is not None]
        unlabeled = [c.without_label() for c in cases if c.label is None]
        pool = UnlabeledPool(store, unlabeled, cutting, NOTHING)
        return LabeledPool(store, labeled, cutting), pool

    return make


@given(
    shape=st.tuples(*[st.integers(1, 20)] * 3),
    patch=st.tuples(*[st.integers(1, 20)] * 3),
    seed=st.integers(0, 99),
)
def test_a_patch_reaches_beyond_a_volume_only_where_it_is_larger(shape, patch, seed):
    rows = np.array([[1, *(side - 1 for side in shape)]])
    rng = np.random.default_rng(seed)
    for start in (
        anywhere(shape, patch, rng),
        around(rows, (0, 0, 0), shape, patch, rng=rng),
    ):
        for corner, side, length in zip(start, shape, patch, strict=True):
            low, high = corner, corner + length
            assert (low >= 0 and high <= side) or (low <= 0 and high >= side)


def test_a_patch_around_foreground_holds_its_voxel():
    rows = np.array([[1, 3, 4, 5], [2, 19, 0, 7]])
    seen = set()
    for seed in range(30):
        rng = np.random.default_rng(seed)
        start = around(rows, (0, 0, 0), (20, 20, 20), (6, 6, 6), rng=rng)
        inside = [all(0 <= v - s < 6 for v, s in zip(row[1:], start, strict=True)) for row in rows]
        assert any(inside)
        seen.add(tuple(inside))
    assert len(seen) == 2  # each class has its turn


def test_without_foreground_a_patch_lies_where_chance_put_it():
    none = np.empty((0, 4), np.int32)
    rng = np.random.default_rng(0)
    assert around(none, (1, 2, 3), (9, 9, 9), (4, 4, 4), rng=rng) == (1, 2, 3)


def test_samples_have_their_shapes_and_types(pools):
    labeled, unlabeled = pools(patch=(8, 6, 4))
    one, two = labeled.draw(0, generator(0)), unlabeled.draw(0, generator(0))
    assert one.image.shape == two.image.shape == (1, 8, 6, 4)
    assert one.image.dtype == two.image.dtype == torch.float32
    assert (one.target.dtype, two.valid.dtype) == (torch.int64, torch.bool)
    assert set(one.target.unique().tolist()) <= {0, 1, 2, IGNORE}


def test_nothing_has_the_shape_of_a_batch_of_none(pools):
    labeled, unlabeled = pools(patch=(8, 6, 4))
    assert labeled.nothing().target.shape == unlabeled.nothing().valid.shape == (0, 8, 6, 4)
    assert labeled.nothing().target.dtype == torch.int64


BENDING = Elastic(share=0.5, strength_mm=2, control_spacing_mm=6)


def test_a_sample_is_a_function_of_its_generator(pools):
    labeled, _ = pools(weak=WeakView(affine_share=0.5, elastic=BENDING), foreground_share=0.5)
    for seed in range(6):
        one, other = (labeled.draw(1, generator(seed)) for _ in range(2))
        assert torch.equal(one.image, other.image)
        assert torch.equal(one.target, other.target)


def test_every_patch_shows_foreground_where_it_is_asked_for(pools):
    labeled, _ = pools(patch=(4, 4, 4), foreground_share=1.0)
    for seed in range(20):
        target = labeled.draw(seed % 4, generator(seed)).target
        assert bool(((target > 0) & (target != IGNORE)).any())


def test_a_volume_smaller_than_its_patch_is_padded_and_the_padding_not_valid(pools):
    labeled, unlabeled = pools(patch=(32, 32, 32))
    one, two = labeled.draw(0, generator(1)), unlabeled.draw(0, generator(1))
    voxels = 14 * 12 * 10
    assert int(two.valid.sum()) == int((one.target != IGNORE).sum()) == voxels
    assert (two.image[:, ~two.valid] == 0).all()


def test_batches_do_not_depend_on_where_they_begin(pools):
    labeled, unlabeled = pools(weak=WeakView(affine_share=0.5, elastic=BENDING))
    size = BatchSize(labeled=2, unlabeled=2)
    stream = TwoStream(labeled, unlabeled, size=size, seed=3)
    first, later = stream.from_step(0), stream.from_step(2)
    _, _, third = (next(first) for _ in range(3))
    again = next(later)
    assert torch.equal(third.labeled.image, again.labeled.image)
    assert torch.equal(third.unlabeled.image, again.unlabeled.image)


def test_batches_do_not_depend_on_how_many_prepare_them(pools):
    labeled, unlabeled = pools(weak=WeakView(affine_share=0.5, elastic=BENDING))
    batches = []
    for workers in (0, 2):
        size = BatchSize(labeled=2, unlabeled=2, workers=workers)
        stream = TwoStream(labeled, unlabeled, size=size, seed=3).from_step(0)
        batches.append([next(stream) for _ in range(3)])
    for alone, shared in zip(*batches, strict=True):
        assert torch.equal(alone.labeled.image, shared.labeled.image)
        assert torch.equal(alone.labeled.target, shared.labeled.target)
        assert torch.equal(alone.unlabeled.valid, shared.unlabeled.valid)
