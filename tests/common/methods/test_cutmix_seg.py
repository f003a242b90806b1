"""CutMix-Seg and ClassMix: configurations of other methods, weighted by a confident share."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from common.batch import Batch
from common.filters import ConfidentShare
from common.fit import Learner
from common.methods import FixMatch, MeanTeacher, Method
from common.mixing import ClassMix, CutMix
from tests.common.methods.watch import (
    CLASSES,
    Seven,
    awkward,
    cross_entropy,
    cuts_of,
    moved,
    softmax,
    values,
    watched,
)

LABELED = 2


def begun(domain: Seven, method: Method) -> tuple[Learner, Batch]:
    torch.manual_seed(0)
    learner = Learner(method, domain)
    batch = awkward(next(domain.batches(seed=0, first_step=0)))
    torch.manual_seed(1)
    return learner, batch


def confident(probs: np.ndarray, valid: np.ndarray, threshold: float) -> float:
    share: float = (probs.max(axis=1) >= threshold)[valid].mean()
    assert 0.05 < share < 0.95
    return share


def test_cutmix_seg_scales_all_squares_by_the_share_of_confident_pixels(
    domain: Seven, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = MeanTeacher(
        filter=ConfidentShare(threshold=0.4),
        unlabeled_weight=CLASSES,
        mix=CutMix(share_low=0.5, share_high=0.5),
    )
    learner, batch = begun(domain, method)
    teacher, student = watched(learner.nets.teacher), watched(learner.nets.student)
    (cuts, outcome) = cuts_of(monkeypatch), learner(batch, 1.0)

    target, valid = softmax(teacher[0].made), batch.unlabeled.valid.numpy()
    mixed = np.stack([moved(cuts[0], target[:, k]) for k in range(CLASSES)], axis=1)
    squares = ((softmax(student[0].made[LABELED:]) - mixed) ** 2).sum(axis=1)
    seen = moved(cuts[0], valid)
    expected = confident(target, valid, 0.4) * squares[seen].sum() / seen.sum()
    assert values(outcome)["unlabeled"] == pytest.approx(expected, rel=1e-4)


def test_classmix_scales_the_cross_entropy_of_all_pixels_by_the_same_share(
    domain: Seven, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = FixMatch(teacher_decay=0.99, filter=ConfidentShare(threshold=0.4), mix=ClassMix())
    learner, batch = begun(domain, method)
    teacher, student = watched(learner.nets.teacher), watched(learner.nets.student)
    cuts, outcome = cuts_of(monkeypatch, ClassMix), learner(batch, 1.0)

    target, valid = softmax(teacher[0].made), batch.unlabeled.valid.numpy()
    seen = moved(cuts[0], valid)
    weight = np.full(valid.shape, confident(target, valid, 0.4))
    label = moved(cuts[0], target.argmax(axis=1))
    expected = cross_entropy(student[0].made[LABELED:], label, weight * seen, seen)
    assert values(outcome)["unlabeled"] == pytest.approx(expected, rel=1e-4)


def test_a_mean_teacher_that_trusts_all_is_as_ever(domain: Seven) -> None:
    learner, batch = begun(domain, MeanTeacher(unlabeled_weight=1.0))
    teacher, student = watched(learner.nets.teacher), watched(learner.nets.student)
    outcome = learner(batch, 1.0)
    squares = (softmax(student[0].made[LABELED:]) - softmax(teacher[0].made)) ** 2
    expected = squares.mean(axis=1)[batch.unlabeled.valid.numpy()].mean()
    assert values(outcome)["unlabeled"] == pytest.approx(expected, rel=1e-4)
