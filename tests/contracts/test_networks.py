"""Every network of both adapters lends its parts to methods that look inside."""

from __future__ import annotations

import copy
import typing

import pytest
import torch
from torch import Tensor, nn

from common.parts import TRANSPOSED, Parted, Upsampled, on_grid, parted, pixel_head
from medseg_ssl import networks as volumes
from rsseg_ssl.networks import ByName

VOLUMES = {
    "unet": volumes.UNet(features=(4, 8, 8)),
    "unet thick": volumes.UNet(features=(4, 8, 8), strides=((2, 2, 1), (2, 2, 2))),
    "dynunet": volumes.DynUNet(features=(4, 8, 8)),
    "attention_unet": volumes.AttentionUNet(features=(4, 8, 8)),
    "basic_unet": volumes.BasicUNet(features=(4, 4, 8, 8, 16)),
    "segresnet": volumes.SegResNet(features=4),
    "vnet": volumes.VNet(),
    "mednext": volumes.MedNeXt(features=4),
    "swin_unetr": volumes.SwinUNETR(),
    "unetr": volumes.UNETR(patch=(32, 32, 32), features=4, hidden=24, heads=2, mlp=24),
}
TILES = typing.get_args(ByName.model_fields["name"].annotation)
CLASSES = 3


def built(name: str) -> tuple[Parted, Tensor]:
    """A network and an image for it."""
    torch.manual_seed(0)
    kind, _, key = name.partition(" ")
    if kind == "tiles":
        return parted(ByName(name=key).build(4, CLASSES)).eval(), torch.randn(1, 4, 64, 32)
    sides = (64, 32, 32) if key == "swin_unetr" else (32, 32, 32)
    return parted(VOLUMES[key].build(1, CLASSES)).eval(), torch.randn(1, 1, *sides)


@pytest.fixture(params=[*(f"volumes {n}" for n in VOLUMES), *(f"tiles {n}" for n in TILES)])
def named(request: pytest.FixtureRequest) -> str:
    return request.param


def test_every_network_has_adapters_listed_here() -> None:
    known = {each.name for each in VOLUMES.values()} | {"custom"}
    members = typing.get_args(typing.get_args(volumes.AnyNetwork)[0])
    assert {each.model_fields["name"].default for each in members} == known


@torch.no_grad()
def test_a_further_head_reads_its_pixel_features_on_the_grid_of_the_image(named: str) -> None:
    network, image = built(named)
    pixels = network.decoder(network.encoder(image))
    for head in (pixel_head(network, 5), pixel_head(network, 5, width=7)):
        maps = on_grid(head(pixels), image)
        assert maps.shape == (1, 5, *image.shape[2:])
        assert maps.std() > 0


@torch.no_grad()
def test_a_decoder_that_makes_larger_otherwise_makes_the_same_size(named: str) -> None:
    network, image = built(named)
    features = network.encoder(image)
    whole = nn.Sequential(network.decoder, network.head)
    kinds = [Upsampled(copy.deepcopy(whole), kind) for kind in ("linear", "nearest")]
    answers = [each.eval()(features) for each in kinds]
    assert {tuple(each.shape) for each in answers} == {(1, CLASSES, *image.shape[2:])}
    assert not [
        m
        for each in kinds
        for m in each.modules()
        if isinstance(m, TRANSPOSED) and max(m.stride) > 1
    ]
    kinds[1].load_state_dict(kinds[0].state_dict())
    assert not torch.equal(kinds[1](features), answers[0])  # equal weights, other interpolation
    torch.testing.assert_close(network.head(network.decoder(features)), network(image))
