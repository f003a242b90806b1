"""DMT: a lesson counts by what the learner makes of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from common.agreement import dynamic_trust
from common.methods import CrossPseudo, DynamicMutual
from tests.common.methods.peers import step
from tests.common.methods.watch import cross_entropy, softmax, values


def test_the_truth_table_of_the_paper() -> None:
    """Agree: p^g1. Differ, and the learner surer: 0. Differ else: p^g2."""
    teacher = torch.tensor([[0.7, 0.3], [0.7, 0.3], [0.7, 0.3], [0.6, 0.4]]).T.view(1, 2, 4)
    learner = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.4, 0.6]]).T.view(1, 2, 4)
    trust = dynamic_trust(teacher, learner, (2.0, 3.0))
    np.testing.assert_allclose(trust[0], [0.9**2, 0.0, 0.4**3, 0.4**3], rtol=1e-6)


@pytest.mark.parametrize("dims", [2, 3])
def test_each_lesson_is_a_cross_entropy_weighed_by_its_learner(dims: int) -> None:
    seen = step(DynamicMutual(agree_power=2.0, differ_power=1.0, unlabeled_weight=0.7), dims=dims)
    probs = [softmax(said.weak) for said in seen.said]
    total = 0.0
    for teacher, learner in ((0, 1), (1, 0)):
        label = seen.labels[teacher]
        chance = np.take_along_axis(probs[learner], label[:, None], axis=1)[:, 0]
        same = label == seen.labels[learner]
        weight = np.where(same, chance**2, chance)
        weight[~same & (seen.confidences[learner] > seen.confidences[teacher])] = 0
        assert (weight[seen.valid] > 0).any()
        total += cross_entropy(seen.said[learner].strong, label, weight, seen.valid)
    assert values(seen.outcome)["unlabeled"] == pytest.approx(0.7 * total, rel=1e-4)


def test_with_powers_of_0_only_surer_learners_refuse_what_cps_teaches() -> None:
    dmt = step(DynamicMutual(agree_power=0.0, differ_power=0.0, unlabeled_weight=1.0))
    cps = step(CrossPseudo(unlabeled_weight=1.0))
    assert 0 < values(dmt.outcome)["unlabeled"] < values(cps.outcome)["unlabeled"]


def test_each_lesson_moves_its_learner() -> None:
    assert step(DynamicMutual()).moves("unlabeled") == [True, True]
    assert step(DynamicMutual(num_peers=3)).moves("unlabeled") == [True] * 3
