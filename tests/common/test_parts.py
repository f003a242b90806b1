"""Networks in three parts, the toy one first."""

from __future__ import annotations

import typing

import pytest
import torch
from torch import nn

from common.errors import ConfigError
from common.parts import Features, Upsampled, parted
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


class Finest(nn.Module):
    """Picks the finest of the features."""

    def forward(self, features: Features) -> torch.Tensor:
        return features[0]


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "output_padding", "dilation"),
    [(2, 2, 0, 0, 1), (3, 2, 1, 1, 1), (4, 2, 1, 0, 1), (3, 2, 1, 0, 1), (3, 3, 0, 2, 2)],
)
def test_what_replaces_a_transposed_convolution_makes_maps_as_large(
    dims: int, kernel: int, stride: int, padding: int, output_padding: int, dilation: int
) -> None:
    kind = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}[dims]
    geometry = {"padding": padding, "output_padding": output_padding, "dilation": dilation}
    transposed = kind(4, 6, kernel, stride, groups=2, bias=False, **geometry)
    maps = torch.randn(1, 4, *(3, 4, 5)[:dims])
    swapped = Upsampled(nn.Sequential(Finest(), transposed), "linear")
    assert swapped((maps,)).shape == transposed(maps).shape
    assert [tuple(weights.shape) for weights in swapped.parameters()] == [(6, 2, *[1] * dims)]


def test_interpolation_by_module_or_function_is_of_the_kind_asked_for_and_only_inside() -> None:
    class ByFunction(nn.Module):
        def forward(self, maps: torch.Tensor) -> torch.Tensor:
            return nn.functional.interpolate(maps, None, 2, "bilinear", align_corners=True)

    maps = torch.randn(1, 2, 3, 3)
    module = nn.Upsample(scale_factor=2, mode="bilinear")
    expected = {
        "nearest": maps.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3),
        "linear": module(maps),
    }
    for kind, answer in expected.items():
        for decoder in (nn.Upsample(scale_factor=2, mode="nearest"), module, ByFunction()):
            torch.testing.assert_close(
                Upsampled(nn.Sequential(Finest(), decoder), kind)((maps,)), answer
            )
    torch.testing.assert_close(module(maps), expected["linear"])


def test_a_layer_that_makes_nothing_larger_stays() -> None:
    layer = nn.ConvTranspose2d(2, 3, 1)
    assert Upsampled(nn.Sequential(layer), "linear").decoder[0] is layer
