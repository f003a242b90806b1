"""URPC: scales that agree with their mean."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.fit import Learner
from common.methods import URPC
from common.methods.urpc import rectified
from common.parts import coarser, on_grid
from tests.toy import Net, ToyDomain, ToySettings


@pytest.fixture(params=[2, 3], ids=["tiles", "volumes"])
def domain(request: pytest.FixtureRequest) -> ToyDomain:
    return ToyDomain(ToySettings(dims=request.param, side=8))


def naive(p: np.ndarray, mean: np.ndarray, valid: np.ndarray) -> float:
    """Pixel after pixel, with every logarithm written out."""
    squares = trust = divergence = 0.0
    pixels = [at for at in np.ndindex(valid.shape) if valid[at]]
    for sample, *at in pixels:
        own, all_ = p[(sample, slice(None), *at)], mean[(sample, slice(None), *at)]
        kl = sum(a * np.log(a / b) for a, b in zip(own, all_, strict=True))
        squares += np.mean((own - all_) ** 2) * np.exp(-kl)
        trust += np.exp(-kl)
        divergence += kl
    return squares / trust + divergence / len(pixels)


@given(seed=st.integers(0, 1000), classes=st.integers(2, 6), scales=st.integers(2, 4))
@settings(max_examples=25, deadline=None)
def test_a_scale_costs_what_the_formula_says(seed: int, classes: int, scales: int) -> None:
    rng = np.random.default_rng(seed)
    logits = 3 * rng.standard_normal((scales, 2, classes, 3, 4))
    valid = rng.random((2, 3, 4)) < 0.7
    valid[0, 0, 0] = True
    probs = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    mean = probs.mean(axis=0)
    for own, p in zip(logits, probs, strict=True):
        found = rectified(torch.from_numpy(own), torch.from_numpy(mean), torch.from_numpy(valid))
        assert float(found) == pytest.approx(naive(p, mean, valid), rel=1e-6)


def test_identical_heads_have_weight_1_and_cost_nothing() -> None:
    logits = torch.randn(2, 5, 4, 4)
    probs, everywhere = logits.softmax(dim=1), torch.ones(2, 4, 4, dtype=torch.bool)
    assert rectified(logits, probs, everywhere) == pytest.approx(0, abs=1e-6)
    divergence = (probs * (probs.log() - probs.log())).sum(dim=1)
    assert ((-divergence).exp() == 1).all()


def test_heads_that_all_say_the_same_everywhere_are_left_alone(domain: ToyDomain) -> None:
    learner = Learner(URPC(), domain)
    for head in (learner.nets.student.head, *learner.nets.others):
        for weights in head.parameters():
            torch.nn.init.zeros_(weights)  # a tie at every pixel and every scale
    outcome = learner(next(domain.batches(seed=0, first_step=0)), 1.0)
    outcome.losses["unlabeled"].backward()
    assert outcome.losses["unlabeled"].item() == pytest.approx(0, abs=1e-6)
    assert all(p.grad.abs().max() < 1e-6 for p in learner.nets.student.encoder.parameters())


def test_the_loss_is_the_mean_over_the_scales_of_a_pyramid(domain: ToyDomain) -> None:
    learner = Learner(URPC(), domain)
    batch = next(domain.batches(seed=0, first_step=0))
    valid = torch.rand(batch.unlabeled.valid.shape) < 0.7
    batch = batch._replace(unlabeled=batch.unlabeled._replace(valid=valid))
    found = learner(batch, 1.0).losses["unlabeled"].item()

    nets, both = learner.nets, torch.cat([batch.labeled.image, batch.unlabeled.image])
    pixels = nets.student.decoder(nets.student.encoder(both))
    scales = [nets.student.head(pixels)]
    for head, factor in zip(nets.others, (2, 4, 8), strict=True):
        pooled = pixels
        for axis in range(2, pixels.ndim):
            pooled = pooled.unflatten(axis, (-1, factor)).mean(dim=axis + 1)
        torch.testing.assert_close(pooled, coarser(pixels, factor))
        scales.append(on_grid(head(pooled), both))
    probs = torch.stack(scales)[:, 2:].detach().double().softmax(dim=2).numpy()
    expected = np.mean([naive(p, probs.mean(axis=0), valid.numpy()) for p in probs])
    assert found == pytest.approx(0.2 * expected, rel=1e-4)


def test_the_mean_and_the_weights_are_not_detached() -> None:
    logits = torch.randn(2, 3, 4, 4, dtype=torch.double, requires_grad=True)
    other = torch.randn(2, 3, 4, 4, dtype=torch.double, requires_grad=True)
    valid = torch.rand(2, 4, 4) < 0.7

    def loss(logits: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        mean = (logits.softmax(dim=1) + other.softmax(dim=1)) / 2
        return rectified(logits, mean, valid)

    assert torch.autograd.gradcheck(loss, (logits, other))
    loss(logits, other).backward()
    assert other.grad.abs().sum() > 0
    assert (other.grad * ~valid.unsqueeze(1) == 0).all()


def test_sides_that_do_not_halve_are_rounded_up() -> None:
    assert coarser(torch.randn(1, 2, 5, 9), 4).shape == (1, 2, 2, 3)
    assert coarser(torch.randn(1, 2, 3, 3, 3), 8).shape == (1, 2, 1, 1, 1)


def test_only_the_finest_scale_is_shipped() -> None:
    nets = URPC().networks(lambda peer=0: Net(2, 1, 3))
    assert nets.predictor is nets.student
    assert len(nets.others) == 3
