"""Decoupled and weighted learning: who learns what, and when the heads are blended."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from common.filters import All
from common.fit import Learner
from common.methods import DecoupledWeighted
from common.schedules import value_at
from tests.toy import Net, ToyDomain, ToySettings


@pytest.fixture(params=[2, 3], ids=["tiles", "volumes"])
def domain(request: pytest.FixtureRequest) -> ToyDomain:
    return ToyDomain(ToySettings(dims=request.param, side=12))


def test_the_pseudo_label_reaches_features_and_pseudo_head_but_never_the_main_head(
    domain: ToyDomain,
) -> None:
    learner = Learner(DecoupledWeighted(filter=All()), domain)
    outcome = learner(next(domain.batches(seed=0, first_step=0)), 1.0)
    outcome.losses["unlabeled"].backward()
    for name, weights in learner.nets.named_parameters():
        reached = weights.grad is not None and bool((weights.grad != 0).any())
        assert reached is not name.startswith("student.head"), name


def test_labeled_pixels_never_reach_the_pseudo_head(domain: ToyDomain) -> None:
    learner = Learner(DecoupledWeighted(), domain)
    outcome = learner(next(domain.batches(seed=0, first_step=0)), 1.0)
    outcome.losses["supervised"].backward()
    assert all(weights.grad is None for weights in learner.nets.others.parameters())
    assert learner.nets.student.head.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_heads_are_blended_at_the_period_and_at_no_other_step(share: float) -> None:
    method = DecoupledWeighted(blend_share=share, blend_every=3)
    nets = method.networks(lambda peer=0: Net(2, 1, 3))
    before = copy.deepcopy(nets.state_dict())
    for step in (0, 1):
        nets.after_step(step)
        assert all(torch.equal(value, before[name]) for name, value in nets.state_dict().items())
    nets.after_step(2)
    main, pseudo = before["student.head.weight"], before["others.0.weight"]
    assert not torch.equal(main, pseudo)
    torch.testing.assert_close(nets.student.head.weight.data, share * pseudo + (1 - share) * main)
    for name, value in nets.state_dict().items():
        assert name.startswith("student.head") or torch.equal(value, before[name]), name


def test_the_unlabeled_loss_is_cross_entropy_times_rank_by_hand() -> None:
    domain = ToyDomain(ToySettings(side=8))
    batch = next(domain.batches(seed=0, first_step=0))
    torch.manual_seed(0)
    learner = Learner(DecoupledWeighted(), domain)
    kit = learner.kit._replace(strong=lambda image: -image)
    outcome = learner.method.losses(learner.nets, batch, kit, 0.5)

    nets, image = learner.nets, batch.unlabeled.image
    pixels = nets.student.decoder(nets.student.encoder(image))
    sure, label = nets.student.head(pixels).detach().softmax(dim=1).max(dim=1)
    hard = nets.student.decoder(nets.student.encoder(-image))
    costs = F.cross_entropy(nets.others[0](hard), label, reduction="none")
    total = 0.0
    for at in np.ndindex(tuple(label.shape)):
        peers = np.sort(sure[label == label[at]].detach().numpy())
        places = np.linspace(0, len(peers) - 1, 21).round().astype(int)[1:]
        r = (float(sure[at]) > peers[places]).mean()
        total += (2 / (1 + np.exp(-22 * r)) - 1) * float(costs[at].detach())
    assert float(outcome.losses["unlabeled"].detach()) == pytest.approx(
        total / label.numel(), rel=1e-3
    )


def test_the_memory_of_ranks_travels_with_checkpoints(domain: ToyDomain) -> None:
    learner = Learner(DecoupledWeighted(), domain)
    learner(next(domain.batches(seed=0, first_step=0)), 1.0)
    state = learner.state_dict()
    assert int(state["keep.turn"]) == 1
    assert state["keep.confidence"].count_nonzero() == 1024


def test_nothing_unlabeled_is_taught_until_the_memory_is_full() -> None:
    weight = DecoupledWeighted().unlabeled_weight
    assert [value_at(weight, progress) for progress in (0.0, 0.049, 0.05, 1.0)] == [0, 0, 1, 1]


def test_only_the_main_head_is_shipped() -> None:
    nets = DecoupledWeighted().networks(lambda peer=0: Net(2, 1, 3))
    assert nets.predictor is nets.student
    assert {*nets.predictor.state_dict()} == {*Net(2, 1, 3).state_dict()}
