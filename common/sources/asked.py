"""A source outside of training, where whole cases are predicted."""

from __future__ import annotations

import torch
from torch import nn

from common.batch import Image, Logits
from common.sources.base import Mirrors, Source
from common.sources.plain import Plain


class Asked(nn.Module):
    """A network that answers as ``source`` asks it; the same each time, whatever is random in it.

    The generators of torch are left as they were.
    """

    def __init__(self, network: nn.Module, source: Source, mirrors: Mirrors) -> None:
        super().__init__()
        self.network, self.source, self.mirrors = network, source, mirrors

    def forward(self, image: Image) -> Logits:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return self.source(self.network, image, self.mirrors)


def asked(network: nn.Module, source: Source, mirrors: Mirrors) -> nn.Module:
    """``network``, asked by ``source``."""
    return network if isinstance(source, Plain) else Asked(network, source, mirrors)
