"""From a prediction to a pseudo-label."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from common.batch import IGNORE, Unlabeled, one_hot
from common.labeling import Keep, Kit, as_guessed, pseudo_label, soft_pseudo_label
from tests.toy import any_class

SIDES = {2: (5, 4), 3: (3, 4, 2)}
dimensions = pytest.mark.parametrize("dims", [2, 3], ids=["tiles", "volumes"])


def halves(probs: Tensor) -> Tensor:
    return torch.full_like(probs[:, 0], 0.5)


def kit(keep: Keep) -> Kit:
    return Kit(
        strong=lambda image: image,
        ask=lambda network, image: network(image),
        keep=keep,
        refine=as_guessed,
    )


def prediction(dims: int) -> tuple[Tensor, Unlabeled]:
    """Logits of three classes, and what they were predicted of."""
    rng = torch.Generator().manual_seed(dims)
    logits = 4 * torch.randn(2, 3, *SIDES[dims], generator=rng)
    valid = torch.rand(2, *SIDES[dims], generator=rng) < 0.6
    possible = any_class(3, dims).expand(2, *[-1] * (dims + 1))
    return logits.requires_grad_(), Unlabeled(torch.zeros(2, 1, *SIDES[dims]), valid, possible)


@dimensions
def test_the_most_probable_class_is_taught_where_the_image_is_valid(dims: int) -> None:
    logits, weak = prediction(dims)
    pseudo, valid = pseudo_label(logits, kit(halves), weak), weak.valid
    assert torch.equal(pseudo.target[valid], logits.argmax(dim=1)[valid])
    assert (pseudo.target[~valid] == IGNORE).all()
    assert (pseudo.weight[valid] == 0.5).all()
    assert (pseudo.weight[~valid] == 0).all()
    assert pseudo.target.dtype == torch.int64
    assert not pseudo.weight.requires_grad


@dimensions
def test_a_soft_label_is_the_probabilities_themselves(dims: int) -> None:
    logits, weak = prediction(dims)
    soft = soft_pseudo_label(logits, kit(halves), weak)
    torch.testing.assert_close(soft.probs, logits.detach().softmax(dim=1))
    assert torch.equal(soft.weight, pseudo_label(logits, kit(halves), weak).weight)
    assert not soft.probs.requires_grad


def test_half_precision_is_left_before_anything_is_judged() -> None:
    seen = []

    def keep(probs: Tensor) -> Tensor:
        seen.append(probs.dtype)
        return probs[:, 0]

    logits, weak = prediction(2)
    pseudo_label(logits.bfloat16(), kit(keep), weak)
    assert seen == [torch.float32]


@dimensions
def test_a_class_that_a_weak_label_rules_out_has_no_chance_and_the_others_share_its(
    dims: int,
) -> None:
    logits, weak = prediction(dims)
    possible = torch.ones(2, 3, *SIDES[dims], dtype=torch.bool)
    possible[0, 2] = False  # tags: the first image shows classes 0 and 1
    possible[1, :2, 1] = False  # a scribble of class 2
    soft = soft_pseudo_label(logits, kit(halves), weak._replace(possible=possible))
    power = logits.detach().double().exp().numpy() * possible.numpy()
    np.testing.assert_allclose(soft.probs, power / power.sum(axis=1, keepdims=True), atol=1e-6)
    assert (soft.probs[1, 2, 1] == 1).all()


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
