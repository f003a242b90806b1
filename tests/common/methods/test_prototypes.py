"""Prototype consistency: one linear head teaches two, and prototypes follow the trusted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from common.batch import IGNORE, Batch
from common.filters import Confidence
from common.fit import Learner
from common.losses import CrossEntropy
from common.methods import Outcome, PrototypeConsistency
from common.prototypes import Comparing, Prototypes
from tests.common.methods.watch import (
    CLASSES,
    Seven,
    annotated,
    awkward,
    cross_entropy,
    cuts_of,
    labels,
    moved,
    softmax,
    values,
    watched,
)
from tests.toy import ToyDomain, ToySettings


@pytest.fixture(params=[2, 3], ids=["tiles", "volumes"])
def domain(request: pytest.FixtureRequest) -> ToyDomain:
    return Seven(ToySettings(dims=request.param, side=12 if request.param == 2 else 8))


def learner_of(domain: ToyDomain, **settings: Any) -> Learner:
    torch.manual_seed(0)
    learner = Learner(PrototypeConsistency(**{"stride": 1, **settings}), domain)
    for network in (learner.nets.teacher, learner.nets.student):
        torch.nn.init.normal_(network.head.weight, std=20)  # sure of much, but not of all
    return learner


def step(learner: Learner, batch: Batch, progress: float = 0.5) -> Outcome:
    keep = lambda probs: learner.keep(probs, progress)  # noqa: E731
    kit = learner.kit._replace(keep=keep, strong=lambda image: 0.5 * image)
    return learner.method.losses(learner.nets, batch, kit, progress)


def some_batch(domain: ToyDomain) -> Batch:
    return awkward(next(domain.batches(seed=0, first_step=0)))


def near_logits(known: Prototypes, pixels: Tensor) -> Tensor:
    """Cosines to the nearest prototype of each class by temperature, in double precision."""
    rows = pixels.detach().double().movedim(1, -1).numpy()
    rows = rows / np.linalg.norm(rows, axis=-1, keepdims=True).clip(1e-4)
    held = known.held.double().numpy()
    held = held / np.linalg.norm(held, axis=-1, keepdims=True).clip(1e-12)
    cosines = np.einsum("...f,kmf->...km", rows, held).max(axis=-1)
    cosines = np.where(known.started.numpy(), cosines, -1)
    return torch.from_numpy(np.moveaxis(cosines / 0.1, -1, 1))


def test_both_heads_learn_what_the_linear_head_of_the_teacher_is_sure_of(
    domain: ToyDomain, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuts, batch = cuts_of(monkeypatch), some_batch(domain)
    learner = learner_of(
        domain, supervised_loss=CrossEntropy(), unlabeled_weight=0.5, prototype_weight=0.25
    )
    step(learner, batch)  # prototypes start
    nets, known = learner.nets, Prototypes((CLASSES, 4, 8), decay=0.99, temperature=0.1)
    known.load_state_dict(nets.prototypes.state_dict())
    teacher, pixels, linear = map(watched, (nets.teacher, nets.student.decoder, nets.student.head))
    found = values(step(learner, batch))

    sure, valid = softmax(teacher[0].made), batch.unlabeled.valid.numpy()
    label = moved(cuts[1], sure.argmax(axis=1))
    weight = moved(cuts[1], (sure.max(axis=1) >= 0.8) & valid)
    among = moved(cuts[1], valid)
    few, near = len(batch.labeled.image), near_logits(known, pixels[0].made)
    started = known.started.numpy()[label]
    full = np.ones(batch.labeled.target.shape)
    truth = labels(batch), full, annotated(batch)
    expected = {
        "supervised": cross_entropy(linear[0].made[:few], *truth),
        "supervised_prototypes": 0.25 * cross_entropy(near[:few], *truth),
        "unlabeled": 0.5 * cross_entropy(linear[0].made[few:], label, weight, among),
        "prototypes": 0.125 * cross_entropy(near[few:], label, weight * started, among),
    }
    assert found == pytest.approx(expected, rel=1e-3)
    assert 0 < weight.sum() < among.sum()
    assert 0 < (weight * started).sum() < weight.sum()  # some class was never annotated


def gradients(learner: Learner, loss: Tensor) -> set[str]:
    learner.zero_grad()
    loss.backward(retain_graph=True)
    named = learner.nets.named_parameters()
    return {
        ".".join(name.split(".")[:2])
        for name, weights in named
        if weights.grad is not None and weights.grad.any()
    }


def test_likeness_moves_features_and_neither_the_linear_head_nor_a_prototype(
    domain: ToyDomain,
) -> None:
    learner = learner_of(domain)
    losses = step(learner, some_batch(domain)).losses
    for name in ("supervised_prototypes", "prototypes"):
        assert gradients(learner, losses[name]) == {"student.encoder", "student.decoder"}, name
    for name in ("supervised", "unlabeled"):
        found = gradients(learner, losses[name])
        assert found == {"student.encoder", "student.decoder", "student.head"}, name
    assert not any(each.requires_grad for each in learner.nets.prototypes.buffers())


def test_prototypes_start_anew_while_they_have_no_weight(domain: ToyDomain) -> None:
    learner, batch = learner_of(domain), some_batch(domain)
    held = learner.nets.prototypes.updates
    for _ in range(3):
        losses = step(learner, batch, 0.001).losses
        assert {name for name, value in losses.items() if value != 0} == {"supervised"}
        assert int(held.max()) == 1
    for number in range(2, 4):
        step(learner, batch, 0.5)
        assert int(held.max()) == number


def test_only_annotated_and_trusted_pixels_move_prototypes(domain: ToyDomain) -> None:
    batch = some_batch(domain)
    blank = torch.full_like(batch.labeled.target, IGNORE)
    nothing = batch._replace(labeled=batch.labeled._replace(target=blank))
    learner = learner_of(domain, filter=Confidence(threshold=1.0))
    known = learner.nets.prototypes
    known.held.normal_()
    known.started.fill_(True)
    for network in (learner.nets.teacher, learner.nets.student):
        torch.nn.init.zeros_(network.head.weight)  # sure of nothing
    before = known.held.clone()
    step(learner, nothing)
    assert torch.equal(known.held, before)
    trusting = Learner(PrototypeConsistency(filter=Confidence(threshold=0.0)), domain)
    trusting.load_state_dict(learner.state_dict())
    step(trusting, nothing)
    assert not torch.equal(trusting.nets.prototypes.held, before)


def test_a_run_that_goes_on_knows_its_prototypes(domain: ToyDomain) -> None:
    learner, other = learner_of(domain), learner_of(domain)
    step(learner, some_batch(domain))
    assert learner.nets.prototypes.started.any()
    other.load_state_dict(learner.state_dict())
    for a, b in zip(
        learner.nets.prototypes.buffers(), other.nets.prototypes.buffers(), strict=True
    ):
        assert torch.equal(a, b)


def test_the_teacher_predicts_with_its_linear_head(domain: ToyDomain) -> None:
    nets = learner_of(domain).nets
    assert isinstance(nets, Comparing)
    assert nets.predictor is nets.teacher
