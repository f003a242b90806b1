"""U2PL: what is dropped, by what the lesson is divided, who teaches whom."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from common.batch import Batch
from common.contrast import Remembering
from common.domain import Task
from common.filters import All
from common.fit import Learner
from common.methods import U2PL, Outcome
from common.mixing import NoMix
from tests.toy import Net, ToyDomain, ToySettings

CLASSES = 5


class FiveClasses(ToyDomain):
    def __init__(self, dims: int) -> None:
        super().__init__(ToySettings(dims=dims, side=12 if dims == 2 else 8))
        self.task = Task(1, tuple("abcde"), ((0, 0, 0),) * CLASSES)

    def new_network(self, peer: int = 0) -> nn.Module:
        return Net(self.settings.dims, 1, CLASSES, norm="group")


@pytest.fixture(params=[2, 3], ids=["tiles", "volumes"])
def domain(request: pytest.FixtureRequest) -> FiveClasses:
    return FiveClasses(request.param)


def batch_of(domain: ToyDomain) -> Batch:
    """A batch of which the unlabeled part has a corner without data."""
    batch = next(domain.batches(seed=0, first_step=0))
    valid = batch.unlabeled.valid.clone()
    valid[:, :3] = False
    return batch._replace(unlabeled=batch.unlabeled._replace(valid=valid))


def step(learner: Learner, batch: Batch, progress: float) -> Outcome:
    keep = lambda probs: learner.keep(probs, progress)  # noqa: E731
    kit = learner.kit._replace(keep=keep, strong=lambda image: 0.5 * image)
    return learner.method.losses(learner.nets, batch, kit, progress)


@pytest.mark.parametrize("progress", [0.1, 0.5, 0.9, 1.0])
def test_the_fraction_dropped_is_a_t(domain: FiveClasses, progress: float) -> None:
    batch = batch_of(domain)
    weight = step(Learner(U2PL(), domain), batch, progress).pseudo.weight
    valid = batch.unlabeled.valid
    dropped = 1 - float(weight[valid].mean())
    assert dropped == pytest.approx(0.2 * (1 - progress), abs=2 / int(valid.sum()))
    assert not weight[~valid].any()


@pytest.mark.parametrize("progress", [0.1, 0.7])
def test_the_lesson_is_the_mean_over_kept_pixels_times_valid_over_kept(
    domain: FiveClasses, progress: float
) -> None:
    learner, batch = Learner(U2PL(mix=NoMix()), domain), batch_of(domain)
    outcome = step(learner, batch, progress)
    logits = learner.nets.student(0.5 * batch.unlabeled.image).double().detach().numpy()
    log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    target, weight = (part.numpy() for part in outcome.pseudo)
    missed = [
        -log_probs[(sample, target[(sample, *at)], *at)]
        for sample, *at in np.ndindex(*target.shape)
        if weight[(sample, *at)]
    ]
    expected = np.mean(missed) * int(batch.unlabeled.valid.sum()) / len(missed)
    assert outcome.losses["unlabeled"].item() == pytest.approx(expected, rel=1e-4)


def test_more_pixels_without_data_change_nothing() -> None:
    domain = FiveClasses(2)
    learner, batch = Learner(U2PL(mix=NoMix()), domain), batch_of(domain)
    narrow = step(learner, batch, 0.3).losses["unlabeled"].item()
    image, valid, possible = batch.unlabeled
    wide = batch._replace(
        unlabeled=batch.unlabeled._replace(
            image=torch.cat([image, image]),
            valid=torch.cat([valid, torch.zeros_like(valid)]),
            possible=torch.cat([possible, possible]),
        )
    )
    assert step(learner, wide, 0.3).losses["unlabeled"].item() == pytest.approx(narrow)


def gradients(learner: Learner, loss: Tensor) -> dict[str, float]:
    learner.zero_grad()
    loss.backward(retain_graph=True)
    return {
        name: 0.0 if weights.grad is None else float(weights.grad.abs().sum())
        for name, weights in learner.nets.named_parameters()
    }


def test_contrast_moves_features_and_projection_of_the_student_alone(domain: FiveClasses) -> None:
    learner = Learner(U2PL(anchor_threshold=0), domain)
    learner.nets.memory.remember(torch.randn(9, 64), torch.ones(CLASSES, 9, dtype=torch.bool))
    losses = step(learner, batch_of(domain), 0.5).losses
    for name in ("contrast", "supervised_contrast"):
        found = gradients(learner, losses[name])
        moved = {each.split(".")[1] for each, value in found.items() if value > 0}
        assert moved == {"encoder", "decoder", "projection"}, name
        assert not any(value for each, value in found.items() if each.startswith("teacher"))
    found = gradients(learner, losses["unlabeled"])
    assert not any(value for each, value in found.items() if "projection" in each)


def test_only_labels_teach_in_the_first_share_of_the_training(domain: FiveClasses) -> None:
    losses = step(Learner(U2PL(), domain), batch_of(domain), 0.01).losses
    assert {name for name, value in losses.items() if value != 0} == {"supervised"}


def test_what_is_remembered_travels_with_a_checkpoint_and_has_no_gradient(
    domain: FiveClasses,
) -> None:
    learner = Learner(U2PL(), domain)
    for progress in (0.1, 0.2):
        sum(step(learner, batch_of(domain), progress).losses.values()).backward()
    memory = learner.nets.memory
    assert int(memory.seen.sum()) > 0
    assert not memory.held.requires_grad
    other = Learner(U2PL(), domain)
    other.load_state_dict(learner.state_dict())
    assert torch.equal(other.nets.memory.held, memory.held)
    assert torch.equal(other.nets.memory.seen, memory.seen)


def test_a_pixel_that_is_dropped_teaches_no_class_but_what_it_is_not() -> None:
    domain = FiveClasses(2)
    batch = batch_of(domain)
    blank = torch.full_like(batch.labeled.target, 255)  # nobody annotated anything
    batch = batch._replace(labeled=batch.labeled._replace(target=blank))
    kept, some = (Learner(method, domain) for method in (U2PL(filter=All()), U2PL()))
    for learner in (kept, some):
        step(learner, batch, 0.1)
    assert not kept.nets.memory.seen.any()
    assert some.nets.memory.seen.any()


def test_the_teacher_predicts(domain: FiveClasses) -> None:
    nets = Learner(U2PL(), domain).nets
    assert isinstance(nets, Remembering)
    assert nets.predictor is nets.teacher
