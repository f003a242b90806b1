"""Networks in three parts, the toy one first."""

from __future__ import annotations

import typing

import pytest
import torch
from torch import nn

from common.errors import ConfigError
from common.parts import parted
from tests.toy import Net, Norm, ToyDomain, ToySettings


@pytest.mark.parametrize("norm", typing.get_args(Norm))
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("side", [8, 12, 16])
def test_the_toy_network_has_two_levels_in_any_size(norm: Norm, dims: int, side: int) -> None:
    network = Net(dims, 1, 3, norm=norm)
    fine, coarse = features = network.encoder(torch.randn(2, 1, *[side] * dims))
    assert fine.shape == (2, 8, *[side] * dims)
    assert coarse.shape == (2, 16, *[side // 2] * dims)
    pixels = network.decoder(features)
    assert pixels.shape == (2, network.pixel_channels, *[side] * dims)
    assert network.head(pixels).shape == (2, network.num_classes, *[side] * dims)


def test_toy_partners_take_turns_with_norms_of_their_own() -> None:
    domain = ToyDomain(ToySettings(partners=("group", "instance")))
    found = [
        next(part for part in domain.new_network(peer).modules() if isinstance(part, kind))
        for peer, kind in enumerate((nn.BatchNorm2d, nn.GroupNorm, nn.InstanceNorm2d, nn.GroupNorm))
    ]
    assert len(found) == 4


def test_a_network_in_one_piece_is_refused_with_remedies() -> None:
    network = Net(2, 1, 2)
    assert parted(network) is network
    with pytest.raises(ConfigError, match=r"^domain\.network: .* Conv2d is in one piece\. Let it"):
        parted(nn.Conv2d(1, 2, 1))
