"""Connected pieces: what the device says is what SciPy says, on blobs and on mazes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from torch import Tensor

from common.batch import IGNORE
from common.components import largest_components, largest_on_device, pieces


def by_hand(image: np.ndarray) -> np.ndarray:
    """The largest piece of each class but 0 and IGNORE, the first of several; all else is 0."""
    cleaned = np.where((image == 0) | (image == IGNORE), image, 0)
    for index in set(np.unique(image)) - {0, IGNORE}:
        piece, count = ndimage.label(image == index, np.ones((3,) * image.ndim))
        sizes = [int((piece == number).sum()) for number in range(1, count + 1)]
        cleaned[piece == 1 + sizes.index(max(sizes))] = index
    return cleaned


def spiral(side: int) -> np.ndarray:
    """A path of one pixel's width that winds inward through the whole image."""
    image, at = np.zeros((side, side), dtype=int), np.array([0, 0])
    image[0, 0] = 1
    legs = [side - 1] * 3 + [left for rest in range(side - 3, 0, -2) for left in (rest, rest)]
    for turn, leg in enumerate(legs):
        for _ in range(leg):
            at += [(0, 1), (1, 0), (0, -1), (-1, 0)][turn % 4]
            image[tuple(at)] = 1
    return image


def snake(side: int) -> np.ndarray:
    """Rows joined at alternating ends: one path of half of the pixels."""
    image = np.zeros((side, side), dtype=int)
    image[::2] = 1
    for row in range(1, side, 2):
        image[row, -1 if row // 2 % 2 else 0] = 1
    return image


def serpent(side: int) -> np.ndarray:
    """Snakes above each other, joined at alternating corners."""
    volume = np.zeros((side, side, side), dtype=int)
    for level in range(0, side, 2):
        volume[level] = snake(side) if level // 2 % 2 == 0 else snake(side)[::-1, ::-1]
    for level in range(1, side, 2):
        volume[(level, *(-1 if level // 2 % 2 == 0 else 0,) * 2)] = 1
    return volume


def batch(*images: np.ndarray) -> Tensor:
    return torch.from_numpy(np.stack(images).astype(np.int64))


MAZES = {
    "spiral": spiral(49),
    "spiral outward": spiral(49)[::-1, ::-1].copy(),
    "spiral upright": spiral(49).T.copy(),
    "snake": snake(65),
    "snake upward": snake(65)[::-1].copy(),
    "snake upright": snake(65).T.copy(),
    "serpent": serpent(17),
    "serpent upright": serpent(17).transpose(2, 0, 1)[::-1].copy(),
    "checkers": np.indices((20, 21)).sum(axis=0) % 2,
    "diagonal": np.eye(60, dtype=int)[::-1].copy(),
}


@pytest.mark.parametrize("name", MAZES)
def test_the_longest_paths_are_one_piece(name: str) -> None:
    image = MAZES[name]
    found = pieces(batch(image))[0].numpy()
    assert len(np.unique(found[image == 1])) == 1
    assert (found[image == 1] == np.flatnonzero(image)[0]).all()  # named after its first pixel
    assert (largest_on_device(batch(image))[0].numpy() == image).all()


@given(
    seed=st.integers(0, 10_000),
    sides=st.sampled_from([(1, 1), (1, 30), (31, 23), (7, 8, 6), (12, 10, 11)]),
    share=st.sampled_from([0.05, 0.1, 0.3, 0.42, 0.6, 0.9]),  # around where pieces begin to span
)
@settings(max_examples=60, deadline=None)
def test_the_device_the_host_and_a_naive_count_agree(
    seed: int, sides: tuple[int, ...], share: float
) -> None:
    rng = np.random.default_rng(seed)
    noise = rng.integers(1, 4, (2, *sides)) * (rng.random((2, *sides)) < share)
    noise[rng.random(noise.shape) < 0.05] = IGNORE
    expected = batch(*(by_hand(image) for image in noise))
    assert torch.equal(largest_components(batch(*noise)), expected)
    assert torch.equal(largest_on_device(batch(*noise)), expected)


def test_images_of_a_batch_do_not_touch() -> None:
    lower, upper = np.zeros((4, 4), dtype=int), np.zeros((4, 4), dtype=int)
    lower[-1], upper[0], upper[3, :2] = 1, 1, 1
    cleaned = largest_on_device(batch(lower, upper))
    assert (cleaned[0].numpy() == lower).all()
    assert cleaned[1].sum() == 4


def test_of_equal_pieces_the_first_stays() -> None:
    image = np.array([[0, 2, 0, 2], [0, 2, 0, 2], [0, 0, 0, 0], [1, 0, 1, 0]])
    expected = [[0, 2, 0, 0], [0, 2, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]]
    assert largest_components(batch(image))[0].tolist() == expected
    assert largest_on_device(batch(image))[0].tolist() == expected


def test_cleaning_twice_changes_nothing_more_and_the_given_stays() -> None:
    noise = torch.randint(0, 4, (2, 20, 20), generator=torch.Generator().manual_seed(0))
    before = noise.clone()
    once = largest_components(noise)
    assert torch.equal(noise, before)
    assert torch.equal(largest_components(once), once)
