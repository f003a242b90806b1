"""Signed distances: against SciPy, and what they are for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from common.batch import IGNORE, one_hot
from common.distances import signed_distances


def scipy_says(inside: np.ndarray, known: np.ndarray, reach: int) -> np.ndarray:
    def nearest(mask: np.ndarray) -> np.ndarray:
        return ndimage.distance_transform_edt(~mask) if mask.any() else np.full(mask.shape, np.inf)

    signed = np.where(inside, 0.5 - nearest(known & ~inside), nearest(inside) - 0.5)
    return np.clip(signed / reach, -1, 1)


def labels(seed: int, dims: int, classes: int) -> torch.Tensor:
    """Patches of classes, some of them absent, and here and there nobody's pixels."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, classes, (2, *[3] * dims))
    fine = coarse.repeat(4, axis=1).repeat(3, axis=2)
    return torch.from_numpy(np.where(rng.random(fine.shape) < 0.1, IGNORE, fine))


@given(
    seed=st.integers(0, 1000),
    dims=st.sampled_from([2, 3]),
    classes=st.integers(2, 5),
    reach=st.integers(1, 14),
)
@settings(max_examples=40, deadline=None)
def test_distances_are_those_of_scipy_up_to_the_reach(
    seed: int, dims: int, classes: int, reach: int
) -> None:
    target = labels(seed, dims, classes)
    found = signed_distances(target, classes + 1, reach_pixels=reach).numpy()
    known = target.numpy() != IGNORE
    for sample, each in np.ndindex(2, classes + 1):
        inside = target[sample].numpy() == each
        expected = scipy_says(inside, known[sample], reach)
        where = known[sample]
        np.testing.assert_allclose(found[sample, each][where], expected[where], atol=1e-6)


@given(seed=st.integers(0, 1000), dims=st.sampled_from([2, 3]))
@settings(max_examples=20, deadline=None)
def test_the_smooth_inverse_of_true_distances_is_the_truth(seed: int, dims: int) -> None:
    target = labels(seed, dims, 4)
    masks = (-1500 * signed_distances(target, 4, reach_pixels=10)).sigmoid()
    known = (target != IGNORE).unsqueeze(1)
    torch.testing.assert_close(masks * known, one_hot(target, 4) * known)


def test_a_line_by_hand() -> None:
    target = torch.tensor([[[0, 0, 0, 1, 1, 0]]])
    found = signed_distances(target, 3, reach_pixels=2)[0, :, 0]
    assert found[1].tolist() == [1.0, 0.75, 0.25, -0.25, -0.25, 0.25]
    assert found[0].tolist() == [-1.0, -0.75, -0.25, 0.25, 0.25, -0.25]
    assert found[2].tolist() == [1.0] * 6  # absent


def test_where_there_is_but_one_class_it_has_no_border() -> None:
    found = signed_distances(torch.zeros(1, 4, 4, dtype=torch.long), 2, reach_pixels=3)
    assert (found[:, 0] == -1).all()
    assert (found[:, 1] == 1).all()


@pytest.mark.parametrize("sides", [(5, 4), (5, 4, 3)])
def test_distances_wait_for_no_device(sides: tuple[int, ...]) -> None:
    target = torch.zeros(2, *sides, dtype=torch.long, device="meta")
    assert signed_distances(target, 3, reach_pixels=2).shape == (2, 3, *sides)
