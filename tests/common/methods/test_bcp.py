"""BCP: its loss is the paper's, on both sides of the box."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from common.batch import IGNORE, Batch, Pseudo
from common.components import largest_components
from common.filters import Confidence
from common.fit import Learner
from common.losses import CrossEntropy
from common.methods import BCP, Outcome
from common.methods import bcp as module
from tests.common.methods.watch import CLASSES, Seven, awkward, softmax, values, watched

LABELED, UNLABELED = 2, 4


def begun(domain: Seven, **settings: object) -> tuple[Learner, Batch]:
    torch.manual_seed(0)
    learner = Learner(BCP(**settings), domain)
    return learner, awkward(next(domain.batches(seed=0, first_step=0)))


def step(learner: Learner, batch: Batch, progress: float = 1.0) -> Outcome:
    torch.manual_seed(1)
    return learner(batch, progress)


@pytest.fixture
def boxes(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The boxes that are drawn from now on."""
    drawn: list[Tensor] = []
    draw = module.box

    def remember(*args: Any) -> Tensor:
        drawn.append(draw(*args))
        return drawn[-1]

    monkeypatch.setattr(module, "box", remember)
    return drawn


def cross_entropy_and_dice(probs: np.ndarray, label: np.ndarray) -> float:
    """Both, over the pixels that are not IGNORE."""
    flat, known = np.moveaxis(probs, 1, -1).reshape(-1, CLASSES), label.ravel() != IGNORE
    p, truth = flat[known], np.eye(CLASSES)[label.ravel()[known]]
    entropy = -np.log((p * truth).sum(axis=1)).mean()
    present = truth.sum(axis=0) > 0
    overlap = 2 * (p * truth).sum(axis=0) / (p.sum(axis=0) + truth.sum(axis=0))
    return float(entropy + (1 - overlap[present]).mean())


def test_the_loss_is_the_papers(domain: Seven, boxes: list[Tensor]) -> None:
    learner, batch = begun(domain)
    teacher, student = watched(learner.nets.teacher.head), watched(learner.nets.student.head)
    outcome = step(learner, batch)

    valid = batch.unlabeled.valid
    guess = torch.where(valid, teacher[0].made.argmax(dim=1), IGNORE)
    guess = largest_components(guess).numpy()
    assert (guess != torch.where(valid, teacher[0].made.argmax(dim=1), IGNORE).numpy()).any()
    (inside,), target = (each.numpy() for each in boxes), batch.labeled.target.numpy()
    true = guessed = 0.0
    for turn, where in enumerate((inside, ~inside)):
        probs = softmax(student[0].made[turn * UNLABELED : (turn + 1) * UNLABELED])
        known, other = np.full_like(guess, IGNORE), np.full_like(guess, IGNORE)
        for pair in range(UNLABELED):
            mine = target[(pair + turn) % LABELED]
            known[pair][where[pair]] = mine[where[pair]]
            other[pair][~where[pair]] = guess[pair][~where[pair]]
        true += cross_entropy_and_dice(probs, known) / 2
        guessed += 0.5 * cross_entropy_and_dice(probs, other) / 2
    expected = {"supervised": true, "unlabeled": guessed}
    assert values(outcome) == pytest.approx(expected, rel=1e-4)


class Spy(CrossEntropy):
    """Remembers how much each pixel counted, and where."""

    seen: list[Any] = []

    def __call__(self, logits: Tensor, label: Pseudo, importance: None = None) -> Tensor:
        self.seen.append(label.weight * (label.target != IGNORE))
        return super().__call__(logits, label)


def test_the_regions_are_complementary_and_weigh_1_inside_and_a_half_outside(
    domain: Seven, boxes: list[Tensor]
) -> None:
    truth, guess = Spy(seen=[]), Spy(seen=[])
    learner, _ = begun(domain)
    batch = next(domain.batches(seed=0, first_step=0))  # all annotated, all valid
    method = learner.method.model_copy(
        update={"supervised_loss": truth, "unlabeled_loss": guess, "component": "none"}
    )
    torch.manual_seed(1)
    method.losses(learner.nets, batch, learner.kit, 1.0)
    (inside,) = boxes
    for labeled, true, guessed in zip((inside, ~inside), truth.seen, guess.seen, strict=True):
        assert torch.equal(true.bool(), labeled)
        assert torch.equal(guessed.bool(), ~labeled)
        total = float((true + method.unlabeled_weight * guessed).sum())
        assert total == float(labeled.sum()) + 0.5 * float((~labeled).sum())


