"""The uncertainty-aware mean teacher: its formulas, its noisy looks, and who stays untouched."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from common.batch import Batch
from common.filters import All
from common.fit import Learner
from common.losses import CrossEntropy
from common.methods import Outcome, UncertaintyAwareMeanTeacher
from common.parts import Parted
from tests.common.methods.watch import (
    CLASSES,
    Seen,
    Seven,
    annotated,
    awkward,
    cross_entropy,
    labels,
    softmax,
    values,
    watched,
)
from tests.toy import Net, ToyDomain, ToySettings

LABELED, LOOKS = 2, 8


class Dropping(Seven):
    """With dropout between decoder and head."""

    def new_network(self, peer: int = 0) -> nn.Module:
        whole = super().new_network(peer)
        assert isinstance(whole, Parted)
        return Parted(whole.encoder, whole.decoder, nn.Sequential(nn.Dropout(0.5), whole.head))


def begun(domain: ToyDomain, **settings: object) -> tuple[Learner, Batch]:
    torch.manual_seed(0)
    method = UncertaintyAwareMeanTeacher(**({"supervised_loss": CrossEntropy()} | settings))
    learner = Learner(method, domain)
    return learner, awkward(next(domain.batches(seed=0, first_step=0)))


def step(learner: Learner, batch: Batch, progress: float = 1.0) -> Outcome:
    torch.manual_seed(1)
    return learner(batch, progress)


def ramp(progress: float) -> float:
    return math.exp(-5 * (1 - progress) ** 2) if progress else 0.0


def certainty(looks: list[Seen], valid: np.ndarray) -> np.ndarray:
    """Entropy of the mean prediction, in nats."""
    mean = np.mean([softmax(look.made) for look in looks], axis=0)
    return np.where(valid, -(mean * np.log(mean)).sum(axis=1), np.inf)


@pytest.mark.parametrize("progress", [0.0, 0.5, 0.9, 1.0])
def test_the_loss_is_the_papers_with_k_for_its_two_classes_f10(
    domain: Seven, progress: float
) -> None:
    learner, batch = begun(domain)
    teacher, student = watched(learner.nets.teacher), watched(learner.nets.student)
    outcome = step(learner, batch, progress)

    first, *looks = teacher
    (call,) = student
    on_truth, on_weak = call.made[:LABELED], call.made[LABELED:]
    uncertain = certainty(looks, batch.unlabeled.valid.numpy())
    kept = uncertain < (0.75 + 0.25 * ramp(progress)) * math.log(CLASSES)
    squares = ((softmax(on_weak) - softmax(first.made)) ** 2).sum(axis=1)
    known = annotated(batch)
    expected = {
        "supervised": 0.5 * cross_entropy(on_truth, labels(batch), known * 1.0, known),
        "unlabeled": 0.1 * ramp(progress) * squares[kept].sum() / (CLASSES * kept.sum()),
    }
    assert values(outcome) == pytest.approx(expected, rel=1e-4)
    assert outcome.pseudo is not None
    np.testing.assert_array_equal(outcome.pseudo.weight.numpy() > 0, kept)


def test_for_two_classes_it_is_the_authors_code_to_the_letter() -> None:
    learner, batch = begun(ToyDomain(ToySettings(dims=3, side=8)))
    with torch.no_grad():
        for network in (learner.nets.student, learner.nets.teacher):
            network.head.weight.mul_(12)  # sure of some pixels, not of others
    teacher, student = watched(learner.nets.teacher), watched(learner.nets.student)
    outcome = step(learner, batch, 0.4)
    uncertain = certainty(teacher[1:], batch.unlabeled.valid.numpy())
    mask = uncertain < (0.75 + 0.25 * ramp(0.4)) * math.log(2)
    assert 0.05 < mask.mean() < 0.9
    squares = (softmax(student[0].made[LABELED:]) - softmax(teacher[0].made)) ** 2
    masked = (mask[:, None] * squares).sum() / (2 * mask.sum())
    assert values(outcome)["unlabeled"] == pytest.approx(0.1 * ramp(0.4) * masked, rel=1e-4)


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_the_bound_starts_at_three_quarters_of_ln_k_and_ends_by_keeping_ties(classes: int) -> None:
    ceiling = UncertaintyAwareMeanTeacher().filter
    share = torch.linspace(0, 1, 200)[:, None]
    probs = (1 - share) * torch.eye(classes)[0] + share / classes
    nats = -(probs * probs.clamp_min(1e-12).log()).sum(dim=1)
    grid = probs.T[None, :, :, None]
    early = ceiling(grid, 0.0)[0, :, 0].bool()
    assert torch.equal(early, nats <= 0.75 * math.log(classes))
    assert ceiling(grid, 1.0).all()


def test_the_teacher_takes_nine_noisy_looks_and_the_student_a_clean_one(domain: Seven) -> None:
    learner, batch = begun(domain)
    teacher, student = watched(learner.nets.teacher), watched(learner.nets.student)
    step(learner, batch)
    noise = torch.stack([look.given - batch.unlabeled.image for look in teacher])
    assert len(noise) == 1 + LOOKS
    assert noise.std() == pytest.approx(0.1, rel=0.1)
    assert noise.abs().max() <= 0.2 + 1e-5
    assert all(not torch.equal(a, b) for a, b in itertools.pairwise(noise))
    assert torch.equal(student[0].given, torch.cat([batch.labeled.image, batch.unlabeled.image]))


def test_the_target_is_one_look_and_not_the_mean_that_is_trusted(domain: Seven) -> None:
    learner, batch = begun(domain)
    teacher = watched(learner.nets.teacher)
    outcome = step(learner, batch)
    assert outcome.pseudo is not None
    np.testing.assert_allclose(outcome.pseudo.probs, softmax(teacher[0].made), atol=1e-5)


@pytest.mark.parametrize("world", [Seven, Dropping])
def test_without_noise_looks_differ_by_dropout_alone(world: type[Seven]) -> None:
    learner, batch = begun(world(ToySettings(side=8)), noise=0.0)
    teacher = watched(learner.nets.teacher)
    step(learner, batch)
    same = [torch.equal(look.made, teacher[0].made) for look in teacher[1:]]
    assert all(same) if world is Seven else not any(same)


def test_the_looks_leave_no_trace_in_the_teacher_f7(domain: Seven) -> None:
    learner, batch = begun(Dropping(domain.settings), filter=All())
    before = {name: each.clone() for name, each in learner.nets.teacher.state_dict().items()}
    outcome = step(learner, batch)
    outcome.losses["unlabeled"].backward()
    after = learner.nets.teacher.state_dict()
    assert all(torch.equal(each, after[name]) for name, each in before.items())
    assert not any(module.training for module in learner.nets.teacher.modules())
    assert all(p.grad is None for p in learner.nets.teacher.parameters())


def test_labeled_images_and_doubtful_or_absent_pixels_have_no_gradient_f13(domain: Seven) -> None:
    learner, batch = begun(domain)
    student = watched(learner.nets.student)
    outcome = step(learner, batch, 0.3)
    outcome.losses["unlabeled"].backward()
    assert outcome.pseudo is not None
    found = student[0].made.grad.abs().sum(dim=1)
    assert (found[:LABELED] == 0).all()
    kept = outcome.pseudo.weight > 0
    assert (found[LABELED:][~kept] == 0).all()
    assert (found[LABELED:][kept] > 0).any()
    assert not kept[~batch.unlabeled.valid].any()


def test_a_teacher_whose_dropout_slept_sleeps_again_also_after_a_failure() -> None:
    learner, batch = begun(Dropping(ToySettings(side=8)))
    narrow = batch._replace(
        unlabeled=batch.unlabeled._replace(image=batch.unlabeled.image.repeat(1, 2, 1, 1))
    )
    with pytest.raises(Exception, match="channels"):
        step(learner, narrow)
    assert not any(module.training for module in learner.nets.teacher.modules())


def test_it_works_on_a_network_in_one_piece() -> None:
    nets = UncertaintyAwareMeanTeacher().networks(lambda peer=0: nn.Conv2d(1, 2, 3))
    assert nets.predictor is nets.teacher
    assert not isinstance(nets.teacher, Net)
