"""Losses against loops in NumPy, and the promises their docstrings make."""

from __future__ import annotations

import typing
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from common.batch import IGNORE, Labeled, Pseudo, SoftPseudo
from common.consistency import consistency
from common.losses import (
    AnyLoss,
    Bootstrapping,
    CrossEntropy,
    CrossEntropyDice,
    Dice,
    GeneralizedCrossEntropy,
    Loss,
    NegativeLearning,
    NoiseRobustDice,
    SymmetricCrossEntropy,
    supervised,
)

LOSSES = [kind() for kind in typing.get_args(typing.get_args(AnyLoss)[0])]
SIDES = {2: (4, 3), 3: (3, 2, 4)}


class Judged(NamedTuple):
    """Logits, what they are held against, and how far each pixel counts."""

    logits: Tensor
    target: Tensor
    weight: Tensor


def judge(loss: Loss, case: Judged, importance: Tensor | None = None) -> Tensor:
    torch.manual_seed(0)  # negative learning draws
    return loss(case.logits, Pseudo(case.target, case.weight), importance)


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
    assert float(judge(CrossEntropy(), case)) == pytest.approx(naive_cross_entropy(*case), abs=1e-5)


@given(everything_judged)
@settings(max_examples=40, deadline=None)
def test_dice_is_the_mean_overlap_of_the_classes_present(case: Judged) -> None:
    assert float(judge(Dice(), case)) == pytest.approx(naive_dice(*case), abs=1e-5)


@given(everything_judged)
@settings(max_examples=20, deadline=None)
def test_their_sum_is_their_sum(case: Judged) -> None:
    expected = naive_cross_entropy(*case) + naive_dice(*case)
    assert float(judge(CrossEntropyDice(), case)) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda each: each.name)
@given(case=everything_judged)
@settings(max_examples=25, deadline=None)
def test_ignored_and_dropped_pixels_have_no_gradient_f13(loss: Loss, case: Judged) -> None:
    logits = case.logits.clone().requires_grad_()
    judge(loss, case._replace(logits=logits)).backward()
    silent = (case.target == IGNORE) | (case.weight == 0)
    gradient = logits.grad.movedim(1, -1)
    assert gradient[silent].abs().sum() == 0
    if not silent.all():
        assert gradient[~silent].abs().sum() > 0


