"""Networks in three parts, for methods that look inside: features, pixels, classes."""

from __future__ import annotations

from typing import TypeAlias

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
