"""Networks by name, their weights, and networks of the user's own."""

from __future__ import annotations

import copy
import logging
from typing import get_args

import pytest
import segmentation_models_pytorch as smp
import torch
from pydantic import TypeAdapter, ValidationError
from safetensors.torch import save_file
from torch import nn

from common.errors import ConfigError
from common.parts import Parted, parted
from rsseg_ssl import networks
from rsseg_ssl.networks import AnyNetwork, ByName, Importable

NAMES = get_args(ByName.model_fields["name"].annotation)
ANY = TypeAdapter(AnyNetwork)
TRANSFORMERS = ("unet", "manet", "fpn", "deeplabv3plus", "upernet", "segformer")
NAMED = [
    *(ByName(name=name) for name in NAMES),
    *(ByName(name=name, encoder="mit_b0") for name in TRANSFORMERS),
    *(ByName(name=name, encoder="tu-mobilenetv3_small_050") for name in NAMES),
    ByName(encoder="tu-convnext_atto"),
    ByName(name="unetplusplus", encoder="efficientnet-b0"),
]


class OneByOne(nn.Conv2d):
    def __init__(self, channels: int, classes: int) -> None:
        super().__init__(channels, classes, 1)


def a_parted_one(channels: int, classes: int) -> Parted:
    return Parted(nn.Conv2d(channels, 4, 1), nn.Identity(), nn.Conv2d(4, classes, 1))


@pytest.fixture(params=NAMED, ids=lambda network: f"{network.name}-{network.encoder}")
def named(request) -> ByName:
    return request.param


def image_for(network: ByName) -> torch.Tensor:
    seed = torch.Generator().manual_seed(1)
    return torch.randn(2, 5, 2 * network.multiple, 2 * network.multiple, generator=seed)


def seeded(network: ByName) -> Parted:
    torch.manual_seed(0)
    return network.build(5, 3).eval()


def unsplit(network: ByName) -> nn.Module:
    """What the library makes, with the weights of :func:`seeded`."""
    torch.manual_seed(0)
    return smp.create_model(
        network.name, encoder_name=network.encoder, encoder_weights=None, in_channels=5, classes=3
    ).eval()


@torch.no_grad()
def test_a_split_network_answers_bit_for_bit_as_the_library_built_it(named):
    split, whole, image = seeded(named), unsplit(named), image_for(named)
    assert isinstance(split, Parted)
    assert torch.equal(split(image), whole(image))
    assert torch.equal(copy.deepcopy(split)(image), whole(image))
    held = [id(weight) for _, weight in split.named_parameters(remove_duplicate=False)]
    assert len({*held}) == len(held) == len([*whole.parameters()])


def test_gradients_reach_encoder_decoder_and_head(named):
    split = seeded(named).train()
    split(image_for(named)).square().mean().backward()
    for part in (split.encoder, split.decoder, split.head):
        gradients = [weight.grad for weight in part.parameters() if weight.grad is not None]
        assert all(bool(each.isfinite().all()) for each in gradients)
        assert max(each.abs().max() for each in gradients) > 0


@torch.no_grad()
def test_decoding_doubled_features_doubles_the_logits_and_spares_the_features(named):
    split = seeded(named)
    features = split.encoder(image_for(named))
    before = [each.clone() for each in features]
    once = split.head(split.decoder(features))
    twice = split.head(split.decoder(tuple(torch.cat([each, each]) for each in features)))
    torch.testing.assert_close(twice, torch.cat([once, once]), atol=1e-4, rtol=1e-4)
    assert all(map(torch.equal, features, before))


@torch.no_grad()
def test_features_are_finest_first_and_pixel_features_as_wide_as_they_say(named):
    split = seeded(named)
    features = split.encoder(image_for(named))
    assert isinstance(features, tuple)
    sides = [each.shape[-1] for each in features]
    assert sides == sorted(sides, reverse=True)
    pixels = split.decoder(features)
    assert nn.Conv2d(split.pixel_channels, 4, 1)(pixels).shape[:2] == (2, 4)
    assert split.num_classes == 3


@torch.no_grad()
def test_of_the_finest_map_a_decoder_reads_no_more_than_the_shape(named):
    split, image = seeded(named), image_for(named)
    first, *others = split.encoder(image)
    assert torch.equal(first, image)
    unread = split.decoder((torch.full_like(first, torch.nan), *others))
    assert torch.equal(unread, split.decoder((first, *others)))


@pytest.mark.parametrize("name", NAMES)
def test_every_name_builds_for_five_bands_and_its_smallest_tile(name):
    settings = ANY.validate_python({"name": name})
    network = settings.build(5, 3)
    with torch.no_grad():
        logits = network.train()(torch.zeros(2, 5, settings.multiple * 2, settings.multiple * 2))
    assert logits.shape == (2, 3, settings.multiple * 2, settings.multiple * 2)


def test_the_default_is_a_small_unet_from_random_weights():
    assert ByName() == ByName(name="unet", encoder="resnet18", weights=None)
    assert ANY.dump_python(ByName()) == {"name": "unet", "encoder": "resnet18", "weights": None}


def test_an_unknown_encoder_names_its_nearest_neighbor():
    with pytest.raises(ConfigError, match=r"no 'resnet81' here\. Did you mean 'resnet18'\?"):
        ByName(encoder="resnet81").build(4, 2)
    with pytest.raises(ConfigError, match="'unet' cannot be built on encoder 'tu-nothing'"):
        ByName(encoder="tu-nothing").build(4, 2)