def test_what_is_seen_is_half_of_each(domain: Seven, boxes: list[Tensor]) -> None:
    learner, batch = begun(domain)
    encoder = watched(learner.nets.student.encoder)
    step(learner, batch)
    (call,), (inside,) = encoder, boxes
    first, second = call.given[:UNLABELED, 0], call.given[UNLABELED:, 0]
    labeled, unlabeled = batch.labeled.image[:, 0], batch.unlabeled.image[:, 0]
    pair = torch.arange(UNLABELED)
    assert torch.equal(first, torch.where(inside, labeled[pair % LABELED], unlabeled))
    assert torch.equal(second, torch.where(inside, unlabeled, labeled[(pair + 1) % LABELED]))


def test_pre_training_sees_labeled_images_alone(domain: Seven, boxes: list[Tensor]) -> None:
    learner, batch = begun(domain, pretrain=0.3)
    heads, teacher = watched(learner.nets.student.head), watched(learner.nets.teacher)
    outcome = step(learner, batch, 0.29)
    target, (inside,) = batch.labeled.target, boxes
    mixed = torch.where(inside, target, target.roll(1, dims=0)).numpy()
    expected = {"supervised": cross_entropy_and_dice(softmax(heads[0].made), mixed)}
    assert values(outcome) == pytest.approx(expected, rel=1e-4)
    assert outcome.pseudo is None
    assert teacher == []
    assert set(step(learner, batch, 0.3).losses) == {"supervised", "unlabeled"}


def test_one_way_only_pastes_labeled_boxes_into_unlabeled_images(
    domain: Seven, boxes: list[Tensor]
) -> None:
    learner, batch = begun(
        domain, pretrain=0.0, directions=("labeled_into_unlabeled",), refiners=()
    )
    encoder = watched(learner.nets.student.encoder)
    step(learner, batch, 0.0)
    (call,), (inside,) = encoder, boxes
    labeled = batch.labeled.image[torch.arange(UNLABELED) % LABELED]
    expected = torch.where(inside[:, None], labeled, batch.unlabeled.image)
    assert torch.equal(call.given, expected)


def test_gradients_of_each_term_stay_on_its_side_of_the_box(
    domain: Seven, boxes: list[Tensor]
) -> None:
    learner, batch = begun(domain, supervised_loss=CrossEntropy(), unlabeled_loss=CrossEntropy())
    heads = watched(learner.nets.student.head)
    losses = step(learner, batch).losses
    (call,), (inside,) = heads, boxes
    labeled = torch.cat([inside, ~inside])
    for name, outside in (("supervised", ~labeled), ("unlabeled", labeled)):
        call.made.grad = None
        losses[name].backward(retain_graph=True)
        size = call.made.grad.abs().sum(dim=1)
        assert (size[outside] == 0).all()
        assert (size > 0).any()
    void = (~batch.unlabeled.valid).repeat(2, *[1] * inside[0].ndim) & ~labeled
    assert (size[void] == 0).all()
    assert all(p.grad is None for p in learner.nets.teacher.parameters())


def test_a_filter_drops_what_the_teacher_is_not_sure_of(domain: Seven) -> None:
    learner, batch = begun(domain, filter=Confidence(threshold=0.4))
    heads = watched(learner.nets.teacher.head)
    pseudo = step(learner, batch).pseudo
    sure = (softmax(heads[0].made).max(axis=1) >= 0.4) & batch.unlabeled.valid.numpy()
    assert 0.05 < sure.mean() < 0.95
    assert (pseudo.weight.bool().numpy() == sure).all()


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_box_of_nothing_or_of_everything_is_refused(share: float) -> None:
    with pytest.raises(ValidationError, match="box_side"):
        BCP(box_side=share)


def test_no_direction_at_all_is_refused() -> None:
    with pytest.raises(ValidationError, match="directions"):
        BCP(directions=())
