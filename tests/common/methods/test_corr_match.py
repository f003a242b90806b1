"""CorrMatch: what is spread, what is mixed, what is detached, what a checkpoint carries."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from common.batch import Batch
from common.domain import Task
from common.filters import All, Confidence
from common.fit import Learner
from common.methods import CorrMatch, Outcome
from common.mixing import CutMix, NoMix
from tests.toy import Net, ToyDomain, ToySettings

CLASSES = 5


class FiveClasses(ToyDomain):
    def __init__(self, dims: int) -> None:
        super().__init__(ToySettings(dims=dims, side=8))
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


def step(learner: Learner, batch: Batch) -> Outcome:
    kit = learner.kit._replace(strong=lambda image: 0.5 * image)
    return learner.method.losses(learner.nets, batch, kit, 0.5)


def log_probs(logits: Tensor) -> np.ndarray:
    scores = logits.detach().double().numpy()
    return scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))


@pytest.mark.parametrize("mix", [NoMix(), CutMix()], ids=["plain", "mixed"])
def test_target_trust_and_input_of_the_divergence_are_mixed_alike_f9(
    domain: FiveClasses, mix: NoMix | CutMix
) -> None:
    learner = Learner(CorrMatch(filter=Confidence(threshold=0.25)), domain)
    batch = batch_of(domain)
    seen = []

    class Watched(type(mix)):
        def draw(self, image, pseudo, progress):
            seen.append(mix.draw(image, pseudo, progress))
            return seen[-1]

    learner.method = learner.method.model_copy(update={"mix": Watched()})
    outcome = step(learner, batch)
    network, (cut,), valid = learner.nets.student, seen, batch.unlabeled.valid
    weak = network(batch.unlabeled.image).detach()
    probs = weak.softmax(dim=1)
    trust = (probs.amax(dim=1) >= 0.25) * valid

    def mixed(maps: Tensor) -> np.ndarray:  # each pixel from where its image comes from
        return cut.image(maps.double()).numpy()

    strong = network(cut.image(0.5 * batch.unlabeled.image))
    belief, kept, there = mixed(probs), mixed(trust[:, None]), mixed(valid[:, None])
    per_pixel = (belief * (np.log(belief) - log_probs(strong))).sum(axis=1)
    expected = (per_pixel * kept[:, 0]).sum() / there.sum()
    assert outcome.losses["soft"].item() == pytest.approx(0.25 * expected / 2, rel=1e-3)
    assert kept.sum() < there.sum()


def gradients(learner: Learner, loss: Tensor) -> dict[str, float]:
    learner.zero_grad()
    loss.backward(retain_graph=True)
    found: dict[str, float] = {}
    for name, weights in learner.nets.student.named_parameters():
        part = name.split(".")[0]
        moved = 0.0 if weights.grad is None else float(weights.grad.abs().sum())
        found[part] = found.get(part, 0.0) + moved
    return found


def test_what_flows_teaches_the_correlation_and_never_the_head(domain: FiveClasses) -> None:
    learner = Learner(CorrMatch(filter=All()), domain)
    losses = step(learner, batch_of(domain)).losses
    for name in ("correlation", "supervised_correlation"):
        found = gradients(learner, losses[name])
        assert found["describe"] > 0
        assert found["encoder"] > 0
        assert found["head"] == 0
    for name in ("supervised", "hard", "soft", "feature"):
        found = gradients(learner, losses[name])
        assert found["describe"] == 0
        assert found["head"] > 0


def test_spreading_trusts_no_fewer_pixels_and_none_without_data(domain: FiveClasses) -> None:
    batch = batch_of(domain)
    sure = Confidence(threshold=0.3)
    learner = Learner(CorrMatch(filter=sure, agreement=0.0), domain)
    with torch.no_grad():
        probs = learner.nets.student(batch.unlabeled.image).softmax(dim=1)
    before = sure(probs) * batch.unlabeled.valid
    after = step(learner, batch).pseudo.weight
    assert (after >= before).all()
    assert not after[~batch.unlabeled.valid].any()


def test_with_full_agreement_nothing_is_spread(domain: FiveClasses) -> None:
    batch = batch_of(domain)
    learner = Learner(CorrMatch(filter=All(), agreement=1.0), domain)
    target = step(learner, batch).pseudo.target
    with torch.no_grad():
        expected = learner.nets.student(batch.unlabeled.image).argmax(dim=1)
    valid = batch.unlabeled.valid
    assert torch.equal(target[valid], expected[valid])


def test_the_bound_moves_once_a_step_and_travels_with_a_checkpoint(domain: FiveClasses) -> None:
    learner, batch = Learner(CorrMatch(), domain), batch_of(domain)
    with torch.no_grad():
        probs = learner.nets.student(batch.unlabeled.image).softmax(dim=1)
    confidence, label = probs.max(dim=1)
    valid = batch.unlabeled.valid
    surest = [confidence[valid & (label == each)].max() for each in label[valid].unique()]
    step(learner, batch)
    expected = 0.999 * 0.85 + 0.001 * float(torch.stack(surest).mean())
    assert float(learner.keep.bound) == pytest.approx(expected, abs=1e-6)
    other = Learner(CorrMatch(), domain)
    other.load_state_dict(learner.state_dict())
    assert torch.equal(other.keep.bound, learner.keep.bound)