@pytest.mark.parametrize("loss", LOSSES, ids=lambda each: each.name)
@given(case=everything_judged, seed=st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_more_ignored_pixels_change_nothing(loss: Loss, case: Judged, seed: int) -> None:
    if isinstance(loss, NegativeLearning):
        return  # more pixels, other draws
    strange = 9 * torch.randn(case.logits.shape, generator=torch.Generator().manual_seed(seed))
    wider = Judged(
        torch.cat([case.logits, strange], dim=-1),
        torch.cat([case.target, torch.full_like(case.target, IGNORE)], dim=-1),
        torch.cat([case.weight, torch.ones_like(case.weight)], dim=-1),
    )
    torch.testing.assert_close(judge(loss, wider), judge(loss, case), atol=1e-6, rtol=1e-5)


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
    assert float(judge(CrossEntropy(), twice)) == pytest.approx(
        float(judge(CrossEntropy(), case)) / 2
    )
    assert float(judge(Dice(), twice)) == pytest.approx(float(judge(Dice(), case)))
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
    value = judge(loss, Judged(logits, target, weight))
    value.backward()
    assert value == 0
    assert not logits.grad.any()


@pytest.mark.parametrize("loss", LOSSES, ids=lambda each: each.name)
def test_a_certain_and_right_prediction_costs_nothing(loss: Loss) -> None:
    target = judged(3, dims=2).target
    logits = 50 * torch.nn.functional.one_hot(target.clamp_max(2), 3).movedim(-1, 1).float()
    assert float(judge(loss, Judged(logits, target, torch.ones(target.shape)))) == pytest.approx(
        0, abs=1e-4
    )


@pytest.mark.parametrize("loss", LOSSES, ids=lambda each: each.name)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_extreme_logits_of_any_precision_stay_finite(loss: Loss, dtype: torch.dtype) -> None:
    _, target, weight = judged(4, dims=3)
    logits = (1e3 * judged(5, dims=3).logits).to(dtype).requires_grad_()
    value = judge(loss, Judged(logits, target, weight))
    value.backward()
    assert value.dtype == torch.float32
    assert value.isfinite()
    assert logits.grad.isfinite().all()


def test_a_class_that_is_absent_neither_helps_nor_hurts_dice_f11() -> None:
    logits, target, weight = judged(6, dims=2, classes=2)
    more = torch.cat([logits, torch.full_like(logits[:, :1], -80.0)], dim=1)
    assert float(judge(Dice(), Judged(more, target, weight))) == pytest.approx(
        float(judge(Dice(), Judged(logits, target, weight))), abs=1e-6
    )


def test_dice_by_hand() -> None:
    logits = torch.zeros(1, 2, 1, 2)  # both classes at 1/2, everywhere
    target = torch.tensor([[[0, 1]]])
    value = judge(Dice(smooth=0), Judged(logits, target, torch.ones(1, 1, 2)))
    assert float(value) == pytest.approx(1 - 2 * 0.5 / (1 + 1))


@pytest.mark.parametrize("loss", LOSSES, ids=lambda each: each.name)
def test_an_annotation_counts_fully(loss: Loss) -> None:
    case = judged(7, dims=2)
    truth = Labeled(torch.zeros_like(case.logits[:, :1]), case.target)
    torch.manual_seed(0)
    fully = judge(loss, case._replace(weight=torch.ones_like(case.weight)))
    torch.manual_seed(0)
    assert supervised(loss, case.logits, truth) == fully
    if "dice" not in loss.name:  # whose divisor is trust
        assert judge(loss, case) < fully


def naive_mean(case: Judged, lost: typing.Callable[[np.ndarray, int], float]) -> float:
    """What each annotated pixel loses by its probabilities and its label, averaged."""
    probs, total = naive_probs(case.logits), 0.0
    places = [at for at in np.ndindex(*case.target.shape) if case.target[at] != IGNORE]
    for sample, *where in places:
        at = (sample, *where)
        total += float(case.weight[at]) * lost(
            probs[(sample, slice(None), *where)], int(case.target[at])
        )
    return total / max(len(places), 1)


@given(everything_judged)
@settings(max_examples=25, deadline=None)
def test_the_robust_losses_are_what_their_papers_say(case: Judged) -> None:
    def reverse(p: np.ndarray, label: int) -> float:
        named = np.where(np.arange(len(p)) == label, 0.0, -4.0)  # log of the label
        return 0.1 * -np.log(p[label]) - (p * named).sum()

    def bootstrapped(p: np.ndarray, label: int) -> float:
        mixed = 0.95 * (np.arange(len(p)) == label) + 0.05 * p
        return -(mixed * np.log(np.maximum(p, 1e-300))).sum()

    for loss, lost in (
        (GeneralizedCrossEntropy(), lambda p, label: (1 - p[label] ** 0.7) / 0.7),
        (SymmetricCrossEntropy(), reverse),
        (Bootstrapping(), bootstrapped),
    ):
        found = float(judge(loss, case))
        assert found == pytest.approx(naive_mean(case, lost), rel=1e-4, abs=1e-5)


def test_generalized_cross_entropy_runs_from_cross_entropy_to_absolute_error() -> None:
    case = judged(8, dims=3)
    nearly = judge(GeneralizedCrossEntropy(q=1e-4), case)
    assert float(nearly) == pytest.approx(float(judge(CrossEntropy(), case)), rel=1e-2)
    absolute = naive_mean(case, lambda p, label: 1 - p[label])
    assert float(judge(GeneralizedCrossEntropy(q=1), case)) == pytest.approx(absolute, abs=1e-5)


@pytest.mark.parametrize("loss", [GeneralizedCrossEntropy(), SymmetricCrossEntropy()])
def test_a_label_that_is_contradicted_for_certain_pulls_less_than_in_cross_entropy(
    loss: Loss,
) -> None:
    def pull(judging: Loss) -> float:
        logits = torch.tensor([8.0, 0.0]).view(1, 2, 1).requires_grad_()
        judging(logits, Pseudo(torch.ones(1, 1).long(), torch.ones(1, 1))).backward()
        return float(logits.grad.abs().sum())

    assert pull(loss) < pull(CrossEntropy()) / 5


def test_negative_learning_of_two_classes_is_cross_entropy() -> None:
    case = judged(9, dims=2, classes=2)
    found, told = judge(NegativeLearning(), case), judge(CrossEntropy(), case)
    assert float(found) == pytest.approx(float(told), rel=1e-5)


def test_negative_learning_draws_every_class_but_the_label() -> None:
    probs = torch.tensor([0.5, 0.3, 0.2])
    logits = probs.log().view(1, 3, 1).expand(1, 3, 4000)
    label = Pseudo(torch.zeros(1, 4000).long(), torch.ones(1, 4000))
    expected = -(np.log(0.7) + np.log(0.8)) / 2  # class 1 or 2, never 0
    torch.manual_seed(3)
    assert float(NegativeLearning()(logits, label)) == pytest.approx(expected, rel=0.02)


def test_noise_robust_dice_by_hand() -> None:
    logits = torch.zeros(1, 2, 1, 2)  # both classes at 1/2, everywhere
    label = Pseudo(torch.tensor([[[0, 1]]]), torch.ones(1, 1, 2))
    found = NoiseRobustDice(gamma=1.5, smooth=0)(logits, label)
    assert float(found) == pytest.approx(2 * 0.5**1.5 / (2 * 0.25 + 1))
