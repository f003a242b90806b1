"""Networks by name."""

from __future__ import annotations

import copy
import typing
from collections.abc import Iterable

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from common.errors import ConfigError
from common.parts import Parted, parted
from medseg_ssl import parts
from medseg_ssl.networks import (
    UNETR,
    AnyNetwork,
    BasicUNet,
    CustomVolume,
    DynUNet,
    MedNeXt,
    SegResNet,
    SwinUNETR,
    UNet,
    VNet,
    VolumeNetwork,
    check_patch,
)

MEMBERS = typing.get_args(typing.get_args(AnyNetwork)[0])
HEAVY = {"vnet", "swin_unetr"}
VARIANTS = [
    UNet(features=(4, 8), residual_units=0, norm="batch"),
    UNet(features=(4, 8, 8), strides=((2, 2, 1), (2, 2, 1)), dropout=0.3),
    DynUNet(features=(4, 8, 8), blocks="residual", dropout=0.3),
    BasicUNet(features=(4, 4, 8, 8, 16), dropout=0.3),
    SegResNet(features=4, blocks_down=(1, 1), dropout=0.3),
    MedNeXt(features=4, blocks=2, kernel=5),
]


class Tiny(nn.Module):
    def __init__(self, classes: int, channels: int = 1) -> None:
        super().__init__()
        if classes > 9:
            raise ValueError("at most nine classes")
        self.layer = nn.Conv3d(channels, classes, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.layer(image)


def example(member: type[VolumeNetwork]) -> VolumeNetwork:
    if member is CustomVolume:
        target = f"{__name__}:Tiny"
        return CustomVolume(target=target, arguments={"classes": 3, "channels": 2})
    return UNETR(patch=(32, 32, 16)) if member is UNETR else member()


def a_parted_one(channels: int, classes: int) -> Parted:
    levels = nn.Conv3d(channels, 4, 3, padding=1), nn.Identity(), nn.Conv3d(4, classes, 1)
    return Parted(*levels)


LIGHT = SwinUNETR(depths=(1, 1, 1, 1), heads=(1, 1, 1, 1), window=4)
DEFAULTS = [example(m) for m in MEMBERS if m not in (CustomVolume, SwinUNETR)]
NAMED = [*DEFAULTS, LIGHT, *VARIANTS]


@pytest.fixture(params=NAMED, ids=lambda network: network.name)
def named(request: pytest.FixtureRequest) -> VolumeNetwork:
    return request.param


def prints(weights: Iterable[nn.Parameter]) -> list[tuple[torch.Size, float]]:
    return sorted((weight.shape, float(weight.detach().sum())) for weight in weights)


def image_for(network: VolumeNetwork) -> torch.Tensor:
    seed = torch.Generator().manual_seed(1)
    return torch.randn(2, 2, *smallest_patch(network), generator=seed)


def seeded(network: VolumeNetwork) -> nn.Module:
    torch.manual_seed(0)
    return network.build(2, 3).eval()


@pytest.fixture
def both(named: VolumeNetwork, monkeypatch: pytest.MonkeyPatch) -> tuple[nn.Module, nn.Module]:
    """``named`` as built, and a copy of what MONAI had made before it was split."""
    kept: list[nn.Module] = []
    splitting = getattr(parts, named.name)

    def spied(whole: nn.Module) -> Parted:
        kept.append(copy.deepcopy(whole))
        return splitting(whole)

    monkeypatch.setattr(parts, named.name, spied)
    split = seeded(named)
    (whole,) = kept
    return split, whole.eval()


def smallest_patch(network: VolumeNetwork) -> tuple[int, int, int]:
    if isinstance(network, UNETR):
        return network.patch
    x, y, z = network.multiple
    return (2 * x, y, z)


@pytest.mark.parametrize("member", MEMBERS, ids=lambda member: member.__name__)
def test_each_member_is_chosen_by_its_name_and_survives_yaml(member):
    network = example(member)
    again = TypeAdapter(AnyNetwork).validate_python(network.model_dump(mode="json"))
    assert again == network
    assert type(again) is member


@pytest.mark.parametrize("member", MEMBERS, ids=lambda member: member.__name__)
def test_each_member_maps_channels_to_classes_on_the_same_grid_and_learns(member):
    network = example(member)
    patch = smallest_patch(network)
    check_patch(network, patch)
    module = network.build(2, 3).train()
    logits = module(torch.randn(2, 2, *patch))
    assert isinstance(logits, torch.Tensor)
    assert logits.shape == (2, 3, *patch)
    logits.square().mean().backward()
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    assert all(each.grad is not None and bool(each.grad.isfinite().all()) for each in weights)


@torch.no_grad()
def test_a_split_network_answers_bit_for_bit_as_monai_built_it(named, both):
    (split, whole), image = both, image_for(named)
    assert isinstance(split, Parted)
    assert type(whole).__module__.startswith("monai.")
    assert torch.equal(split(image), whole(image))
    assert torch.equal(copy.deepcopy(split)(image), whole(image))


def test_a_split_network_holds_each_weight_of_monai_once(both):
    split, whole = both
    held = [id(weight) for _, weight in split.named_parameters(remove_duplicate=False)]
    assert len({*held}) == len(held)
    used = {n: p for n, p in whole.named_parameters() if "norm_cross_attn" not in n}
    assert prints(split.parameters()) == prints(used.values())


@torch.no_grad()
def test_the_state_of_a_split_network_makes_another_its_equal(named):
    split, image = seeded(named), image_for(named)
    other = named.build(2, 3).eval()
    assert not torch.equal(other(image), split(image))
    other.load_state_dict(split.state_dict())
    assert torch.equal(other(image), split(image))


def test_gradients_reach_encoder_decoder_and_head(named):
    split = seeded(named).train()
    split(image_for(named)).square().mean().backward()
    for part in (split.encoder, split.decoder, split.head):
        gradients = [weight.grad for weight in part.parameters()]
        assert all(each is not None and bool(each.isfinite().all()) for each in gradients)
        if gradients:
            assert max(each.abs().max() for each in gradients) > 0


@torch.no_grad()
def test_decoding_doubled_features_doubles_the_logits_and_spares_the_features(named):
    split, image = seeded(named), image_for(named)
    features = split.encoder(image)
    before = [each.clone() for each in features]
    once = split.head(split.decoder(features))
    twice = split.head(split.decoder(tuple(torch.cat([each, each]) for each in features)))
    torch.testing.assert_close(twice, torch.cat([once, once]), atol=1e-4, rtol=1e-4)
    assert all(map(torch.equal, features, before))


@torch.no_grad()
def test_features_are_finest_first_and_pixel_features_as_wide_as_they_say(named):
    split, image = seeded(named), image_for(named)
    features = split.encoder(image)
    assert isinstance(features, tuple)
    voxels = [each[0, 0].numel() for each in features]
    assert voxels == sorted(voxels, reverse=True)
    pixels = split.decoder(features)
    assert nn.Conv3d(split.pixel_channels, 4, 1)(pixels).shape[:2] == (2, 4)
    assert split.num_classes == 3


def test_a_custom_network_stays_as_it_is_in_one_piece_or_in_parts():
    whole = example(CustomVolume).build(2, 3)
    assert type(whole) is Tiny
    with pytest.raises(ConfigError, match=r"Tiny is in one piece"):
        parted(whole)
    arguments = {"channels": 2, "classes": 3}
    mine = CustomVolume(target=f"{__name__}:a_parted_one", arguments=arguments).build(2, 3)
    assert parted(mine) is mine


@pytest.mark.parametrize(
    "member",
    [member for member in MEMBERS if example(member).name not in HEAVY],
    ids=lambda member: member.__name__,
)
def test_the_first_weights_are_a_function_of_the_seed(member):
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return torch.cat([p.detach().flatten() for p in example(member).build(2, 3).parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_the_default_network_is_small():
    count = sum(p.numel() for p in UNet().build(1, 3).parameters())
    assert count == 1_187_766


@pytest.mark.parametrize("member", [UNet, DynUNet])
def test_thick_slices_keep_their_number_with_strides_of_one(member):
    network = member(features=(4, 8, 8), strides=((2, 2, 1), (2, 2, 1)))
    assert network.multiple == (4, 4, 1)
    check_patch(network, (8, 8, 3))
    assert network.build(1, 2)(torch.randn(1, 1, 8, 8, 3)).shape == (1, 2, 8, 8, 3)


def test_strides_must_be_one_fewer_than_features():
    with pytest.raises(
        ValidationError, match=r"strides has 1 entries, but 4 features need 3.*or say 'halve'"
    ):
        UNet(strides=((2, 2, 2),))


def test_a_refusal_of_the_constructor_is_one_sentence_with_a_remedy():
    with pytest.raises(ConfigError) as caught:
        SwinUNETR(features=13).build(1, 2)
    message = str(caught.value)
    assert message.startswith("domain.network 'swin_unetr' cannot be made for 1 channels and 2 cl")
    assert message.endswith("Change its settings, or choose another name.")
    assert "\n" not in message


def test_vnet_says_which_channels_it_cannot_take():
    with pytest.raises(ConfigError, match="'vnet' cannot be made for 3 channels"):
        VNet().build(3, 2)


@pytest.mark.parametrize(
    ("target", "arguments", "match"),
    [
        ("nowhere:Net", {}, "cannot be made"),
        ("Tiny", {}, "expected 'package.module:Name'"),
        (f"{__name__}:Tiny", {"depth": 3}, "cannot be made"),
        (f"{__name__}:Tiny", {"classes": 10}, "at most nine classes"),
        (f"{__name__}:example", {"member": UNet}, "expected a torch.nn.Module"),
    ],
)
def test_a_custom_network_that_cannot_be_made_is_refused(target, arguments, match):
    with pytest.raises(ConfigError, match=match):
        CustomVolume(target=target, arguments=arguments).build(1, 2)


def test_a_patch_that_does_not_halve_is_refused_with_the_nearest_that_does():
    with pytest.raises(ConfigError, match=r"multiples of \[8, 8, 8\]. Take \[40, 56, 8\]"):
        check_patch(UNet(), (41, 56, 3))


def test_a_patch_that_shrinks_to_a_single_voxel_is_refused():
    with pytest.raises(ConfigError, match=r"a single voxel .* Take \[16, 16, 16\]"):
        check_patch(UNet(), (8, 8, 8))


def test_unetr_takes_only_the_patch_it_is_built_for():
    with pytest.raises(
        ConfigError, match=r"\[32, 32, 32\], the run cuts patches of \[32, 32, 48\]"
    ):
        check_patch(UNETR(patch=(32, 32, 32)), (32, 32, 48))
