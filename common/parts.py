"""Networks in three parts, for methods that look inside: features, pixels, classes."""

from __future__ import annotations

from typing import TypeAlias

import torch.nn.functional as F
from torch import Tensor, nn

from common.batch import Image, Logits
from common.errors import ConfigError

Features: TypeAlias = tuple[Tensor, ...]
"""What an encoder hands to its decoder: maps ``(B, F_i, *S_i)``, finest first."""

CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)


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
    mode = {4: "bilinear", 5: "trilinear"}[maps.ndim]
    return F.interpolate(maps, size=image.shape[2:], mode=mode)
