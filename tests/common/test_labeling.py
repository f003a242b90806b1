"""From a prediction to a pseudo-label."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from common.batch import IGNORE, one_hot
from common.labeling import pseudo_label, soft_pseudo_label

SIDES = {2: (5, 4), 3: (3, 4, 2)}
dimensions = pytest.mark.parametrize("dims", [2, 3], ids=["tiles", "volumes"])


def halves(probs: Tensor) -> Tensor:
    return torch.full_like(probs[:, 0], 0.5)


def prediction(dims: int) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(dims)
    logits = 4 * torch.randn(2, 3, *SIDES[dims], generator=rng)
    return logits.requires_grad_(), torch.rand(2, *SIDES[dims], generator=rng) < 0.6


@dimensions
def test_the_most_probable_class_is_taught_where_the_image_is_valid(dims: int) -> None:
    logits, valid = prediction(dims)
    pseudo = pseudo_label(logits, halves, valid)
    assert torch.equal(pseudo.target[valid], logits.argmax(dim=1)[valid])
    assert (pseudo.target[~valid] == IGNORE).all()
    assert (pseudo.weight[valid] == 0.5).all()
    assert (pseudo.weight[~valid] == 0).all()
    assert pseudo.target.dtype == torch.int64
    assert not pseudo.weight.requires_grad


@dimensions
def test_a_soft_label_is_the_probabilities_themselves(dims: int) -> None:
    logits, valid = prediction(dims)
    soft = soft_pseudo_label(logits, halves, valid)
    torch.testing.assert_close(soft.probs, logits.detach().softmax(dim=1))
    assert torch.equal(soft.weight, pseudo_label(logits, halves, valid).weight)
    assert not soft.probs.requires_grad


def test_half_precision_is_left_before_anything_is_judged() -> None:
    seen = []

    def keep(probs: Tensor) -> Tensor:
        seen.append(probs.dtype)
        return probs[:, 0]

    logits, valid = prediction(2)
    pseudo_label(logits.bfloat16(), keep, valid)
    assert seen == [torch.float32]


@dimensions
def test_one_hot_leaves_ignored_pixels_out(dims: int) -> None:
    rng = torch.Generator().manual_seed(dims)
    target = torch.randint(0, 4, (2, *SIDES[dims]), generator=rng)
    target[target == 3] = IGNORE
    hot = one_hot(target, 3)
    assert hot.shape == (2, 3, *SIDES[dims])
    for label in range(3):
        assert torch.equal(hot[:, label] == 1, target == label)
    assert torch.equal(hot.sum(dim=1) == 0, target == IGNORE)
