"""CPS and n-CPS: who teaches whom, how often, and by what it is divided."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from common.batch import IGNORE
from common.fit import Learner
from common.learners import crosswise
from common.methods import CrossPseudo
from tests.common.methods.peers import step
from tests.common.methods.watch import cross_entropy, values
from tests.toy import ToyDomain, ToySettings


@pytest.mark.parametrize("dims", [2, 3])
def test_two_peers_are_the_formula_of_cps(dims: int) -> None:
    seen = step(CrossPseudo(num_peers=2, unlabeled_weight=1.5), dims=dims)
    (first, second), (label_1, label_2), valid = seen.said, seen.labels, seen.valid
    full = np.ones(valid.shape)
    cps = cross_entropy(first.strong, label_2, full, valid)
    cps += cross_entropy(second.strong, label_1, full, valid)
    assert values(seen.outcome)["unlabeled"] == pytest.approx(1.5 * cps, rel=1e-5)


@pytest.mark.parametrize("peers", [2, 3, 4])
def test_n_peers_have_n_times_n_minus_1_lessons_by_n_minus_1(peers: int) -> None:
    seen = step(CrossPseudo(num_peers=peers, unlabeled_weight=1.0))
    lessons = [
        cross_entropy(
            seen.said[learner].strong, seen.labels[teacher], np.ones_like(seen.valid), among
        )
        for among in [seen.valid]
        for learner in range(peers)
        for teacher in range(peers)
        if teacher != learner
    ]
    assert len(lessons) == peers * (peers - 1)
    assert values(seen.outcome)["unlabeled"] == pytest.approx(sum(lessons) / (peers - 1), rel=1e-5)


@pytest.mark.parametrize("peers", [2, 3, 5])
def test_every_ordered_pair_has_one_lesson_and_nobody_teaches_himself(peers: int) -> None:
    asked: list[tuple[int, int]] = []

    def lesson(teacher: int, learner: int) -> torch.Tensor:
        asked.append((teacher, learner))
        return torch.tensor(1.0)

    assert crosswise(peers, lesson) == peers  # n (n - 1) by n - 1
    assert Counter(asked) == {(i, j): 1 for i in range(peers) for j in range(peers) if i != j}


def test_no_gradient_flows_into_who_teaches() -> None:
    seen = step(CrossPseudo(num_peers=2))
    assert not any(part.requires_grad for part in seen.outcome.pseudo)
    assert all(not said.weak.requires_grad for said in seen.said)


def test_peers_may_be_of_different_kinds() -> None:
    domain = ToyDomain(ToySettings(norm="batch", partners=("group", "instance")))
    learner = Learner(CrossPseudo(num_peers=3), domain)
    kinds = [type(peer.encoder.fine[1]).__name__ for peer in learner.nets.peers]
    assert kinds == ["BatchNorm2d", "GroupNorm", "InstanceNorm2d"]
    outcome = learner(next(domain.batches(seed=0, first_step=0)), 1.0)
    assert (outcome.pseudo.target != IGNORE).all()
