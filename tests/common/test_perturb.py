"""Perturbing features: which channels go, what stays, and that nothing else wakes up."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from common.parts import Features
from common.perturb import channel_dropout, complementary_dropout, dropping, noisy

SIDES = {2: (6, 5), 3: (4, 3, 5)}


def ones(batch: int, dims: int, widths: tuple[int, ...] = (24, 48)) -> Features:
    return tuple(torch.ones(batch, width, *SIDES[dims]) for width in widths)


def per_channel(level: Tensor) -> Tensor:
    """The one value of each channel, ``(B, F)``."""
    flat = level.flatten(2)
    assert torch.equal(flat, flat[..., :1].expand_as(flat))
    return flat[..., 0]


@given(batch=st.integers(1, 9), dims=st.sampled_from([2, 3]), seed=st.integers(0, 1000))
@settings(max_examples=50, deadline=None)
def test_two_complementary_factors_sum_to_2_and_half_of_the_samples_stay_whole(
    batch: int, dims: int, seed: int
) -> None:
    torch.manual_seed(seed)
    one, other = complementary_dropout(ones(batch, dims), ones(batch, dims))
    whole = []
    for first, second in zip(map(per_channel, one), map(per_channel, other), strict=True):
        assert torch.equal(first + second, torch.full_like(first, 2))
        intact = (first == 1).all(dim=1)
        assert (((first == 0) | (first == 2)).all(dim=1) | intact).all()
        whole.append(intact)
    assert torch.equal(*whole)  # the same samples in every map
    assert whole[0].sum() == batch // 2


def test_either_half_is_as_likely_and_each_sample_and_map_draws_its_own() -> None:
    torch.manual_seed(0)
    (fine, coarse), _ = complementary_dropout(ones(400, 2, (8, 8)), ones(400, 2, (8, 8)))
    fine, coarse = per_channel(fine), per_channel(coarse)
    assert ((fine.mean(dim=0) - 1).abs() < 0.2).all()
    assert not torch.equal(fine, coarse)
    assert len(fine.unique(dim=0)) > 50


def test_every_sample_can_stay_whole() -> None:
    torch.manual_seed(0)
    stayed = torch.zeros(3)
    for _ in range(60):
        (level,), _ = complementary_dropout(ones(3, 2, (16,)), ones(3, 2, (16,)))
        stayed += (per_channel(level) == 1).all(dim=1)
    assert stayed.sum() == 60
    assert (stayed > 8).all()


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("share", [0.0, 0.25, 0.5])
def test_channel_dropout_drops_whole_channels_and_keeps_the_mean(dims: int, share: float) -> None:
    torch.manual_seed(0)
    for level in map(per_channel, channel_dropout(ones(50, dims), share)):
        torch.testing.assert_close(level[level != 0].unique(), torch.tensor([1 / (1 - share)]))
        assert (level == 0).any() == (share > 0)
        assert float(level.mean()) == pytest.approx(1, abs=0.1)


def test_a_dropped_channel_gets_no_gradient() -> None:
    torch.manual_seed(0)
    level = torch.ones(2, 8, 3, 3, requires_grad=True)
    (dropped,), _ = complementary_dropout((level,), (level,))
    dropped.sum().backward()
    assert torch.equal(level.grad, dropped.detach())


def test_noise_is_clipped_on_both_sides() -> None:
    torch.manual_seed(0)
    noise = noisy(torch.zeros(1, 1, 100, 100), 0.1, 0.2)
    assert float(noise.abs().max()) == pytest.approx(0.2)
    assert 0.04 < float((noise.abs() > 0.1999).float().mean()) < 0.05  # beyond 2 deviations


def test_dropout_alone_wakes_and_falls_asleep_again() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 1), nn.BatchNorm2d(4), nn.Dropout2d(0.5)).eval()
    image = torch.randn(2, 1, 4, 4)
    before = network[1].running_mean.clone()
    with dropping(network):
        assert [m.training for m in network] == [False, False, True]
        assert (network(image).flatten(2) == 0).all(dim=2).any()
    assert not any(m.training for m in network.modules())
    assert torch.equal(network(image), network(image))
    assert torch.equal(network[1].running_mean, before)


def test_dropout_sleeps_again_after_a_failure_and_stays_awake_where_it_was() -> None:
    network = nn.ModuleList([nn.Dropout(), nn.Dropout3d()]).eval()
    network[1].train()
    with pytest.raises(RuntimeError), dropping(network):
        raise RuntimeError
    assert [m.training for m in network] == [False, True]
