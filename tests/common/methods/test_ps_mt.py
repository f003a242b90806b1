"""PS-MT: its loss is the paper's, its features are moved, its teachers stay strict."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from common.batch import Batch
from common.errors import ConfigError
from common.filters import All, Confidence
from common.fit import Learner
from common.losses import CrossEntropy
from common.methods import PSMT, Outcome
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
from tests.toy import ToySettings

LABELED, UNLABELED, SURE = 2, 4, 0.3


def begun(domain: Seven, **changes: object) -> tuple[Learner, Batch]:
    """Two teachers that know different things."""
    torch.manual_seed(0)
    defaults = {"supervised_loss": CrossEntropy(), "filter": Confidence(threshold=SURE)}
    learner = Learner(PSMT(**(defaults | changes)), domain)
    for teacher in learner.nets.teachers:
        teacher.load_state_dict(domain.new_network().state_dict())
    return learner, awkward(next(domain.batches(seed=0, first_step=0)))


def step(learner: Learner, batch: Batch) -> Outcome:
    torch.manual_seed(1)
    return learner(batch, 1.0)


def test_the_loss_is_the_papers(domain: Seven, monkeypatch: pytest.MonkeyPatch) -> None:
    learner, batch = begun(domain)
    teachers = [watched(teacher) for teacher in learner.nets.teachers]
    student, cuts = watched(learner.nets.student.head), cuts_of(monkeypatch, CutMix)
    outcome = step(learner, batch)

    mean = sum(softmax(calls[0].made) for calls in teachers) / 2
    label, confidence = mean.argmax(axis=1), mean.max(axis=1)
    sure = (confidence >= SURE) & batch.unlabeled.valid.numpy()
    assert 0.05 < sure.mean() < 0.95
    (call,), (cut,), known = student, cuts, annotated(batch)
    on_truth, on_mixed = call.made.split([LABELED, UNLABELED])
    kept = moved(cut, sure)
    weight = kept * moved(cut, confidence)
    expected = {
        "supervised": cross_entropy(on_truth, labels(batch), known * 1.0, known),
        "unlabeled": 1.5 * cross_entropy(on_mixed, moved(cut, label), weight, kept),
    }
    assert values(outcome) == pytest.approx(expected, rel=1e-4)


def test_the_students_features_move_by_their_share_before_its_decoder(domain: Seven) -> None:
    for share in (0.0, 0.02):
        learner, batch = begun(domain, perturbation=share)
        student, clean = learner.nets.student, []
        student.encoder.register_forward_hook(lambda _, __, made, clean=clean: clean.append(made))
        decoder = watched(student.decoder)
        step(learner, batch)
        (features,), (call,) = clean, decoder
        for before, after in zip(features, call.given, strict=True):
            assert len(before) == LABELED + UNLABELED
            length = before.detach().flatten(1).norm(dim=1)
            moved_by = (after - before).detach().flatten(1).norm(dim=1)
            torch.testing.assert_close(moved_by, share * length, rtol=1e-2, atol=1e-6)


def test_the_step_is_found_by_the_teachers_and_hurts_them(domain: Seven) -> None:
    learner, batch = begun(domain, perturbation=0.02)
    student, teachers = learner.nets.student, learner.nets.teachers
    clean, decoder = [], watched(student.decoder)
    student.encoder.register_forward_hook(lambda _, __, made: clean.append(made))
    step(learner, batch)

    def mean(features: tuple[torch.Tensor, ...]) -> torch.Tensor:
        return sum(t.head(t.decoder(features)).softmax(dim=1) for t in teachers) / 2

    start, end = clean[0], decoder[0].given
    rng = torch.Generator().manual_seed(0)
    noise = [torch.randn(each.shape, generator=rng) for each in start]
    scale = [(e - s).flatten(1).norm(dim=1) for s, e in zip(start, end, strict=True)]
    ones = [1] * (start[0].ndim - 1)
    chance = tuple(
        s + n * (length / n.flatten(1).norm(dim=1)).view(-1, *ones)
        for s, n, length in zip(start, noise, scale, strict=True)
    )
    belief = mean(start)
    harm, luck = ((belief * (belief / mean(each)).log()).sum() for each in (end, chance))
    assert harm > 3 * luck


def test_nothing_flows_into_teachers_or_into_dropped_pixels(
    domain: Seven, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner, batch = begun(domain, filter=All())
    heads, cuts = watched(learner.nets.student.head), cuts_of(monkeypatch, CutMix)
    outcome = step(learner, batch)
    assert all(p.grad is None for p in learner.parameters())  # the search left nothing behind
    outcome.losses["unlabeled"].backward()
    size = heads[0].made.grad.abs().sum(dim=1)
    seen = cuts[0].valid(batch.unlabeled.valid)
    assert (size[:LABELED] == 0).all()
    assert (size[LABELED:][~seen] == 0).all()
    assert (size[LABELED:][seen] > 0).all()
    assert all(p.grad is None for p in learner.nets.teachers.parameters())


def test_predicting_and_judging_change_no_statistics_of_a_teacher(domain: Seven) -> None:
    learner, batch = begun(domain)
    learner.train()
    before = {k: v.clone() for k, v in learner.nets.teachers.state_dict().items()}
    step(learner, batch)
    for key, value in learner.nets.teachers.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_what_is_recorded_is_which_pixels_were_kept(domain: Seven) -> None:
    learner, batch = begun(domain)
    pseudo = step(learner, batch).pseudo
    assert set(np.unique(pseudo.weight.numpy())) == {0.0, 1.0}  # recorded: kept or not


def test_a_network_in_one_piece_is_refused_in_words() -> None:
    class Whole(Seven):
        def new_network(self, peer: int = 0) -> nn.Module:
            return nn.Conv2d(1, 7, 1)

    with pytest.raises(ConfigError, match="works on features inside the network"):
        Learner(PSMT(), Whole(ToySettings()))
