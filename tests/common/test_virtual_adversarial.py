"""Virtual adversarial steps: as long as asked for, uphill, and without a trace in the weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from common.parts import Features
from common.perturb import virtual_adversarial
from tests.toy import Net

dimensions = pytest.mark.parametrize("dims", [2, 3], ids=["tiles", "volumes"])


def begun(dims: int, classes: int = 5) -> tuple[Net, Features]:
    torch.manual_seed(0)
    net = Net(dims, 1, classes).eval()
    with torch.no_grad():
        net.head.weight.mul_(4)
    return net, net.encoder(torch.randn(3, 1, *[6] * dims))


def divergence(net: Net, start: Features, moved: Features) -> Tensor:
    """``KL(p(start) || p(moved))`` of each sample."""
    p, q = (net.head(net.decoder(each)).softmax(dim=1) for each in (start, moved))
    return (p * (p / q).log()).flatten(1).sum(dim=1)


def decided(net: Net, features: Features) -> Tensor:
    return net.head(net.decoder(features))


@dimensions
@given(share=st.floats(0.001, 1.0), rounds=st.integers(0, 2))
@settings(max_examples=10, deadline=None)
def test_each_map_of_each_sample_moves_by_its_share(dims: int, share: float, rounds: int) -> None:
    net, features = begun(dims)
    moved = virtual_adversarial(features, lambda f: decided(net, f), share=share, rounds=rounds)
    for before, after in zip(features, moved, strict=True):
        for sample in range(3):
            length = np.linalg.norm(before[sample].detach().double().numpy().ravel())
            step = (after - before)[sample].detach().double().numpy().ravel()
            assert np.linalg.norm(step) == pytest.approx(share * length, rel=1e-2)


@dimensions
def test_it_changes_the_prediction_more_than_random_steps_and_more_with_more_rounds(
    dims: int,
) -> None:
    net, features = begun(dims)
    changes = []
    for rounds in (0, 1, 4):  # none: a random step
        trials = []
        for seed in range(5):
            torch.manual_seed(seed)
            moved = virtual_adversarial(
                features, lambda f: decided(net, f), share=0.02, rounds=rounds
            )
            trials.append(divergence(net, features, moved))
        changes.append(torch.stack(trials).mean(dim=0))
    assert (changes[1] > 3 * changes[0]).all()
    assert changes[2].mean() >= changes[1].mean()


def test_for_a_linear_judge_of_two_classes_the_step_is_known() -> None:
    torch.manual_seed(0)
    weight = torch.randn(4)

    def judge(features: Features) -> Tensor:
        score = torch.einsum("bfxy,f->bxy", features[0], weight)
        return torch.stack([score, -score], dim=1)

    start = (torch.randn(2, 4, 1, 1),)
    (moved,) = virtual_adversarial(start, judge, share=0.01, rounds=1)
    direction = (moved - start[0]).flatten(1)
    cosine = torch.nn.functional.cosine_similarity(direction, weight[None])
    torch.testing.assert_close(cosine.abs(), torch.ones(2), atol=1e-3, rtol=0)


@dimensions
def test_no_gradient_stays_in_the_judge_and_none_flows_through_the_step(dims: int) -> None:
    net, features = begun(dims)
    leaves = tuple(each.detach().requires_grad_() for each in features)
    moved = virtual_adversarial(leaves, lambda f: decided(net, f), share=0.1)
    assert all(p.grad is None for p in net.parameters())
    weights = [torch.randn_like(each) for each in moved]
    sum((m * w).sum() for m, w in zip(moved, weights, strict=True)).backward()
    for leaf, weight in zip(leaves, weights, strict=True):
        torch.testing.assert_close(leaf.grad, weight)  # as if the step were a constant
    assert all(p.grad is None for p in net.parameters())


def test_it_searches_under_no_grad_too() -> None:
    net, features = begun(2)
    with torch.no_grad():
        moved = virtual_adversarial(features, lambda f: decided(net, f), share=0.1)
    assert not any(each.requires_grad for each in moved)
    assert divergence(net, features, moved).min() > 0


def test_a_map_that_nobody_reads_and_a_sample_of_zeros_stay_where_they_are() -> None:
    net, features = begun(2)
    unread = torch.randn(3, 1, 12, 12)  # as the image that some encoders hand on
    features = tuple(torch.cat([each[:2], each[2:] * 0]).detach() for each in features)
    moved = virtual_adversarial((unread, *features), lambda f: decided(net, f[1:]), share=0.1)
    assert torch.equal(moved[0], unread)
    for before, after in zip(features, moved[1:], strict=True):
        assert torch.equal(after[2], before[2])
        assert not torch.equal(after[:2], before[:2])


def test_a_judge_that_is_certain_gives_no_nan() -> None:
    start = (torch.ones(2, 3, 2, 2),)

    def judge(features: Features) -> Tensor:
        return torch.stack([features[0][:, 0] * 1e4, features[0][:, 1] * -1e4], dim=1)

    (moved,) = virtual_adversarial(start, judge, share=0.1)
    assert moved.isfinite().all()
