"""Trust from one threshold, lowered for the classes that few pixels reach."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from common.batch import Probs, Weights
from common.filters.base import LiveFilter
from common.settings import Fraction


class Flexible(LiveFilter):
    """Keep a pixel whose confidence reaches the threshold of its class [1].

    A class is learned as far as its pixels reach ``threshold``: their share, divided by that of the
    class with most of those, or of the pixels that reach it for no class, where these are more. Its
    threshold is ``threshold`` times ``b / (2 - b)``, with b from 0, not learned, to 1.

    Departure: [1] remembers the last prediction of every image; here running shares of pixels,
    which move while training only. Until some were seen, every pixel is kept, as in [1].

    [1] Zhang et al., FlexMatch, NeurIPS 2021, arXiv:2110.08263.
    """

    name: Literal["flexible"] = "flexible"
    threshold: Fraction = 0.95  # tau
    decay: Fraction = 0.99  # of the shares

    def start(self, num_classes: int) -> nn.Module:
        return _Learned(self, num_classes)


class _Learned(nn.Module):
    reached: Tensor  # (K,), sigma: share of the pixels that reach the threshold for each class

    def __init__(self, filter: Flexible, num_classes: int) -> None:
        super().__init__()
        self.filter = filter
        self.register_buffer("reached", torch.zeros(num_classes))

    @torch.no_grad()
    def forward(self, probs: Probs, progress: float = 1.0) -> Weights:
        confidence, label = probs.max(dim=1)
        if self.training:
            self._follow(confidence.flatten(), label.flatten())
        most = torch.maximum(self.reached.amax(), 1 - self.reached.sum())
        learned = self.reached / most.clamp_min(1e-12)  # beta
        bounds = self.filter.threshold * learned / (2 - learned)
        return (confidence >= bounds[label]).to(probs.dtype)

    def _follow(self, confidence: Tensor, label: Tensor) -> None:
        there = (confidence > 0).sum()
        sure = (confidence >= self.filter.threshold) & (confidence > 0)
        count = torch.zeros_like(self.reached, dtype=torch.long)
        count.index_add_(0, label, sure.long())
        seen = torch.where(there > 0, count / there.clamp_min(1), self.reached)
        self.reached.lerp_(seen, 1 - self.filter.decay)
