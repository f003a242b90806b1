"""MC-Net+: decoders that differ, and what each learns from the others."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from common.batch import IGNORE, Batch
from common.domain import Task
from common.fit import Learner
from common.methods import MCNet
from common.parts import Upsampled
from common.schedules import value_at
from tests.toy import Net, ToyDomain, ToySettings


@pytest.fixture(params=[2, 3], ids=["tiles", "volumes"])
def domain(request: pytest.FixtureRequest) -> ToyDomain:
    return ToyDomain(ToySettings(dims=request.param, side=8))


def with_classes(domain: ToyDomain, classes: int) -> ToyDomain:
    domain.new_network = lambda peer=0: Net(domain.settings.dims, 1, classes)
    names = tuple(f"class {index}" for index in range(classes))
    domain.task = Task(channels=1, classes=names, colors=((0, 0, 0),) * classes)
    return domain


def probabilities(learner: Learner, image: torch.Tensor) -> np.ndarray:
    """``(decoders, B, K, *S)``, statistics of batch norm being those of the batch."""
    nets = learner.nets
    features = nets.student.encoder(image)
    votes = [nets.student(image), *(each(features) for each in nets.others)]
    return torch.stack(votes).detach().double().softmax(dim=2).numpy()


def naive(probs: np.ndarray, valid: np.ndarray) -> float:
    """Sum over ordered pairs of the mean squared distance to what the other says, sharpened."""
    total = 0.0
    for i in range(len(probs)):
        for j in range(len(probs)):
            if i == j:
                continue
            power = probs[j] ** 10
            sharp = power / power.sum(axis=1, keepdims=True)
            squares = ((probs[i] - sharp) ** 2).mean(axis=1)
            total += squares[valid].mean()
    return total


@pytest.mark.parametrize("classes", [2, 5])
def test_agreement_is_what_the_formula_says(domain: ToyDomain, classes: int) -> None:
    learner = Learner(MCNet(), with_classes(domain, classes))
    batch = next(domain.batches(seed=0, first_step=0))
    valid = torch.rand(batch.unlabeled.valid.shape) < 0.7
    target = torch.where(torch.rand(batch.labeled.target.shape) < 0.3, IGNORE, batch.labeled.target)
    batch = Batch(batch.labeled._replace(target=target), batch.unlabeled._replace(valid=valid))
    losses = {name: float(each.detach()) for name, each in learner(batch, 1.0).losses.items()}
    probs = probabilities(learner, torch.cat([batch.labeled.image, batch.unlabeled.image]))
    known, there = (target != IGNORE).numpy(), valid.numpy()
    assert losses["supervised_agreement"] == pytest.approx(2 / 6 * naive(probs[:, :2], known), 1e-4)
    assert losses["unlabeled"] == pytest.approx(4 / 6 * naive(probs[:, 2:], there), rel=1e-4)


def test_for_two_classes_sharpening_is_that_of_the_authors() -> None:
    p = np.linspace(0.01, 0.99, 50)
    theirs = p**10 / (p**10 + (1 - p) ** 10)
    logits = torch.from_numpy(np.log(np.stack([p, 1 - p])))
    np.testing.assert_allclose((logits / 0.1).softmax(dim=0)[0].numpy(), theirs)


def test_a_decoder_is_pulled_and_never_pushed_through_what_it_says_to_others(
    domain: ToyDomain,
) -> None:
    learner = Learner(MCNet(), domain)
    batch = next(domain.batches(seed=0, first_step=0))
    head, image = learner.nets.student.head.weight, batch.unlabeled.image
    both = torch.cat([batch.labeled.image, image])
    (found,) = torch.autograd.grad(learner(batch, 1.0).losses["unlabeled"], head)

    others = torch.from_numpy(probabilities(learner, both))[1:, 2:]
    own = learner.nets.student(both)[2:].softmax(dim=1)
    sharp = others**10 / (others**10).sum(dim=2, keepdim=True)  # of the others, without gradient
    pulls = 4 / 6 * sum((own - each.float()).square().mean() for each in sharp)
    torch.testing.assert_close(found, torch.autograd.grad(pulls, head)[0])


def test_every_decoder_learns_from_labels_and_from_agreement(domain: ToyDomain) -> None:
    learner = Learner(MCNet(), domain)
    outcome = learner(next(domain.batches(seed=0, first_step=0)), 1.0)
    for name, loss in outcome.losses.items():
        learner.zero_grad()
        loss.backward(retain_graph=True)
        for part in (learner.nets.student.encoder, learner.nets.student.head, *learner.nets.others):
            assert any((p.grad != 0).any() for p in part.parameters()), name


def test_the_decoders_make_larger_as_their_settings_say() -> None:
    nets = MCNet().networks(lambda peer=0: Net(2, 1, 3))
    assert [each.kind for each in nets.others] == ["linear", "nearest"]
    assert all(isinstance(each, Upsampled) for each in nets.others)
    assert nets.predictor is nets.student
    assert len(MCNet(decoders=("linear",)).networks(lambda peer=0: Net(2, 1, 3)).others) == 1


def test_the_weight_ramps_as_the_authors_do() -> None:
    weight = MCNet().unlabeled_weight  # 40 units of 150 steps in 15000
    for step in (0, 1500, 3000, 6000, 15000):
        theirs = np.exp(-5 * (1 - np.clip(step / 150, 0, 40) / 40) ** 2)
        assert value_at(weight, step / 15000) == pytest.approx(theirs, abs=0.01)
