"""Losses between two predictions, against naive formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.batch import IGNORE, SoftPseudo
from common.consistency import SoftDice, UncertaintyAware, consistency
from tests.common.test_losses import Judged, everything_judged, judged, naive_probs


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


@given(everything_judged)
@settings(max_examples=25, deadline=None)
def test_consistency_gives_no_gradient_where_nothing_is_trusted(case: Judged) -> None:
    logits = case.logits.clone().requires_grad_()
    probs = torch.full_like(case.logits, 1 / case.logits.shape[1])
    consistency(logits, SoftPseudo(probs, case.weight)).backward()
    gradient = logits.grad.movedim(1, -1)
    assert gradient[case.weight == 0].abs().sum() == 0
    assert gradient.isfinite().all()


@given(everything_judged, st.integers(0, 10_000), st.floats(0, 1))
@settings(max_examples=25, deadline=None)
def test_squares_count_less_where_either_is_unsure_and_entropy_is_paid_for(
    case: Judged, seed: int, progress: float
) -> None:
    other = judged(seed, dims=case.target.ndim - 1, classes=case.logits.shape[1])
    soft = other.logits[: len(case.logits)].softmax(dim=1)
    if len(soft) < len(case.logits):
        return
    valid = case.target != IGNORE
    weight = case.weight * valid
    p, q = naive_probs(case.logits), soft.double().numpy()
    own, others = (-(each * np.log(np.maximum(each, 1e-300))).sum(axis=1) for each in (p, q))
    beta = 5 * (0.5 / 5) ** progress
    lost = ((p - q) ** 2).sum(axis=1) / (np.exp(beta * own) + np.exp(beta * others))
    lost += beta * (own + others)
    expected = (lost * weight.double().numpy()).sum() / max(int(valid.sum()), 1)
    found = UncertaintyAware()(case.logits, SoftPseudo(soft, weight), valid, progress)
    assert float(found) == pytest.approx(expected, rel=1e-4, abs=1e-5)


@given(everything_judged, st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_soft_dice_is_the_overlap_of_each_class_that_is_named(case: Judged, seed: int) -> None:
    other = torch.randn(case.logits.shape, generator=torch.Generator().manual_seed(seed))
    valid = case.target != IGNORE
    weight = case.weight * valid
    p, q, w = naive_probs(case.logits), naive_probs(other), weight.double().numpy()
    lost = [
        1 - 2 * (w * p[:, k] * q[:, k]).sum() / (w * (p[:, k] ** 2 + q[:, k] ** 2)).sum()
        for k in range(p.shape[1])
        if (w * (q.argmax(axis=1) == k)).sum() > 1e-9
    ]
    found = SoftDice()(case.logits, SoftPseudo(other.softmax(dim=1), weight), valid)
    expected = np.mean(lost) if lost else 0.0
    assert float(found) == pytest.approx(expected, rel=1e-3, abs=1e-4)


@given(everything_judged)
@settings(max_examples=25, deadline=None)
def test_soft_dice_asks_nothing_of_equals_and_nothing_where_nothing_is_trusted(
    case: Judged,
) -> None:
    valid = case.target != IGNORE
    same = SoftPseudo(case.logits.softmax(dim=1), torch.ones_like(case.weight))
    assert float(SoftDice()(case.logits, same, valid)) == pytest.approx(0, abs=1e-5)
    logits = case.logits.clone().requires_grad_()
    nothing = SoftPseudo(same.probs.roll(1, dims=1), torch.zeros_like(case.weight))
    loss = SoftDice()(logits, nothing, valid)
    loss.backward()
    assert float(loss.detach()) == 0
    assert logits.grad.abs().sum() == 0


def test_soft_dice_lets_a_rare_class_pull_as_much_as_a_common_one() -> None:
    """One pixel of a rare class missed costs what all pixels of a common one missed cost."""
    label = torch.zeros(1, 10, 10, dtype=torch.long)
    label[0, 0, 0] = 1
    probs = torch.nn.functional.one_hot(label, 2).movedim(-1, 1).float()
    sure = SoftPseudo(probs, torch.ones(1, 10, 10))
    valid = torch.ones(1, 10, 10, dtype=torch.bool)
    logits = torch.full((1, 2, 10, 10), -20.0)
    logits[:, 0] = 20.0  # class 0 everywhere: the rare pixel is missed
    assert float(SoftDice()(logits, sure, valid)) == pytest.approx(0.5, abs=0.01)
