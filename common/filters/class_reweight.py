"""Trust rare classes more than common ones."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from common.balance import Rarity
from common.batch import IGNORE, Probs, Weights
from common.filters.base import LiveFilter
from common.settings import Fraction


class ClassReweight(LiveFilter):
    """Weigh a pixel by how rare the class is that is predicted there [1].

    The weight of a class is the logarithm of how many times more pixels the most frequent class
    has, over that of the rarest class: 1 for the rarest, next to nothing for the most frequent. It
    follows what is predicted, batch by batch, while training only.

    As a filter it weighs what unlabeled images teach; the method ``dhc`` also weighs labels so, and
    by difficulty.

    [1] Wang and Li, DHC, MICCAI 2023, arXiv:2307.11960, Eq. 1.
    """

    name: Literal["class_reweight"] = "class_reweight"
    decay: Fraction = 0.99  # beta

    def start(self, num_classes: int) -> nn.Module:
        return _ByRarity(self)


class _ByRarity(nn.Module):
    def __init__(self, filter: ClassReweight) -> None:
        super().__init__()
        self.rarity = Rarity(filter.decay)

    @torch.no_grad()
    def forward(self, probs: Probs, progress: float = 1.0) -> Weights:
        confidence, label = probs.max(dim=1)
        if self.training:
            self.rarity(torch.where(confidence > 0, label, IGNORE), probs.shape[1])
        return self.rarity.average[label].to(probs.dtype)
