"""Losses in which some classes count more than others, and divergences between predictions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from common.batch import IGNORE, SoftPseudo
from common.consistency import divergence, divergence_map
from common.losses import CrossEntropy, CrossEntropyDice, Dice, Loss
from tests.common.test_losses import (
    LOSSES,
    Judged,
    everything_judged,
    judge,
    judged,
    naive_dice,
)


def importance_of(case: Judged) -> torch.Tensor:
    return torch.linspace(0.2, 3.0, case.logits.shape[1])


@given(everything_judged, st.floats(0.01, 100))
@settings(max_examples=20, deadline=None)
def test_classes_of_equal_importance_change_nothing(case: Judged, size: float) -> None:
    equal = torch.full((case.logits.shape[1],), size)
    for loss in LOSSES:
        assert float(judge(loss, case, equal)) == pytest.approx(float(judge(loss, case)), abs=1e-5)


@given(everything_judged)
@settings(max_examples=20, deadline=None)
def test_only_ratios_of_importance_matter(case: Judged) -> None:
    importance = importance_of(case)
    for loss in LOSSES:
        more = judge(loss, case, 100 * importance)
        assert float(more) == pytest.approx(float(judge(loss, case, importance)), abs=1e-5)


@given(everything_judged)
@settings(max_examples=20, deadline=None)
def test_cross_entropy_with_importance_is_the_weighted_mean_of_torch(case: Judged) -> None:
    logits, target, _ = case
    importance = importance_of(case)
    found = judge(CrossEntropy(), case._replace(weight=torch.ones(target.shape)), importance)
    if (target != IGNORE).any():
        mean = F.cross_entropy(logits, target, importance, ignore_index=IGNORE)
        assert float(found) == pytest.approx(float(mean), abs=1e-5)
    else:
        assert found == 0


def test_dice_with_importance_is_the_weighted_mean_over_the_classes_present() -> None:
    logits, target, weight = judged(8, dims=2)
    importance = torch.tensor([0.0, 1.0, 3.0])
    merged = [  # Dice of one class among all others
        naive_dice(_one_against_the_rest(logits, c), (target == c).long(), weight * (target < 3))
        for c in range(3)
    ]
    found = judge(Dice(), Judged(logits, target, weight), importance)
    own = [2 * merged[c] - _of_the_rest(logits, target, weight, c) for c in range(3)]
    assert float(found) == pytest.approx((own[1] + 3 * own[2]) / 4, abs=1e-5)


def _one_against_the_rest(logits: torch.Tensor, c: int) -> torch.Tensor:
    others = [i for i in range(logits.shape[1]) if i != c]
    return torch.stack([logits[:, others].logsumexp(dim=1), logits[:, c]], dim=1)


def _of_the_rest(logits: torch.Tensor, target: torch.Tensor, weight: torch.Tensor, c: int) -> float:
    probs = 1 - logits.softmax(dim=1)[:, c]
    trust, hit = weight * (target != IGNORE), (target != c).float()
    overlap, size = (probs * trust * hit).sum(), (trust * (probs + hit)).sum()
    return float(1 - (2 * overlap + 1e-5) / (size + 1e-5))


@pytest.mark.parametrize("loss", LOSSES, ids=lambda each: each.name)
def test_classes_without_importance_teach_nothing_and_break_nothing(loss: Loss) -> None:
    logits, target, weight = judged(9, dims=3)
    logits.requires_grad_()
    value = judge(loss, Judged(logits, target, weight), torch.zeros(3))
    value.backward()
    assert value == 0
    assert (logits.grad == 0).all()


@given(everything_judged)
@settings(max_examples=20, deadline=None)
def test_divergence_is_never_negative_and_0_between_equals(case: Judged) -> None:
    logits = case.logits
    other = logits.flip(1).softmax(dim=1)
    assert (divergence_map(logits, other) > -1e-5).all()
    assert divergence_map(logits, logits.softmax(dim=1)).abs().max() < 1e-5
    apart = (other * (other.log() - logits.log_softmax(dim=1))).sum(dim=1)
    assert torch.allclose(divergence_map(logits, other), apart, atol=1e-4)


def test_divergence_is_averaged_over_trust_and_0_without_any() -> None:
    logits, _, weight = judged(10, dims=2)
    probs = judged(11, dims=2).logits.softmax(dim=1)
    per_pixel = divergence_map(logits, probs)
    weight = weight.clamp_min(0.5)
    expected = (per_pixel * weight).sum() / weight.sum()
    assert torch.isclose(divergence(logits, SoftPseudo(probs, weight)), expected)
    assert divergence(logits, SoftPseudo(probs, torch.zeros_like(weight))) == 0


def test_a_certain_teacher_has_a_finite_divergence() -> None:
    logits = torch.tensor([[[0.3]], [[-2.0]]]).movedim(0, 1)
    certain = torch.tensor([[[1.0]], [[0.0]]]).movedim(0, 1)
    found = divergence_map(logits, certain)
    assert float(found) == pytest.approx(float(-logits.log_softmax(dim=1)[0, 0, 0]))


def test_the_sum_of_both_losses_takes_importance_too() -> None:
    case, importance = judged(12, dims=2), torch.tensor([1.0, 5.0, 0.5])
    both = judge(CrossEntropy(), case, importance) + judge(Dice(), case, importance)
    assert torch.isclose(judge(CrossEntropyDice(), case, importance), both)
