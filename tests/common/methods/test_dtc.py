"""DTC: distances and classes that agree."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from common.batch import IGNORE, Batch
from common.distances import signed_distances
from common.domain import Task
from common.fit import Learner
from common.methods import DTC
from tests.toy import Net, ToyDomain, ToySettings


@pytest.fixture(params=[2, 3], ids=["tiles", "volumes"])
def domain(request: pytest.FixtureRequest) -> ToyDomain:
    domain = ToyDomain(ToySettings(dims=request.param, side=8))
    domain.new_network = lambda peer=0: Net(request.param, 1, 3)
    domain.task = Task(channels=1, classes=("rest", "disc", "none"), colors=((0, 0, 0),) * 3)
    return domain


def awkward(domain: ToyDomain) -> Batch:
    labeled, unlabeled = next(domain.batches(seed=0, first_step=0))
    lost = torch.rand(labeled.target.shape) < 0.2
    return Batch(
        labeled._replace(target=torch.where(lost, IGNORE, labeled.target)),
        unlabeled._replace(valid=torch.rand(unlabeled.valid.shape) < 0.7),
    )


def test_every_term_is_what_the_formula_says(domain: ToyDomain) -> None:
    learner, batch = Learner(DTC(steepness=4.0, reach_pixels=3), domain), awkward(domain)
    found = {name: float(each.detach()) for name, each in learner(batch, 1.0).losses.items()}

    nets, both = learner.nets, torch.cat([batch.labeled.image, batch.unlabeled.image])
    pixels = nets.student.decoder(nets.student.encoder(both))
    probs = nets.student.head(pixels).detach().double().softmax(dim=1).numpy()
    far = np.tanh(nets.others[0](pixels).detach().double().numpy())
    gap = ((1 / (1 + np.exp(4 * far)) - probs) ** 2).mean(axis=1)
    true = signed_distances(batch.labeled.target, 3, reach_pixels=3).numpy()
    known, valid = (batch.labeled.target != IGNORE).numpy(), batch.unlabeled.valid.numpy()
    missed = ((far[:2] - true) ** 2).mean(axis=1)
    assert found["supervised_distance"] == pytest.approx(0.3 * missed[known].mean(), rel=1e-4)
    assert found["supervised_agreement"] == pytest.approx(2 / 6 * gap[:2][known].mean(), rel=1e-4)
    assert found["unlabeled"] == pytest.approx(4 / 6 * gap[2:][valid].mean(), rel=1e-4)


def test_agreement_teaches_both_heads_and_distances_only_theirs(domain: ToyDomain) -> None:
    learner = Learner(DTC(), domain)
    outcome = learner(next(domain.batches(seed=0, first_step=0)), 1.0)
    taught = {}
    for name, loss in outcome.losses.items():
        learner.zero_grad()
        loss.backward(retain_graph=True)
        heads = learner.nets.student.head, learner.nets.others[0]
        grads = [[p.grad for p in head.parameters()] for head in heads]
        taught[name] = tuple(
            any(g is not None and bool((g != 0).any()) for g in of) for of in grads
        )
    assert taught == {
        "supervised": (True, False),
        "supervised_distance": (False, True),
        "supervised_agreement": (True, True),
        "unlabeled": (True, True),
    }


def test_pixels_nobody_annotated_have_no_say_in_any_term(domain: ToyDomain) -> None:
    learner, batch = Learner(DTC(), domain), awkward(domain)
    target = torch.full_like(batch.labeled.target, IGNORE)
    losses = learner(batch._replace(labeled=batch.labeled._replace(target=target)), 1.0).losses
    assert losses["supervised_distance"] == 0
    assert losses["supervised_agreement"] == 0


def test_only_the_head_that_tells_classes_is_shipped() -> None:
    nets = DTC().networks(lambda peer=0: Net(2, 1, 3))
    assert nets.predictor is nets.student
    assert {*nets.predictor.state_dict()} == {*Net(2, 1, 3).state_dict()}
