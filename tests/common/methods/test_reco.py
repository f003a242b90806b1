"""ReCo: who is contrasted, who asks, what answers, and what the lesson weighs."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from common.batch import IGNORE, Batch
from common.contrast import Contrast, Lattice, Others, Sample, misses
from common.filters import Confidence, ConfidentShare
from common.fit import Learner
from common.methods import Outcome, ReCo
from common.mixing import ClassMix, NoMix
from tests.common.methods.watch import (
    CLASSES,
    Seven,
    awkward,
    cross_entropy,
    cuts_of,
    moved,
    softmax,
    watched,
)
from tests.toy import ToyDomain, ToySettings

EVERY_PIXEL = Contrast(anchors=512, negatives=32, size=8, stride=1)


class Asked(NamedTuple):
    """What the contrast was given."""

    pixels: Tensor
    keys: Tensor
    seen: Sample
    candidates: Tensor
    others: Others


@pytest.fixture(params=[2, 3], ids=["tiles", "volumes"])
def domain(request: pytest.FixtureRequest) -> ToyDomain:
    return Seven(ToySettings(dims=request.param, side=12 if request.param == 2 else 8))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Asked]:
    calls: list[Asked] = []
    compute = Contrast.__call__

    def look(self: Contrast, *args: Any, others: Others) -> tuple[Tensor, Tensor]:
        calls.append(Asked(*args, others))
        return compute(self, *args, others=others)

    monkeypatch.setattr(Contrast, "__call__", look)
    return calls


def learner_of(domain: ToyDomain, **settings: Any) -> Learner:
    torch.manual_seed(0)
    learner = Learner(ReCo(**{"contrast": EVERY_PIXEL, **settings}), domain)
    for network in (learner.nets.teacher, learner.nets.student):
        torch.nn.init.normal_(network.head.weight, std=20)  # sure of much, but not of all
    return learner


def step(learner: Learner, batch: Batch, progress: float = 0.5) -> Outcome:
    keep = lambda probs: learner.keep(probs, progress)  # noqa: E731
    kit = learner.kit._replace(keep=keep, strong=lambda image: 0.5 * image)
    return learner.method.losses(learner.nets, batch, kit, progress)


def some_batch(domain: ToyDomain) -> Batch:
    return awkward(next(domain.batches(seed=0, first_step=0)))


def test_queries_are_hard_pixels_that_are_annotated_or_whose_pseudo_label_is_believed(
    domain: ToyDomain, asked: list[Asked], monkeypatch: pytest.MonkeyPatch
) -> None:
    cuts, batch = cuts_of(monkeypatch, ClassMix), some_batch(domain)
    learner = learner_of(domain, query_threshold=0.8)
    teacher, student = (watched(head) for head in (learner.nets.teacher, learner.nets.student.head))
    step(learner, batch)
    sure = softmax(teacher[0].made)
    known = np.concatenate(
        [
            (batch.labeled.target != IGNORE).numpy(),
            moved(cuts[0], (sure.max(axis=1) >= 0.7) & batch.unlabeled.valid.numpy()),
        ]
    ).flatten()
    label = np.concatenate(
        [batch.labeled.target.numpy(), moved(cuts[0], sure.argmax(axis=1))]
    ).flatten()
    probs = np.moveaxis(softmax(student[0].made), 1, -1).reshape(-1, CLASSES)
    of_label = np.take_along_axis(probs, np.where(known, label, 0)[:, None], axis=1)[:, 0]
    members = known & (label == np.arange(CLASSES)[:, None])
    np.testing.assert_array_equal(asked[0].seen.members(CLASSES).numpy(), members)
    expected = members & (of_label < 0.8)
    np.testing.assert_array_equal(asked[0].candidates.numpy(), expected)
    assert 0 < expected.sum() < members.sum() < members.shape[1]


def test_both_parts_are_the_mean_over_classes_present_of_queries_against_their_class(
    domain: ToyDomain, asked: list[Asked]
) -> None:
    losses = step(learner_of(domain, contrast_weight=0.25), some_batch(domain)).losses
    pixels, keys, seen, candidates, others = asked[0]
    assert pixels is keys
    members = seen.members(CLASSES)
    rows = pixels.detach()
    total, present = 0.0, 0
    for label in range(CLASSES):  # the expectation over queries, with the negatives drawn
        if not members[label].any():
            continue
        present += 1
        if not candidates[label].any() or not others.exist[label]:
            continue
        queries = rows[candidates[label]]
        many = torch.randint(len(queries), (EVERY_PIXEL.anchors,))
        chosen = others.chosen[label : label + 1]
        mean = rows[members[label]].mean(dim=0)
        missed = misses(
            queries[many][None],
            mean[None],
            Others(others.held.detach(), chosen, others.exist),
            temperature=0.5,
        )
        total += float(missed.detach().mean())
    found = losses["contrast"] + losses["supervised_contrast"]
    assert float(found.detach()) == pytest.approx(0.25 * total / present, rel=0.05)  # other draws


@given(st.integers(0, 10_000), st.integers(2, 5), st.sampled_from([0.2, 0.5, 2.0]))
@settings(max_examples=15, deadline=None)
def test_negatives_are_of_other_classes_the_more_often_the_more_alike(
    seed: int, classes: int, temperature: float
) -> None:
    torch.manual_seed(seed)
    label = torch.randint(0, classes, (40,))
    trusted = torch.rand(40) < 0.7
    members = Sample(label, trusted, trusted).members(classes)
    keys = torch.randn(40, 3, requires_grad=True)
    contrast = Contrast(anchors=100, negatives=100, temperature=temperature)
    others = contrast.similar_others(keys, members)
    assert not others.held.requires_grad
    rows, owned = keys.detach().double().numpy(), members.numpy()
    present = [k for k in range(classes) if owned[k].any()]
    means = {k: rows[owned[k]].mean(axis=0) for k in present}
    for own in range(classes):
        rest = [k for k in present if k != own]
        assert bool(others.exist[own]) == bool(rest)
        if own not in present or not rest:
            continue
        cosines = [
            means[own] @ means[k] / np.linalg.norm(means[own]) / np.linalg.norm(means[k])
            for k in rest
        ]
        power = np.exp(np.array(cosines) / temperature)
        expected = np.zeros(40)
        for k, share in zip(rest, power / power.sum(), strict=True):
            expected[owned[k]] = share / owned[k].sum()
        found = np.bincount(others.chosen[own].flatten().numpy(), minlength=40) / 10_000
        np.testing.assert_allclose(found, expected, atol=0.03)
        assert not found[expected == 0].any()


def test_a_class_alone_has_nothing_to_be_unlike() -> None:
    members = torch.zeros(3, 6, dtype=torch.bool)
    members[1] = True
    others = Contrast().similar_others(torch.randn(6, 4), members)
    assert not others.exist[1]
    assert others.chosen.shape == (3, 256, 50)


def test_the_lesson_weighs_every_valid_pixel_by_the_share_of_sure_ones(domain: ToyDomain) -> None:
    learner, batch = learner_of(domain, mix=NoMix(), unlabeled_weight=3.0), some_batch(domain)
    teacher, student = (watched(head) for head in (learner.nets.teacher, learner.nets.student.head))
    found = step(learner, batch).losses["unlabeled"]
    probs, valid = softmax(teacher[0].made), batch.unlabeled.valid.numpy()
    share = (probs.max(axis=1) >= 0.97)[valid].mean()
    assert 0 < share < 1
    on_strong = student[0].made[len(batch.labeled.image) :]
    label, weight = probs.argmax(axis=1), valid * share
    expected = 3 * cross_entropy(on_strong, label, weight, valid)
    assert float(found.detach()) == pytest.approx(expected, rel=1e-4)


def gradients(learner: Learner, loss: Tensor) -> dict[str, float]:
    learner.zero_grad()
    loss.backward(retain_graph=True)
    return {
        name: 0.0 if weights.grad is None else float(weights.grad.abs().sum())
        for name, weights in learner.nets.named_parameters()
    }


def test_contrast_moves_features_and_representation_of_the_student_alone(
    domain: ToyDomain,
) -> None:
    learner = learner_of(domain)
    losses = step(learner, some_batch(domain)).losses
    for name in ("contrast", "supervised_contrast"):
        found = gradients(learner, losses[name])
        moved_parts = {each.split(".")[1] for each, value in found.items() if value > 0}
        assert moved_parts == {"encoder", "decoder", "projection"}, name
        assert not any(value for each, value in found.items() if each.startswith("teacher"))
    found = gradients(learner, losses["unlabeled"])
    assert not any(value for each, value in found.items() if "projection" in each)


def test_queries_alone_get_a_gradient(domain: ToyDomain, asked: list[Asked]) -> None:
    learner = learner_of(domain, query_threshold=0.8)
    losses = step(learner, some_batch(domain)).losses
    total = losses["contrast"] + losses["supervised_contrast"]
    (gradient,) = torch.autograd.grad(total, asked[0].pixels)
    asking = asked[0].candidates.any(dim=0)
    assert not gradient[~asking].any()
    assert gradient[asking].any()


@pytest.mark.parametrize(
    "settings",
    [
        {"contrast_filter": Confidence(threshold=1.0)},  # no pseudo-label is believed
        {"filter": ConfidentShare(threshold=1.0)},  # nothing is kept
    ],
    ids=["not believed", "not kept"],
)
def test_a_pseudo_label_that_is_not_trusted_is_not_contrasted(
    domain: ToyDomain, asked: list[Asked], settings: dict[str, Any]
) -> None:
    learner = learner_of(domain, **settings)
    for head in (learner.nets.teacher.head, learner.nets.student.head):
        torch.nn.init.normal_(head.weight, std=0.1)  # sure of nothing
    losses = step(learner, some_batch(domain)).losses
    assert losses["contrast"] == 0
    assert losses["supervised_contrast"] > 0
    assert not (asked[0].seen.members(CLASSES) & asked[0].seen.unlabeled).any()


def test_where_nothing_is_hard_nothing_is_contrasted(domain: ToyDomain) -> None:
    losses = step(learner_of(domain, query_threshold=0.0), some_batch(domain)).losses
    assert losses["contrast"] == losses["supervised_contrast"] == 0
    assert losses["contrast"].requires_grad


def test_a_coarse_lattice_is_contrasted(domain: ToyDomain, asked: list[Asked]) -> None:
    batch = some_batch(domain)
    step(learner_of(domain, contrast=EVERY_PIXEL.model_copy(update={"stride": 4})), batch)
    sides = tuple(batch.labeled.image.shape[2:])
    per_image = Lattice(sides, (0,) * len(sides), 4).rows(batch.labeled.image[:1])
    assert len(asked[0].pixels) == len(per_image) * sum(len(each[0]) for each in batch)


def test_the_teacher_predicts(domain: ToyDomain) -> None:
    nets = learner_of(domain).nets
    assert nets.predictor is nets.teacher
