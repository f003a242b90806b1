"""Losses between two predictions, against naive formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.batch import IGNORE, SoftPseudo
from common.consistency import UncertaintyAware, consistency
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
