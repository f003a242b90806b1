"""Losses against loops in NumPy, and the promises their docstrings make."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from common.batch import IGNORE, Labeled, Pseudo, SoftPseudo
from common.losses import (
    CrossEntropy,
    CrossEntropyDice,
    Dice,
    Loss,
    consistency,
    pseudo_supervised,
    supervised,
)

LOSSES = [CrossEntropy(), Dice(), CrossEntropyDice()]
SIDES = {2: (4, 3), 3: (3, 2, 4)}


class Judged(NamedTuple):
    """Logits, what they are held against, and how far each pixel counts."""

    logits: Tensor
    target: Tensor
    weight: Tensor


def judged(seed: int, *, dims: int, classes: int = 3, batch: int = 2) -> Judged:
    rng = np.random.default_rng(seed)
    shape = (batch, *SIDES[dims])
    target = rng.integers(0, classes, shape)
    target[rng.random(shape) < 0.2] = IGNORE
    weight = rng.random(shape) * (rng.random(shape) < 0.7)
    logits = 3 * rng.standard_normal((batch, classes, *SIDES[dims]))
    return Judged(
        torch.from_numpy(logits).float(),
        torch.from_numpy(target),
        torch.from_numpy(weight).float(),
    )


everything_judged = st.builds(
    judged,
    st.integers(0, 10_000),
    dims=st.sampled_from([2, 3]),
    classes=st.integers(2, 5),
    batch=st.integers(1, 3),
)


def naive_probs(logits: Tensor) -> np.ndarray:
    scores = logits.double().numpy()
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def naive_cross_entropy(logits: Tensor, target: Tensor, weight: Tensor) -> float:
    probs, total, annotated = naive_probs(logits), 0.0, 0
    for sample, *where in np.ndindex(*target.shape):
        label = int(target[(sample, *where)])
        if label == IGNORE:
            continue
        annotated += 1
        total -= float(weight[(sample, *where)]) * np.log(probs[(sample, label, *where)])
    return total / max(annotated, 1)


def naive_dice(logits: Tensor, target: Tensor, weight: Tensor) -> float:
    probs, losses = naive_probs(logits), []
    for label in range(logits.shape[1]):
        overlap = predicted = true = 0.0
        for sample, *where in np.ndindex(*target.shape):
            found, trust = int(target[(sample, *where)]), float(weight[(sample, *where)])
            if found == IGNORE:
                continue
            hit = float(found == label)
            overlap += trust * probs[(sample, label, *where)] * hit
            predicted += trust * probs[(sample, label, *where)]
            true += trust * hit
        if true > 0:
            losses.append(1 - (2 * overlap + 1e-5) / (predicted + true + 1e-5))
    return float(np.mean(losses)) if losses else 0.0


@given(everything_judged)
@settings(max_examples=40, deadline=None)
def test_cross_entropy_is_the_weighted_sum_over_the_annotated_pixels(case: Judged) -> None:
    assert float(CrossEntropy()(*case)) == pytest.approx(naive_cross_entropy(*case), abs=1e-5)


@given(everything_judged)
@settings(max_examples=40, deadline=None)
def test_dice_is_the_mean_overlap_of_the_classes_present(case: Judged) -> None:
    assert float(Dice()(*case)) == pytest.approx(naive_dice(*case), abs=1e-5)


@given(everything_judged)
@settings(max_examples=20, deadline=None)
def test_their_sum_is_their_sum(case: Judged) -> None:
    expected = naive_cross_entropy(*case) + naive_dice(*case)
    assert float(CrossEntropyDice()(*case)) == pytest.approx(expected, abs=1e-5)


@given(everything_judged, st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_consistency_is_the_squared_difference_over_the_sum_of_trust(
    case: Judged, seed: int
) -> None:
    other = torch.randn(case.logits.shape, generator=torch.Generator().manual_seed(seed))
    pseudo = SoftPseudo(other.softmax(dim=1), case.weight)
    squares = ((naive_probs(case.logits) - naive_probs(other)) ** 2).mean(axis=1)
    weight = case.weight.double().numpy()
    expected = (squares * weight).sum() / max(weight.sum(), 1)
    assert float(consistency(case.logits, pseudo)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda each: each.name)
@given(case=everything_judged)
@settings(max_examples=25, deadline=None)
def test_ignored_and_dropped_pixels_have_no_gradient_f13(loss: Loss, case: Judged) -> None:
    logits = case.logits.clone().requires_grad_()
    loss(logits, case.target, case.weight).backward()
    silent = (case.target == IGNORE) | (case.weight == 0)
    gradient = logits.grad.movedim(1, -1)
    assert gradient[silent].abs().sum() == 0
    if not silent.all():
        assert gradient[~silent].abs().sum() > 0


@given(everything_judged)
@settings(max_examples=25, deadline=None)
def test_consistency_gives_no_gradient_where_nothing_is_trusted(case: Judged) -> None:
    logits = case.logits.clone().requires_grad_()
    probs = torch.full_like(case.logits, 1 / case.logits.shape[1])
    consistency(logits, SoftPseudo(probs, case.weight)).backward()
    gradient = logits.grad.movedim(1, -1)
    assert gradient[case.weight == 0].abs().sum() == 0
    assert gradient.isfinite().all()


@pytest.mark.parametrize("loss", LOSSES, ids=lambda each: each.name)
@given(case=everything_judged, seed=st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_more_ignored_pixels_change_nothing(loss: Loss, case: Judged, seed: int) -> None:
    strange = 9 * torch.randn(case.logits.shape, generator=torch.Generator().manual_seed(seed))
    wider = Judged(
        torch.cat([case.logits, strange], dim=-1),
        torch.cat([case.target, torch.full_like(case.target, IGNORE)], dim=-1),
        torch.cat([case.weight, torch.ones_like(case.weight)], dim=-1),
    )
    torch.testing.assert_close(loss(*wider), loss(*case), atol=1e-6, rtol=1e-5)


def dropped_half(case: Judged) -> Judged:
    """The same pixels twice, of which the second time none is trusted."""
    return Judged(
        torch.cat([case.logits, case.logits], dim=-1),
        torch.cat([case.target, case.target], dim=-1),
        torch.cat([case.weight, torch.zeros_like(case.weight)], dim=-1),
    )


@pytest.mark.parametrize("dims", [2, 3])
def test_dropped_pixels_count_in_the_divisor_of_cross_entropy_only(dims: int) -> None:
    case = judged(1, dims=dims)
    twice = dropped_half(case)
    assert float(CrossEntropy()(*twice)) == pytest.approx(float(CrossEntropy()(*case)) / 2)
    assert float(Dice()(*twice)) == pytest.approx(float(Dice()(*case)))
    probs = torch.full_like(case.logits, 1 / 3)
    soft = consistency(case.logits, SoftPseudo(probs, case.weight))
    soft_twice = consistency(twice.logits, SoftPseudo(torch.cat([probs] * 2, -1), twice.weight))
    assert float(soft_twice) == pytest.approx(float(soft))


@pytest.mark.parametrize("loss", LOSSES, ids=lambda each: each.name)
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("nothing", ["annotated", "trusted", "there"])
def test_nothing_to_learn_from_is_a_zero_with_a_zero_gradient(
    loss: Loss, dims: int, nothing: str
) -> None:
    logits, target, weight = judged(2, dims=dims)
    if nothing == "annotated":
        target = torch.full_like(target, IGNORE)
    elif nothing == "trusted":
        weight = torch.zeros_like(weight)
    else:
        logits, target, weight = logits[:0], target[:0], weight[:0]
    logits = logits.clone().requires_grad_()
    value = loss(logits, target, weight)
    value.backward()
    assert value == 0
    assert not logits.grad.any()


@pytest.mark.parametrize("loss", LOSSES, ids=lambda each: each.name)
def test_a_certain_and_right_prediction_costs_nothing(loss: Loss) -> None:
    target = judged(3, dims=2).target
    logits = 50 * torch.nn.functional.one_hot(target.clamp_max(2), 3).movedim(-1, 1).float()
    assert float(loss(logits, target, torch.ones(target.shape))) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda each: each.name)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_extreme_logits_of_any_precision_stay_finite(loss: Loss, dtype: torch.dtype) -> None:
    _, target, weight = judged(4, dims=3)
    logits = (1e3 * judged(5, dims=3).logits).to(dtype).requires_grad_()
    value = loss(logits, target, weight)
    value.backward()
    assert value.dtype == torch.float32
    assert value.isfinite()
    assert logits.grad.isfinite().all()


def test_a_class_that_is_absent_neither_helps_nor_hurts_dice_f11() -> None:
    logits, target, weight = judged(6, dims=2, classes=2)
    more = torch.cat([logits, torch.full_like(logits[:, :1], -80.0)], dim=1)
    assert float(Dice()(more, target, weight)) == pytest.approx(
        float(Dice()(logits, target, weight)), abs=1e-6
    )


def test_dice_by_hand() -> None:
    logits = torch.zeros(1, 2, 1, 2)  # both classes at 1/2, everywhere
    target = torch.tensor([[[0, 1]]])
    value = Dice(smooth=0)(logits, target, torch.ones(1, 1, 2))
    assert float(value) == pytest.approx(1 - 2 * 0.5 / (1 + 1))


@pytest.mark.parametrize("loss", LOSSES, ids=lambda each: each.name)
def test_an_annotation_counts_fully_and_a_pseudo_label_by_its_trust(loss: Loss) -> None:
    logits, target, weight = judged(7, dims=2)
    truth = Labeled(torch.zeros_like(logits[:, :1]), target)
    assert supervised(loss, logits, truth) == loss(logits, target, torch.ones_like(weight))
    assert pseudo_supervised(loss, logits, Pseudo(target, weight)) == loss(logits, target, weight)
