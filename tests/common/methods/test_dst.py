"""Debiased self-training: who may teach whom, and what the worst case costs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from common.batch import IGNORE, Batch
from common.consistency import complementary
from common.filters import All
from common.fit import Learner
from common.methods import DebiasedSelfTraining, Outcome
from common.perturb import gradient_reversed
from tests.toy import Net, ToyDomain, ToySettings


@pytest.fixture(params=[2, 3], ids=["tiles", "volumes"])
def domain(request: pytest.FixtureRequest) -> ToyDomain:
    return ToyDomain(ToySettings(dims=request.param, side=12))


def step(domain: ToyDomain, progress: float = 1.0, **settings: object) -> tuple[Learner, Outcome]:
    torch.manual_seed(0)
    learner = Learner(DebiasedSelfTraining(filter=All(), width=8, **settings), domain)
    return learner, learner(next(domain.batches(seed=0, first_step=0)), progress)


def gradients(learner: Learner, loss: Tensor, part: str) -> list[Tensor]:
    """What ``loss`` does to the weights whose name holds ``part``; only those it reaches."""
    named = [p for name, p in learner.nets.named_parameters() if name.startswith(part)]
    assert named
    found = torch.autograd.grad(loss, named, retain_graph=True, allow_unused=True)
    return [each for each in found if each is not None]


def silent(found: list[Tensor]) -> bool:
    return all((each == 0).all() for each in found)


def test_without_reversal_the_worst_head_gives_the_features_no_gradient(domain: ToyDomain) -> None:
    for reversal, quiet in ((0.0, True), (0.1, False)):
        learner, outcome = step(domain, reversal=reversal)
        for name in ("supervised_worst_case", "worst_case"):
            for part in ("student.encoder", "student.decoder"):
                assert silent(gradients(learner, outcome.losses[name], part)) is quiet, name
            assert not silent(gradients(learner, outcome.losses[name], "others.1"))


def test_the_main_head_learns_from_labeled_pixels_alone(domain: ToyDomain) -> None:
    learner, outcome = step(domain)
    for name, loss in outcome.losses.items():
        reached = gradients(learner, loss, "student.head")
        assert silent(reached) is (name != "supervised"), name


def test_the_pseudo_label_teaches_features_and_pseudo_head(domain: ToyDomain) -> None:
    learner, outcome = step(domain)
    for part in ("student.encoder", "student.decoder", "others.0"):
        assert not silent(gradients(learner, outcome.losses["unlabeled"], part)), part
    assert silent(gradients(learner, outcome.losses["unlabeled"], "others.1"))


def test_features_and_worst_head_pull_in_opposite_directions(domain: ToyDomain) -> None:
    found = {}
    for reversal in (0.1, 0.2):
        learner, outcome = step(domain, reversal=reversal)
        loss = outcome.losses["worst_case"]
        features = gradients(learner, loss, "student.encoder")
        found[reversal] = features, gradients(learner, loss, "others.1")
    for half, whole in zip(found[0.1][0], found[0.2][0], strict=True):
        torch.testing.assert_close(2 * half, whole)
    for one, other in zip(found[0.1][1], found[0.2][1], strict=True):
        torch.testing.assert_close(one, other)


def test_the_reversal_warms_up_from_nothing(domain: ToyDomain) -> None:
    learner, outcome = step(domain, progress=0.0)
    assert silent(gradients(learner, outcome.losses["worst_case"], "student"))


def test_a_reversed_gradient_is_minus_the_coefficient_times_itself() -> None:
    x = torch.randn(3, 4, requires_grad=True)
    y = gradient_reversed(x, 0.3)
    assert torch.equal(x, y)
    (y * torch.arange(4.0)).sum().backward()
    torch.testing.assert_close(x.grad, -0.3 * torch.arange(4.0).expand(3, 4))


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_the_worst_case_is_what_the_formula_says(classes: int) -> None:
    rng = np.random.default_rng(classes)
    logits = 3 * rng.standard_normal((2, classes, 4, 5))
    target = rng.integers(0, classes, (2, 4, 5))
    target[0, 0] = IGNORE
    weight = rng.random((2, 4, 5))
    total = kept = 0.0
    for b, y, x in np.ndindex(2, 4, 5):
        if target[b, y, x] == IGNORE:
            continue
        p = np.exp(logits[b, :, y, x]) / np.exp(logits[b, :, y, x]).sum()
        total -= weight[b, y, x] * np.log(1 - p[target[b, y, x]])
        kept += weight[b, y, x]
    found = complementary(*(torch.from_numpy(each) for each in (logits, target, weight)))
    assert float(found) == pytest.approx(total / kept, rel=1e-5)


def test_a_certain_head_makes_a_finite_worst_case() -> None:
    logits = torch.tensor([80.0, -80.0, 0.0]).view(1, 3, 1, 1).requires_grad_()
    loss = complementary(logits, torch.zeros(1, 1, 1, dtype=torch.long), torch.ones(1, 1, 1))
    loss.backward()
    assert loss.item() == pytest.approx(80.0)
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_nobody_annotated_means_no_agreement_is_asked_for(domain: ToyDomain) -> None:
    batch = next(domain.batches(seed=0, first_step=0))
    target = torch.full_like(batch.labeled.target, IGNORE)
    batch = Batch(batch.labeled._replace(target=target), batch.unlabeled)
    outcome = Learner(DebiasedSelfTraining(width=8), domain)(batch, 1.0)
    assert outcome.losses["supervised_worst_case"] == 0


def test_only_the_main_head_is_shipped() -> None:
    nets = DebiasedSelfTraining().networks(lambda peer=0: Net(2, 1, 3))
    assert nets.predictor is nets.student
    shipped = {*nets.predictor.state_dict()}
    assert shipped == {*Net(2, 1, 3).state_dict()}
