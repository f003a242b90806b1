"""DML: Kullback-Leibler divergence between peers, on labeled and on unlabeled images."""

from __future__ import annotations

import numpy as np
import pytest
from torch import Tensor

from common.methods import MutualLearning
from tests.common.methods.peers import step
from tests.common.methods.watch import annotated, softmax, values


def divergence(taught_by: Tensor, learner: Tensor, among: np.ndarray) -> float:
    """KL(teacher || learner), pixel after pixel, averaged over the pixels ``among``."""
    p, q, total = softmax(taught_by), softmax(learner), 0.0
    for sample, *at in np.argwhere(among):
        for c in range(p.shape[1]):
            own, other = p[(sample, c, *at)], q[(sample, c, *at)]
            total += own * np.log(own / other)
    return total / among.sum()


@pytest.mark.parametrize(("peers", "dims"), [(2, 2), (3, 2), (2, 3)])
def test_it_is_the_formula_of_the_paper(peers: int, dims: int) -> None:
    method = MutualLearning(num_peers=peers, labeled_weight=0.5, unlabeled_weight=2.0)
    seen = step(method, dims=dims)
    on_labeled = on_unlabeled = 0.0
    for k in range(peers):
        for other in set(range(peers)) - {k}:
            one, two = seen.said[other], seen.said[k]
            on_labeled += divergence(one.truth, two.truth, annotated(seen.batch))
            on_unlabeled += divergence(one.weak, two.strong, seen.valid)
    found = values(seen.outcome)
    assert found["supervised_mutual"] == pytest.approx(0.5 * on_labeled / (peers - 1), rel=1e-4)
    assert found["unlabeled"] == pytest.approx(2.0 * on_unlabeled / (peers - 1), rel=1e-4)


def test_nobody_is_drawn_by_who_learns_from_him() -> None:
    seen = step(MutualLearning(num_peers=2))
    seen.outcome.losses["supervised_mutual"].backward()
    drawn = [each.both.grad[: len(each.truth)] for each in seen.said]
    first, second = (softmax(each.truth) for each in seen.said)
    known = annotated(seen.batch)[:, None]
    for grad, own, other in ((drawn[0], first, second), (drawn[1], second, first)):
        by_hand = (own - other) * known / known.sum()  # of KL(other || own), other held fixed
        np.testing.assert_allclose(grad.numpy(), by_hand, atol=1e-6)


def test_peers_who_agree_have_nothing_to_tell_each_other() -> None:
    method = MutualLearning(num_peers=2)
    seen = step(method)
    seen.learner.nets.peers[1].load_state_dict(seen.learner.nets.peers[0].state_dict())
    kit = seen.learner.kit._replace(strong=lambda image: image)
    outcome = method.losses(seen.learner.nets, seen.batch, kit, 1.0)
    assert float(outcome.losses["supervised_mutual"].detach()) == pytest.approx(0.0, abs=1e-6)
