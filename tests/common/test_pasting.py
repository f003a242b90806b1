"""Pasting between two batches: boxes, pairs, and who is known where."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.batch import IGNORE, Labeled, Pseudo
from common.errors import ShapeError
from common.mixing import box, mixed_truth, mixtures

sizes = st.sampled_from([(9, 12), (10, 7), (6, 7, 8)])


def numbered(count: int, sides: tuple[int, ...], first: int) -> torch.Tensor:
    """Images ``(count, 1, *S)`` in which every pixel says which image it is of."""
    who = first + torch.arange(count, dtype=torch.float32)
    return who.view(count, 1, *[1] * len(sides)).expand(count, 1, *sides).clone()


@given(sides=sizes, share=st.floats(0.01, 0.99), seed=st.integers(0, 10_000))
@settings(max_examples=50, deadline=None)
def test_a_box_has_its_share_of_each_side_rounded_down(
    sides: tuple[int, ...], share: float, seed: int
) -> None:
    torch.manual_seed(seed)
    for inside in box(torch.zeros(4, 1, *sides), share).numpy():
        at = np.argwhere(inside)
        lengths = at.max(axis=0) - at.min(axis=0) + 1
        assert lengths.tolist() == [max(1, int(share * side)) for side in sides]
        assert inside.sum() == lengths.prod()  # one box, and full


def test_a_box_can_be_anywhere_and_each_sample_has_its_own() -> None:
    torch.manual_seed(0)
    inside = box(torch.zeros(500, 1, 9, 6), 2 / 3)
    corners = {tuple(np.argwhere(each.numpy())[0]) for each in inside}
    assert corners == {(y, x) for y in range(4) for x in range(3)}


@given(
    sides=sizes, labeled=st.integers(1, 5), unlabeled=st.integers(1, 5), seed=st.integers(0, 999)
)
@settings(max_examples=50, deadline=None)
def test_every_pixel_is_known_or_guessed_never_both(
    sides: tuple[int, ...], labeled: int, unlabeled: int, seed: int
) -> None:
    torch.manual_seed(seed)
    truth = Labeled(numbered(labeled, sides, 1), torch.randint(0, 3, (labeled, *sides)))
    image = numbered(unlabeled, sides, 100)
    pseudo = Pseudo(torch.randint(0, 3, (unlabeled, *sides)), torch.rand(unlabeled, *sides))
    inside = box(numbered(max(labeled, unlabeled), sides, 0), 2 / 3)

    for turn, where in enumerate((inside, ~inside)):
        mixed = mixtures(truth, image, pseudo, [inside, ~inside])[turn]
        assert len(mixed.truth.image) == max(labeled, unlabeled)
        known, guessed = mixed.truth.target != IGNORE, mixed.pseudo.target != IGNORE
        assert torch.equal(known, where)
        assert torch.equal(guessed, ~where)
        total = 1.0 * known.sum() + 0.5 * guessed.sum()
        assert float(total) == float(where.sum()) + 0.5 * float((~where).sum())
        for pair in range(len(where)):
            mine, other = (pair + turn) % labeled, pair % unlabeled
            here = where[pair]
            assert (mixed.truth.image[pair, 0][here] == 1 + mine).all()
            assert (mixed.truth.image[pair, 0][~here] == 100 + other).all()
            assert torch.equal(mixed.truth.target[pair][here], truth.target[mine][here])
            assert torch.equal(mixed.pseudo.target[pair][~here], pseudo.target[other][~here])
            assert torch.equal(mixed.pseudo.weight[pair][~here], pseudo.weight[other][~here])


def test_labeled_images_meet_another_one_and_labels_move_along() -> None:
    sides = (6, 6)
    truth = Labeled(numbered(3, sides, 0), numbered(3, sides, 0)[:, 0].long())
    inside = box(truth.image, 0.5)
    mixed = mixed_truth(truth, inside)
    assert torch.equal(mixed.image[:, 0].long(), mixed.target)
    for sample in range(3):
        assert (mixed.target[sample][inside[sample]] == sample).all()
        assert (mixed.target[sample][~inside[sample]] == (sample - 1) % 3).all()


def test_a_lone_labeled_image_is_refused_in_words() -> None:
    truth = Labeled(torch.zeros(1, 1, 4, 4), torch.zeros(1, 4, 4, dtype=torch.long))
    message = (
        "Labeled images are pasted into each other, but the batch holds 1. "
        "Set domain.batch.labeled to 2 or more, or method.pretrain to 0."
    )
    with pytest.raises(ShapeError, match=f"^{re.escape(message)}$"):
        mixed_truth(truth, box(truth.image, 0.5))
