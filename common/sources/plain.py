"""What the network says."""

from __future__ import annotations

from typing import Literal

from torch import nn

from common.batch import Image, Logits
from common.sources.base import Mirrors, Source


class Plain(Source):
    """Asks once, and takes the answer as it is."""

    name: Literal["plain"] = "plain"

    def __call__(self, network: nn.Module, image: Image, mirrors: Mirrors) -> Logits:
        answer: Logits = network(image)
        return answer