def test_an_encoder_that_a_decoder_cannot_use_is_refused_in_words():
    with pytest.raises(ConfigError, match="cannot be built on encoder 'mit_b0'"):
        ByName(name="unetplusplus", encoder="mit_b0").build(4, 2)


def test_weights_of_an_unknown_name_list_the_known_ones():
    with pytest.raises(
        ConfigError, match=r"has no 'imagnet'\. Choose one of imagenet, .*'imagenet'"
    ):
        ByName(weights="imagnet").build(4, 2)


def test_weights_that_cannot_be_downloaded_say_what_to_do(monkeypatch):
    def offline(*args, **kwargs):
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(networks.smp, "create_model", offline)
    with pytest.raises(ConfigError, match=r"cannot be downloaded.*Set weights: null"):
        ByName(weights="imagenet").build(4, 2)


def _files(tmp_path, state):
    torch.save({"state_dict": state}, tmp_path / "weights.pt")
    save_file(
        {k: v.contiguous().clone() for k, v in state.items()}, tmp_path / "weights.safetensors"
    )
    return ["weights.pt", "weights.safetensors"]


def test_a_file_fills_the_whole_network_or_its_encoder(tmp_path):
    source = ByName().build(4, 3)
    published = {
        key.replace(".body.", ".").replace("head.", "segmentation_head."): value
        for key, value in source.state_dict().items()
    }
    assert published.keys() == smp.create_model("unet", "resnet18", None).state_dict().keys()
    cases = (
        (True, published),
        (True, source.state_dict()),
        (False, source.encoder.body.state_dict()),
    )
    for whole, state in cases:
        for file in _files(tmp_path, state):
            filled = ByName(weights=str(tmp_path / file)).build(4, 3)
            for name, value in filled.state_dict().items():
                if whole or name.startswith("encoder."):
                    assert torch.equal(value, source.state_dict()[name]), name


@pytest.mark.parametrize("name", ["unet", "fpn"])
def test_a_network_of_other_classes_lends_its_encoder_and_the_log_says_so(tmp_path, caplog, name):
    source = ByName(name=name).build(4, 7)
    torch.save(source.state_dict(), tmp_path / "w.pt")
    with caplog.at_level(logging.WARNING):
        filled = ByName(weights=str(tmp_path / "w.pt")).build(4, 3)
    assert torch.equal(filled.encoder.body.conv1.weight, source.encoder.body.conv1.weight)
    assert "are not used" in caplog.text


@pytest.mark.parametrize("bands", [1, 2, 5, 13])
def test_weights_of_three_bands_serve_any_number(tmp_path, caplog, bands):
    source = ByName().build(3, 2).encoder.body
    torch.save(source.state_dict(), tmp_path / "rgb.pt")
    filled = ByName(weights=str(tmp_path / "rgb.pt")).build(bands, 2).encoder.body
    gray = torch.rand(1, 1, 8, 8)
    expected = source.conv1(gray.expand(-1, 3, -1, -1))
    assert torch.allclose(filled.conv1(gray.expand(-1, bands, -1, -1)), expected, atol=1e-5)
    assert f"made for 3 bands and is adapted to {bands}" in caplog.text


def test_weights_of_another_encoder_and_broken_files_are_refused(tmp_path):
    torch.save(
        ByName(encoder="resnet34").build(4, 2).encoder.body.state_dict(), tmp_path / "w34.pt"
    )
    torch.save(ByName().build(4, 2).encoder.body.state_dict(), tmp_path / "w18.pt")
    with pytest.raises(ConfigError, match="do not fit the network") as caught:
        ByName(encoder="resnet34", weights=str(tmp_path / "w18.pt")).build(4, 2)
    assert "is missing" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 7
    with pytest.raises(ConfigError, match="there is no file"):
        ByName(weights=str(tmp_path / "nowhere.pt")).build(4, 2)
    (tmp_path / "text.pt").write_text("not weights")
    with pytest.raises(ConfigError, match="cannot be read"):
        ByName(weights=str(tmp_path / "text.pt")).build(4, 2)


def test_a_network_of_the_users_own_is_tried_before_training():
    arguments = {"channels": 4, "classes": 3}
    mine = Importable(name="custom", target=f"{__name__}:OneByOne", arguments=arguments)
    network = mine.build(4, 3)
    assert isinstance(network, OneByOne)
    assert network.training
    arguments = {"channels": 4, "classes": 3}
    target = f"{__name__}:a_parted_one"
    split = Importable(name="custom", target=target, arguments=arguments).build(4, 3)
    assert parted(split) is split
    with pytest.raises(ConfigError, match=r"OneByOne is in one piece"):
        parted(network)
    with pytest.raises(ConfigError, match=r"maps \(2, 4, 64, 64\) to \(2, 3, 64, 64\), expected"):
        mine.build(4, 6)
    with pytest.raises(ConfigError, match=r"fails on an image \(2, 5, 64, 64\)"):
        mine.build(5, 3)


def test_settings_refuse_unknown_names_and_keys():
    with pytest.raises(ValidationError):
        ANY.validate_python({"name": "alexnet"})
    with pytest.raises(ValidationError):
        ANY.validate_python({"name": "unet", "target": "a:b"})
