"""Trust fewer pixels of the classes that the network is sure of anyway."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from common.batch import Probs, Weights
from common.filters.base import LiveFilter
from common.schedules import Weight, value_at
from common.settings import Fraction


class Equalized(LiveFilter):
    """Weigh a pixel by how far its class is from being sure, compared to the least sure class [1].

    The weight of class ``c`` is ``((1 - m_c) / max (1 - m))^power``, with ``m`` the running mean of
    the confidence where ``c`` is predicted: 1 for the least sure class. All begin alike, and move
    while training only. With a larger ``power`` no class weighs more.

    Departures: [1] draws pixels at that rate, here it is their weight, which is the same on
    average; ``m`` is there the mean probability of the true class on labeled images.

    [1] Hu et al., AEL, NeurIPS 2021, arXiv:2110.05474, adaptive equalization sampling.
    """

    name: Literal["equalized"] = "equalized"
    power: Weight = 1.0  # beta
    decay: Fraction = 0.99

    def start(self, num_classes: int) -> nn.Module:
        return _Equalizing(self, num_classes)


class _Equalizing(nn.Module):
    sure: Tensor  # (K,), m

    def __init__(self, filter: Equalized, num_classes: int) -> None:
        super().__init__()
        self.filter = filter
        self.register_buffer("sure", torch.full((num_classes,), 1 / num_classes))

    @torch.no_grad()
    def forward(self, probs: Probs, progress: float = 1.0) -> Weights:
        confidence, label = probs.max(dim=1)
        if self.training:
            self._follow(confidence.flatten(), label.flatten())
        need = (1 - self.sure).clamp_min(0)
        rate = torch.where(need.amax() > 0, need / need.amax().clamp_min(1e-12), 1.0)
        return (rate ** value_at(self.filter.power, progress))[label].to(probs.dtype)

    def _follow(self, confidence: Tensor, label: Tensor) -> None:
        nothing = torch.zeros_like(self.sure)
        total = nothing.index_add(0, label, confidence.to(nothing.dtype))
        count = nothing.index_add(0, label, (confidence > 0).to(nothing.dtype))
        seen = torch.where(count > 0, total / count.clamp_min(1), self.sure)
        self.sure.lerp_(seen, 1 - self.filter.decay)
