"""AD-MT: who is believed, which view is learned, and the loss of the paper."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.batch import Batch
from common.filters import All, Confidence
from common.fit import Learner
from common.learners import random_turn
from common.losses import CrossEntropy
from common.methods import ADMT, Outcome
from common.methods.ad_mt import settled
from common.mixing import CutMix
from tests.common.methods.watch import (
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
from tests.common.test_learners import changed

LABELED, UNLABELED, SURE = 2, 4, 0.4


def begun(domain: Seven, *, turn: int = 0, **changes: object) -> tuple[Learner, Batch]:
    """Two teachers and a student that know different things, at a step of ``turn``."""
    torch.manual_seed(0)
    defaults = {"supervised_loss": CrossEntropy(), "filter": Confidence(threshold=SURE)}
    learner = Learner(ADMT(**(defaults | changes)), domain)
    for teacher in learner.nets.teachers:
        teacher.load_state_dict(domain.new_network().state_dict())
    learner.nets.turn.fill_(turn)
    return learner, awkward(next(domain.batches(seed=0, first_step=0)))


def step(learner: Learner, batch: Batch) -> Outcome:
    torch.manual_seed(1)
    return learner(batch, 1.0)


def settled_by_hand(one: np.ndarray, other: np.ndarray, student: np.ndarray) -> np.ndarray:
    """Pixel after pixel, ``(B, K, *S)``."""
    made = np.empty_like(one)
    for b, *at in np.ndindex(one.shape[0], *one.shape[2:]):
        p, q, s = (probs[(b, slice(None), *at)] for probs in (one, other, student))
        first, second = (np.exp((r * np.log(r)).sum()) for r in (p, q))  # exp(-entropy)
        mean = (first * p + second * q) / (first + second)
        conflict = p.argmax() != q.argmax() and s.argmax() != mean.argmax()
        made[(b, slice(None), *at)] = s if conflict and s.max() > mean.max() else mean
    return made


@given(seed=st.integers(0, 10_000), classes=st.integers(2, 7))
@settings(max_examples=30, deadline=None)
def test_opinions_are_settled_as_in_the_paper(seed: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    opinions = [rng.dirichlet(np.full(classes, 0.5), (2, 3, 4)) for _ in range(3)]
    opinions = [np.moveaxis(each, -1, 1).clip(1e-6) for each in opinions]
    found = settled(*(torch.from_numpy(each) for each in opinions))
    np.testing.assert_allclose(found.numpy(), settled_by_hand(*opinions), atol=1e-5)


def test_every_case_of_a_conflict() -> None:
    cases = [  # one, other, student, what is made of them
        (
            [0.9, 0.1],
            [0.9, 0.1],
            [0.0, 1.0],
            [0.9, 0.1],
        ),  # teachers agree: the student is not asked
        ([0.9, 0.1], [0.1, 0.9], [0.5, 0.5], [0.5, 0.5]),  # equally sure teachers: their mean
        ([0.9, 0.1], [0.4, 0.6], [0.35, 0.65], [0.693, 0.307]),  # the surer teacher counts for more
        ([0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.2, 0.8]),  # the student is surer than both
        ([0.9, 0.1], [0.4, 0.6], [0.99, 0.01], [0.693, 0.307]),  # but has nothing new to say
    ]
    one, other, student, expected = (
        torch.tensor(part).T[None] for part in zip(*cases, strict=True)
    )
    torch.testing.assert_close(settled(one, other, student), expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("turn", [0, 1])
def test_the_loss_is_the_papers(domain: Seven, turn: int, monkeypatch: pytest.MonkeyPatch) -> None:
    learner, batch = begun(domain, turn=turn)
    teachers = [watched(teacher.head) for teacher in learner.nets.teachers]
    student, cuts = watched(learner.nets.student.head), cuts_of(monkeypatch, CutMix)
    outcome = step(learner, batch)

    asked, learned = student
    one, other = (softmax(calls[0].made) for calls in teachers)
    assert (one.argmax(axis=1) != other.argmax(axis=1)).mean() > 0.1
    made = settled_by_hand(one, other, softmax(asked.made))
    valid = batch.unlabeled.valid.numpy()
    label, sure = made.argmax(axis=1), (made.max(axis=1) >= SURE) & valid
    assert 0.05 < sure.mean() < 0.95
    (cut,) = cuts
    if turn == 1:
        label, sure = moved(cut, label), moved(cut, sure)
    on_truth, on_harder = learned.made.split([LABELED, UNLABELED])
    known = annotated(batch)
    expected = {
        "supervised": cross_entropy(on_truth, labels(batch), known * 1.0, known) / 2,
        "unlabeled": 2 * cross_entropy(on_harder, label, sure * 1.0, sure),  # by the kept pixels
    }
    assert values(outcome) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("turn", [0, 1])
def test_the_first_teacher_has_strong_views_learned_the_second_one_mixed_weak_ones(
    domain: Seven, turn: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner, batch = begun(domain, turn=turn)
    encoder, cuts = watched(learner.nets.student.encoder), cuts_of(monkeypatch, CutMix)
    kit = learner.kit._replace(strong=lambda image: image + 5)
    torch.manual_seed(1)
    learner.method.losses(learner.nets, batch, kit, 1.0)
    asked, learned = (call.given for call in encoder)
    weak = batch.unlabeled.image
    assert torch.equal(asked, weak)
    assert torch.equal(learned[:LABELED], batch.labeled.image)
    assert torch.equal(learned[LABELED:], weak + 5 if turn == 0 else cuts[0].image(weak))


def test_nothing_flows_into_an_opinion_or_into_a_dropped_pixel(
    domain: Seven, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner, batch = begun(domain, turn=1, filter=All())
    heads, cuts = watched(learner.nets.student.head), cuts_of(monkeypatch, CutMix)
    outcome = step(learner, batch)
    outcome.losses["unlabeled"].backward()
    asked, learned = heads
    assert not asked.made.requires_grad
    size = learned.made.grad.abs().sum(dim=1)
    assert (size[:LABELED] == 0).all()
    seen = cuts[0].valid(batch.unlabeled.valid)
    assert (size[LABELED:][~seen] == 0).all()
    assert (size[LABELED:][seen] > 0).all()
    assert all(p.grad is None for p in learner.nets.teachers.parameters())


def test_asking_changes_no_statistics_of_a_teacher(domain: Seven) -> None:
    learner, batch = begun(domain)
    learner.train()
    before = {k: v.clone() for k, v in learner.nets.teachers.state_dict().items()}
    step(learner, batch)
    for key, value in learner.nets.teachers.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_turns_are_random_and_known_to_the_checkpoint(domain: Seven) -> None:
    learner, _ = begun(domain, longest_turn_steps=5, decay=0.5)
    for at in range(30):
        changed(learner.nets.student, at)
        learner.nets.after_step(at)
        turn = int(learner.state_dict()["nets.turn"])
        assert turn == random_turn(at + 1, longest_steps=5)
