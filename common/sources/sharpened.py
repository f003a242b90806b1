"""What the network says, made surer."""

from __future__ import annotations

from typing import Literal

from torch import nn

from common.batch import Image, Logits
from common.settings import PositiveReal
from common.sources.base import Mirrors, Source


class Sharpened(Source):
    """Raises each probability to the power ``1 / temperature``, and norms their sum to 1 [1].

    No class changes places with another, so only a filter or a soft target sees it. Above 1 it
    makes a network less sure: the remedy for one that believes itself too much.

    [1] Berthelot et al., MixMatch, NeurIPS 2019, arXiv:1905.02249, Eq. 7.
    """

    name: Literal["sharpened"] = "sharpened"
    temperature: PositiveReal = 0.5  # T

    def __call__(self, network: nn.Module, image: Image, mirrors: Mirrors) -> Logits:
        answer: Logits = network(image).float()
        return answer / self.temperature
