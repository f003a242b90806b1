"""Trust from a bound on that moves with how sure the network is."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from common.batch import PerClass, Probs, Scalar, Weights
from common.filters.base import LiveFilter
from common.settings import Fraction


class EmaGlobal(LiveFilter):
    """Keep a pixel whose confidence reaches a bound that follows the surest pixels [1].

    Each batch moves the bound towards the mean, over the classes predicted in it, of the largest
    confidence in each. It moves while training only; before, it is ``start_at``.

    Departure: the authors' code [2] reads 21 classes and loses its bound with each restart.

    [1] Sun et al., CorrMatch, CVPR 2024, arXiv:2306.04300, Sec. 3.4.
    [2] github.com/BBBBchan/CorrMatch, util/thresh_helper.py.
    """

    name: Literal["ema_global"] = "ema_global"
    start_at: Fraction = 0.85  # tau_0
    decay: Fraction = 0.999  # lambda

    def start(self, num_classes: int) -> nn.Module:
        return _Moving(self)


class _Moving(nn.Module):
    bound: Tensor  # ()

    def __init__(self, filter: EmaGlobal) -> None:
        super().__init__()
        self.decay = filter.decay
        self.register_buffer("bound", torch.tensor(filter.start_at))

    def forward(self, probs: Probs, progress: float = 1.0) -> Weights:
        if self.training:
            self._follow(probs)
        return (probs.amax(dim=1) >= self.bound).to(probs.dtype)

    @torch.no_grad()
    def _follow(self, probs: Probs) -> None:
        surest, found = surest_by_class(probs)
        seen = torch.where(found > 0, surest.sum() / found.clamp_min(1), self.bound)
        self.bound.lerp_(seen.to(self.bound.dtype), 1 - self.decay)


def surest_by_class(probs: Probs) -> tuple[PerClass, Scalar]:
    """The largest confidence of each class ``(K,)``, 0 where it is not predicted; how many are."""
    confidence, label = (each.flatten() for each in probs.max(dim=1))
    surest = probs.new_zeros(probs.shape[1]).scatter_reduce_(0, label, confidence, "amax")
    return surest, (surest > 0).sum().to(probs.dtype)
