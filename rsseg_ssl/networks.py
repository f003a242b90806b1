"""Networks by name, from segmentation-models-pytorch, with any number of bands."""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, cast

import segmentation_models_pytorch as smp
import torch
from pydantic import Field
from safetensors.torch import load_file
from torch import Tensor, nn

from common.batch import Image
from common.errors import ConfigError
from common.networks import Custom
from common.parts import Features, Parted
from common.settings import Positive, Settings

logger = logging.getLogger("seg_ssl")

FILES = (".pt", ".pth", ".ckpt", ".safetensors")
STRIDES = {"pspnet": 8, "deeplabv3": 8, "deeplabv3plus": 16}  # 32 for all others


class ByName(Settings):
    """A decoder and an encoder of segmentation-models-pytorch [1].

    [1] https://smp.readthedocs.io, encoders.
    """

    name: Literal[
        "unet",
        "unetplusplus",
        "manet",
        "linknet",
        "fpn",
        "pspnet",
        "deeplabv3",
        "deeplabv3plus",
        "upernet",
        "segformer",
    ] = "unet"
    encoder: str = "resnet18"  # "tu-..." takes any encoder of timm
    weights: str | None = None  # a name such as "imagenet", or a .pt or .safetensors file

    @property
    def multiple(self) -> int:
        """What the sides of a tile must be divisible by."""
        return STRIDES.get(self.name, 32)

    def build(self, channels: int, classes: int) -> Parted:
        """A fresh network, ``(B, channels, H, W)`` to logits ``(B, classes, H, W)``.

        Its finest feature map is the image itself, of which no decoder reads more than the shape.

        Raises:
            ConfigError: When encoder or weights do not exist, do not fit, or cannot be had.
        """
        file = Path(self.weights) if self.weights and self.weights.endswith(FILES) else None
        try:
            whole: nn.Module = smp.create_model(
                self.name,
                encoder_name=self.encoder,
                encoder_weights=None if file else self.weights,
                in_channels=channels,
                classes=classes,
            )
        except Exception as error:  # the hub and timm raise many kinds
            raise ConfigError(self._why(error)) from error
        if file:
            _load(whole, file)
        return _split(whole)

    def _why(self, error: Exception) -> str:
        known = smp.encoders.encoders
        if self.encoder not in known and not self.encoder.startswith("tu-"):
            return (
                f"domain.network.encoder: no {self.encoder!r} here."
                f"{_suggest(self.encoder, list(known))} All names: https://smp.readthedocs.io."
            )
        if isinstance(error, KeyError) and self.weights:
            names = [*known[self.encoder]["pretrained_settings"]]
            return (
                f"domain.network.weights: encoder {self.encoder!r} has no {self.weights!r}. "
                f"Choose one of {', '.join(names)}.{_suggest(self.weights, names)}"
            )
        if isinstance(error, OSError) or "connect" in str(error).lower():
            return (
                f"domain.network.weights {self.weights!r} of encoder {self.encoder!r} cannot be "
                "downloaded: no connection, and no earlier copy on this machine. Set weights: null "
                "to start from random weights, or give a local .pt or .safetensors file."
            )
        return (
            f"domain.network: {self.name!r} cannot be built on encoder {self.encoder!r}: {error}. "
            "Choose another encoder."
        )


