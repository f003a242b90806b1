"""What a filter is."""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import nn

from common.batch import Mask, PerClass, Probs, Scalar, Weights
from common.settings import Settings


class Filter(Settings):
    """Decides how far each pixel of a prediction may be trusted.

    A filter is its settings plus :meth:`__call__`. Most are pure; one that learns while
    training overrides :meth:`start` and keeps what it learns in buffers, and its settings say
    what it says when called for the first time. A pixel without any probability, all zero, lies
    outside of the image: it has no say in what becomes of others.
    """

    name: str

    @abstractmethod
    def __call__(self, probs: Probs, progress: float = 1.0) -> Weights:
        """Turn class probabilities into weights in [0, 1], at ``progress`` of the training."""

    def unfit(self, num_classes: int) -> str:
        """Why it cannot judge so many classes, in a sentence; empty where it can, as most do."""
        return ""

    def start(self, num_classes: int) -> nn.Module:
        """The live filter for one run: a module, probabilities to weights."""
        return _Pure(self)


def normalized_entropy(probs: Probs) -> Weights:
    """Entropy over classes: 0 for certainty, 1 for a tie."""
    nats = -(probs * probs.clamp_min(1e-12).log()).sum(dim=1)
    return (nats / math.log(probs.shape[1])).clamp(0, 1)  # rounding can pass 1


def mean_of_valid(values: Probs, there: Mask) -> PerClass:
    """The mean of each channel over the pixels that are there; 0 where none is."""
    inside = there.unsqueeze(1).to(values.dtype)
    total = (values * inside).transpose(0, 1).flatten(1).sum(dim=1)
    return total / inside.sum().clamp_min(1)


def largest_left(values: Weights, there: Mask, dropped: float) -> Scalar:
    """The largest of the values that are left when the share ``dropped`` is gone, largest first.

    Of ``n`` values ``there``, ``floor(dropped * n)`` go; where none is left, it is ``-inf``. It
    is exact: one sort, on the device.
    """
    ordered = torch.where(there, values, torch.inf).flatten().sort().values
    count = there.sum()
    left = count - (count * dropped).floor().long()
    last = ordered.gather(0, (left - 1).clamp_min(0)[None])
    return torch.where(left > 0, last, -torch.inf).squeeze(0)


class _Pure(nn.Module):
    def __init__(self, filter: Filter) -> None:
        super().__init__()
        self.filter = filter

    def forward(self, probs: Probs, progress: float = 1.0) -> Weights:
        weights: Weights = self.filter(probs, progress)
        return weights
