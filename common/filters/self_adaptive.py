"""Trust from bounds that rise with what the network has learned, class by class."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from common.batch import Probs, Weights
from common.filters.base import LiveFilter, mean_of_valid
from common.settings import Fraction


class SelfAdaptive(LiveFilter):
    """Keep a pixel whose confidence reaches the bound of its class [1].

    The bound of a class is the running mean of all confidences, lowered by how much less the class
    is predicted than the one predicted most. Both means begin at ``1 / K`` and move while training
    only.

    Departure: [1] counts images; pixels are many, so the means settle within fewer steps.

    [1] Wang et al., FreeMatch, ICLR 2023, arXiv:2205.07246.
    """

    name: Literal["self_adaptive"] = "self_adaptive"
    decay: Fraction = 0.999  # lambda

    def start(self, num_classes: int) -> nn.Module:
        return _Adapting(self, num_classes)


class _Adapting(nn.Module):
    confidence: Tensor  # (), tau
    share: Tensor  # (K,), p tilde

    def __init__(self, filter: SelfAdaptive, num_classes: int) -> None:
        super().__init__()
        self.decay = filter.decay
        self.register_buffer("confidence", torch.tensor(1 / num_classes))
        self.register_buffer("share", torch.full((num_classes,), 1 / num_classes))

    @torch.no_grad()
    def forward(self, probs: Probs, progress: float = 1.0) -> Weights:
        confidence, label = probs.max(dim=1)
        if self.training:
            some = (confidence > 0).any()
            for held, seen in (
                (self.confidence, mean_of_valid(confidence.unsqueeze(1), confidence > 0)[0]),
                (self.share, mean_of_valid(probs, confidence > 0)),
            ):
                held.lerp_(torch.where(some, seen, held).to(held.dtype), 1 - self.decay)
        bounds = self.confidence * self.share / self.share.amax()
        return (confidence >= bounds[label]).to(probs.dtype)