class Importable(Settings):
    """A network of the user's own, of any importable class or function."""

    name: Literal["custom"]
    target: str  # "package.module:Name"
    arguments: dict[str, Any] = {}
    multiple: Positive = 1  # what the sides of a tile must be divisible by

    def build(self, channels: int, classes: int) -> nn.Module:
        """A fresh network, tried on one tile of zeros.

        Raises:
            ConfigError: When it cannot be made, or does not map bands to classes.
        """
        network = Custom(target=self.target, arguments=self.arguments).build()
        side = self.multiple * -(-64 // self.multiple)
        try:
            with torch.no_grad():
                shape = tuple(network.eval()(torch.zeros(2, channels, side, side)).shape)
        except (RuntimeError, TypeError, ValueError, AttributeError) as error:
            raise ConfigError(
                f"domain.network.target {self.target!r} fails on an image (2, {channels}, {side}, "
                f"{side}): {error}. Mend its arguments, or set domain.network.multiple."
            ) from error
        if shape != (2, classes, side, side):
            raise ConfigError(
                f"domain.network.target {self.target!r} maps (2, {channels}, {side}, {side}) to "
                f"{shape}, expected (2, {classes}, {side}, {side}): one logit per class and pixel."
            )
        return network.train()


AnyNetwork: TypeAlias = Annotated[ByName | Importable, Field(discriminator="name")]


class _Encoder(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, image: Image) -> Features:
        return tuple(self.body(image))


class _Decoder(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, features: Features) -> Tensor:
        pixels: Tensor = self.body([*features])  # a list of its own: some decoders write into it
        return pixels


def _split(whole: nn.Module) -> Parted:
    encoder, decoder = cast(nn.Module, whole.encoder), cast(nn.Module, whole.decoder)
    head = cast(nn.Module, whole.segmentation_head)
    return Parted(_Encoder(encoder), _Decoder(decoder), head)


def _load(network: nn.Module, path: Path) -> None:
    """Fill ``network``, or only its encoder, from a file of weights."""
    state = _published(_read(path))
    target = network
    if not _holds_whole(state, network.state_dict()):
        target = cast(nn.Module, network.encoder)
        state = {name.removeprefix("encoder."): value for name, value in state.items()}
    own = target.state_dict()
    _adapt_bands(state, own, path)
    problems = [*_misfits(state, own)]
    if problems:
        more = [f"and {len(problems) - 5} more."] if len(problems) > 5 else []
        raise ConfigError.listing(
            f"domain.network.weights '{path}' do not fit the network. Choose the encoder they "
            "were made for",
            problems[:5] + more,
        )
    unused = sorted(state.keys() - own.keys())
    if unused:
        logger.warning("'%s': %d entries are not used, such as '%s'.", path, len(unused), unused[0])
    with torch.no_grad():
        for name, value in own.items():  # load_state_dict of some encoders demands a classifier
            value.copy_(state[name])


def _holds_whole(state: dict[str, Tensor], own: dict[str, Tensor]) -> bool:
    """Whether ``state`` is of the whole network, with its number of classes."""
    head = next(reversed(own))
    return own.keys() <= state.keys() and state[head].shape == own[head].shape


def _misfits(state: dict[str, Tensor], own: dict[str, Tensor]) -> Iterator[str]:
    for name, value in own.items():
        if name not in state:
            yield f"'{name}' is missing."
        elif state[name].shape != value.shape:
            yield f"'{name}' is {tuple(state[name].shape)}, expected {tuple(value.shape)}."


def _adapt_bands(state: dict[str, Tensor], own: dict[str, Tensor], path: Path) -> None:
    """Make the first convolution of ``state`` take as many bands as that of ``own``."""
    first = next(name for name, value in own.items() if value.ndim == 4)
    given, bands = state.get(first), own[first].shape[1]
    if given is None or given.ndim != 4 or given.shape[1] == bands:
        return
    state[first] = _to_bands(given, bands)
    known = given.shape[1]
    logger.warning("'%s' was made for %d bands and is adapted to %d.", path, known, bands)


def _to_bands(kernel: Tensor, bands: int) -> Tensor:
    """A kernel for ``bands`` bands that answers an image of equal bands as before.

    More bands: the known ones keep their kernels, the others get the mean. Fewer: all the mean.
    """
    known = kernel.shape[1]
    mean = kernel.mean(dim=1, keepdim=True)
    kept = kernel if bands > known else kernel[:, :0]
    wider = torch.cat([kept, mean.expand(-1, bands - kept.shape[1], -1, -1)], dim=1)
    return wider * (known / bands)


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ConfigError(
            f"domain.network.weights: there is no file '{path}'. Correct the path, or set "
            "weights: null."
        ) from None
    except Exception as error:  # pickle, zip and safetensors raise many kinds
        raise ConfigError(
            f"domain.network.weights '{path}' cannot be read: {error}. Expected a state dict "
            "saved by torch.save or safetensors."
        ) from error
    for key in ("state_dict", "model"):
        content = content.get(key, content) if isinstance(content, dict) else {}
    tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
    return {name.removeprefix("module."): value for name, value in tensors.items()}


def _published(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """``state``, its names as the library gives them; ours where it was saved from a split one."""
    if not any(name.startswith("encoder.body.") for name in state):
        return state
    names = {
        "encoder.body.": "encoder.",
        "decoder.body.": "decoder.",
        "head.": "segmentation_head.",
    }
    pattern = re.compile("|".join(f"^{re.escape(name)}" for name in names))
    return {pattern.sub(lambda m: names[m[0]], key): value for key, value in state.items()}


def _suggest(wrong: str, known: list[str]) -> str:
    close = difflib.get_close_matches(wrong, known, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
