"""CPCL: what the conservative peer learns, what the progressive one, and with how much trust."""

from __future__ import annotations

import numpy as np
import pytest

from common.filters import Confidence
from common.methods import CPCL
from common.mixing import CutMix
from tests.common.methods.peers import Step, step
from tests.common.methods.watch import CLASSES, cross_entropy, cuts_of, moved, values


def naive_targets(seen: Step) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Union, its trust, the trust of the intersection, and where both agree."""
    (a, b), (sure_a, sure_b), valid = seen.labels, seen.confidences, seen.valid
    table = np.eye(CLASSES)
    np.add.at(table, (a[valid], b[valid]), 1)
    own = np.diag(table)
    rates = (table.sum(0) - own) / table.sum(0) + (table.sum(1) - own) / table.sum(1)
    agree, first_wins = a == b, rates[a] > rates[b]
    mean = (sure_a + sure_b) / 2
    union = np.where(first_wins, a, b)
    trust = np.where(agree, mean, np.where(first_wins, sure_a, sure_b))
    return union, trust, mean * agree, agree


@pytest.mark.parametrize("dims", [2, 3])
def test_it_is_the_formula_of_the_paper(dims: int, monkeypatch: pytest.MonkeyPatch) -> None:
    cuts = cuts_of(monkeypatch)
    seen = step(CPCL(unlabeled_weight=0.7, mix=CutMix()), dims=dims)
    union, trust, common_trust, agree = naive_targets(seen)
    assert 0.05 < agree[seen.valid].mean() < 0.95
    (cut,), (first, second) = cuts, seen.said
    among, label = moved(cut, seen.valid), moved(cut, union)  # they agree in the intersection
    conservative = cross_entropy(first.strong, label, moved(cut, common_trust), among)
    progressive = cross_entropy(second.strong, label, moved(cut, trust), among)
    found = values(seen.outcome)
    assert found["unlabeled_conservative"] == pytest.approx(0.7 * conservative, rel=1e-4)
    assert found["unlabeled_progressive"] == pytest.approx(0.7 * progressive, rel=1e-4)


def test_each_lesson_moves_its_own_peer_only() -> None:
    seen = step(CPCL())
    assert seen.moves("unlabeled_conservative") == [True, False]
    assert seen.moves("unlabeled_progressive") == [False, True]
    assert seen.moves("supervised") == [True, True]


def test_what_is_recorded_is_what_the_progressive_peer_learns() -> None:
    seen = step(CPCL())
    union, trust, _, _ = naive_targets(seen)
    assert (seen.outcome.pseudo.target.numpy() == union)[seen.valid].all()
    np.testing.assert_allclose(seen.outcome.pseudo.weight.numpy(), trust * seen.valid, rtol=1e-5)


def test_a_filter_drops_pixels_besides_confidence() -> None:
    seen = step(CPCL(filter=Confidence(threshold=0.6)))
    weight, (sure_a, sure_b) = seen.outcome.pseudo.weight.numpy(), seen.confidences
    both, none = np.minimum(sure_a, sure_b) >= 0.6, np.maximum(sure_a, sure_b) < 0.6
    assert (both & seen.valid).any()
    assert none.any()
    assert (weight[both & seen.valid] > 0.6 - 1e-6).all()
    assert (weight[none] == 0).all()
