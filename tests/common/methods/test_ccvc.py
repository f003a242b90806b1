"""CCVC: features that differ, and more weight where two disagree and are sure."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from common.batch import IGNORE
from common.consistency import likeness
from common.methods import CCVC
from tests.common.methods.peers import step
from tests.common.methods.watch import cross_entropy, values


def naive_likeness(first: np.ndarray, second: np.ndarray, where: np.ndarray) -> float:
    found = []
    for sample, *at in np.argwhere(where):
        a, b = first[(sample, slice(None), *at)], second[(sample, slice(None), *at)]
        found.append(1 + a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
    return float(np.mean(found))


@pytest.mark.parametrize("sides", [(5, 4), (3, 4, 2)])
def test_discrepancy_is_one_plus_the_cosine(sides: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal((2, 3, 6, *sides)).astype(np.float32)
    where = rng.random((3, *sides)) < 0.5
    found = likeness(*map(torch.from_numpy, (first, second, where)))
    assert float(found) == pytest.approx(naive_likeness(first, second, where), rel=1e-4)


def test_it_is_0_for_opposed_and_2_for_equal_features() -> None:
    features, where = torch.randn(2, 4, 3, 3), torch.ones(2, 3, 3, dtype=torch.bool)
    assert float(likeness(features, -features, where)) == pytest.approx(0, abs=1e-5)
    assert float(likeness(features, 5 * features, where)) == pytest.approx(2, abs=1e-5)


def test_coarse_features_count_by_the_share_of_pixels_under_them() -> None:
    first, second = torch.randn(2, 1, 4, 2, 2)
    where = torch.zeros(1, 4, 4, dtype=torch.bool)
    where[0, :2, :2], where[0, 2, 2] = True, True  # one coarse pixel whole, one by a quarter
    cosine = torch.cosine_similarity(first, second, dim=1)[0]
    expected = 1 + (cosine[0, 0] + 0.25 * cosine[1, 1]) / 1.25
    assert float(likeness(first, second, where)) == pytest.approx(float(expected), rel=1e-4)


def test_ignored_pixels_of_features_have_no_gradient() -> None:
    first = torch.randn(1, 4, 3, 3, requires_grad=True)
    where = torch.zeros(1, 3, 3, dtype=torch.bool)
    where[0, 0] = True
    likeness(first, torch.randn(1, 4, 3, 3), where).backward()
    assert (first.grad[0, :, 1:] == 0).all()
    assert (first.grad[0, :, 0] != 0).any()


def test_each_direction_holds_the_other_peer_still() -> None:
    first, second = torch.randn(2, 2, 4, 3, 3).requires_grad_().unbind(0)
    first.retain_grad()
    second.retain_grad()
    where = torch.ones(2, 3, 3, dtype=torch.bool)
    likeness(first, second, where).backward()
    alone = second.detach().requires_grad_()
    cosine = torch.cosine_similarity(first.detach(), alone, dim=1).mean()
    (by_hand,) = torch.autograd.grad(cosine / 2, alone)
    assert torch.allclose(second.grad, by_hand, atol=1e-6)


@pytest.mark.parametrize("threshold", [0.0, 0.6, 1.0])
def test_conflict_counts_twice_where_the_teachers_probability_is_above(threshold: float) -> None:
    method = CCVC(conflict_threshold=threshold, conflict_weight=2.0, unlabeled_weight=2.0)
    seen = step(method)
    (a, b), valid = seen.labels, seen.valid
    stress = [1.0 + ((a != b) & (sure > threshold)) for sure in seen.confidences]
    first, second = seen.said
    crossed = cross_entropy(second.strong, a, stress[0], valid)
    crossed += cross_entropy(first.strong, b, stress[1], valid)
    assert values(seen.outcome)["unlabeled"] == pytest.approx(2.0 * crossed / 2, rel=1e-4)
    stressed = (stress[0] > 1)[valid].mean()
    assert bool(stressed == 0) == (threshold == 1.0)


def test_the_terms_are_means_of_both_peers_and_both_kinds_of_images() -> None:
    seen = step(CCVC(discrepancy_weight=4.0))
    bodies = seen.learner.nets.peers
    nothing = seen.learner.kit._replace(strong=lambda image: image)
    bodies.eval()  # so that a second look sees the same
    outcome = seen.learner.method.losses(seen.learner.nets, seen.batch, nothing, 1.0)
    images = torch.cat([seen.batch.labeled.image, seen.batch.unlabeled.image])
    with torch.no_grad():
        first, second = (peer.decoder(peer.encoder(images)) for peer in bodies)
    count = len(seen.batch.labeled.image)
    known = (seen.batch.labeled.target != IGNORE).numpy()
    on_labeled = naive_likeness(first[:count].numpy(), second[:count].numpy(), known)
    on_strong = naive_likeness(first[count:].numpy(), second[count:].numpy(), seen.valid)
    found = values(outcome)
    assert found["supervised_discrepancy"] == pytest.approx(4.0 * on_labeled / 2, rel=1e-3)
    assert found["unlabeled_discrepancy"] == pytest.approx(4.0 * on_strong / 2, rel=1e-3)


def test_only_the_second_peer_maps_its_features() -> None:
    first, second = step(CCVC()).learner.nets.peers
    extra = sum(p.numel() for p in second.parameters()) - sum(p.numel() for p in first.parameters())
    assert extra == first.pixel_channels**2 + first.pixel_channels
