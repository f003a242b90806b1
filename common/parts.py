"""Networks in three parts, for methods that look inside: features, pixels, classes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias, cast

import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from common.batch import Image, Logits
from common.errors import ConfigError

Features: TypeAlias = tuple[Tensor, ...]
"""What an encoder hands to its decoder: maps ``(B, F_i, *S_i)``, finest first."""

Interpolation: TypeAlias = Literal["linear", "nearest"]
"""How values between pixels are found."""

TRANSPOSED = (nn.ConvTranspose2d, nn.ConvTranspose3d)
CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, *TRANSPOSED)
ASKED = inspect.signature(F.interpolate)


class Parted(nn.Module):
    """A segmentation network as ``head(decoder(encoder(image)))``.

    Args:
        encoder: Image ``(B, C, *S)`` to :data:`Features`: everything that the decoder will see.
        decoder: Features to pixel features ``(B, F, *S')``, as fine as the image or coarser.
        head: Pixel features to logits ``(B, K, *S)`` on the grid of the image.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.head = head

    def forward(self, image: Image) -> Logits:
        logits: Logits = self.head(self.decoder(self.encoder(image)))
        return logits

    @property
    def pixel_channels(self) -> int:
        """How many channels pixel features have."""
        return next(m.in_channels for m in self.head.modules() if isinstance(m, CONVOLUTIONS))

    @property
    def num_classes(self) -> int:
        """How many classes the logits tell apart."""
        *_, last = (m for m in self.head.modules() if isinstance(m, CONVOLUTIONS))
        return last.out_channels


def parted(network: nn.Module) -> Parted:
    """``network``, seen to have parts.

    Raises:
        ConfigError: When it is a network of the user's own, in one piece.
    """
    if isinstance(network, Parted):
        return network
    raise ConfigError(
        f"domain.network: this method works on features inside the network, but "
        f"{type(network).__name__} is in one piece. Let it be a common.parts.Parted(encoder, "
        "decoder, head), choose a network by name, or choose a method that needs no features."
    )


def pixel_head(network: Parted, channels: int, *, width: int | None = None) -> nn.Sequential:
    """A new head on the pixel features of ``network``, which stays on their grid.

    A linear map of each pixel, or with ``width`` one hidden layer of as many units and dropout.

    Args:
        network: Tells how many channels pixel features have, and how many spatial axes.
        channels: How many maps to make; often ``network.num_classes``.
        width: Hidden units.
    """
    layer = pointwise(network)
    if width is None:
        return nn.Sequential(layer(network.pixel_channels, channels, 1))
    hidden = layer(network.pixel_channels, width, 1)
    return nn.Sequential(hidden, nn.ReLU(), nn.Dropout(0.5), layer(width, channels, 1))


def pointwise(network: Parted) -> type[nn.Conv2d] | type[nn.Conv3d]:
    """The convolution for as many spatial axes as ``network`` has."""
    first = next(m for m in network.head.modules() if isinstance(m, CONVOLUTIONS))
    return nn.Conv2d if isinstance(first, nn.Conv2d | nn.ConvTranspose2d) else nn.Conv3d


def on_grid(maps: Tensor, image: Tensor) -> Tensor:
    """``maps`` interpolated linearly to the grid of ``image``."""
    if maps.shape[2:] == image.shape[2:]:
        return maps
    return _interpolated("linear", maps, image.shape[2:])


def coarser(maps: Tensor, factor: int) -> Tensor:
    """The mean of ``maps`` over ``factor`` pixels along each axis.

    Sides are rounded up; where ``factor`` does not divide them, windows overlap a little.
    """
    return F.interpolate(maps, size=[-(-side // factor) for side in maps.shape[2:]], mode="area")


class Upsampled(nn.Module):
    """A decoder that makes its maps larger in another way, as those of MC-Net+ [1].

    Each transposed convolution with a stride becomes a 1x1 convolution and interpolation to the
    same size, with weights of its own. Whatever interpolates, module or function, does so by
    ``kind``. A decoder that makes nothing larger stays as it is.

    Args:
        decoder: Is changed in place.
        kind: How to interpolate.

    [1] Wu et al., MC-Net+, 2022, arXiv:2109.09960v3, Sec. 3.1.
    """

    def __init__(self, decoder: nn.Module, kind: Interpolation) -> None:
        super().__init__()
        self.decoder = decoder
        self.kind: Interpolation = kind
        for module in [*decoder.modules()]:
            for name, child in module.named_children():
                if isinstance(child, TRANSPOSED) and max(child.stride) > 1:
                    setattr(module, name, _PointwiseThenLarger(child))

    def forward(self, features: Features) -> Tensor:
        with _Interpolating(self.kind):
            maps: Tensor = self.decoder(features)
        return maps


class _PointwiseThenLarger(nn.Module):
    """To the channels and the size that a transposed convolution would make."""

    def __init__(self, replaced: nn.ConvTranspose2d | nn.ConvTranspose3d) -> None:
        super().__init__()
        layer = nn.Conv2d if isinstance(replaced, nn.ConvTranspose2d) else nn.Conv3d
        self.mix = layer(
            replaced.in_channels,
            replaced.out_channels,
            1,
            groups=replaced.groups,
            bias=replaced.bias is not None,
        )
        reach = [
            d * (k - 1) + 1 for d, k in zip(replaced.dilation, replaced.kernel_size, strict=True)
        ]
        padding = cast(tuple[int, ...], replaced.padding)  # never a word where transposed
        margin = zip(reach, replaced.output_padding, padding, strict=True)
        self.stride = replaced.stride
        self.more = [a + b - 2 * c for a, b, c in margin]

    def forward(self, maps: Tensor) -> Tensor:
        axes = zip(maps.shape[2:], self.stride, self.more, strict=True)
        return F.interpolate(self.mix(maps), size=[(n - 1) * by + more for n, by, more in axes])


class _Interpolating(TorchFunctionMode):
    """Within it, every interpolation is of one kind."""

    def __init__(self, kind: Interpolation) -> None:
        super().__init__()
        self.kind: Interpolation = kind

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        if func is F.interpolate:
            asked = ASKED.bind(*args, **(kwargs or {})).arguments
            larger = {name: asked.get(name) for name in ("size", "scale_factor")}
            return _interpolated(self.kind, asked["input"], **larger)
        return func(*args, **(kwargs or {}))


def _interpolated(
    kind: Interpolation,
    maps: Tensor,
    size: Sequence[int] | int | None = None,
    scale_factor: Sequence[float] | float | None = None,
) -> Tensor:
    linear = {3: "linear", 4: "bilinear", 5: "trilinear"}[maps.ndim]
    mode = linear if kind == "linear" else "nearest"
    larger: Tensor = F.interpolate(maps, size=size, scale_factor=scale_factor, mode=mode)
    return larger
