"""Trust from where a pixel stands among those of its class."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from common.batch import IGNORE, Labels, Probs, Weights
from common.filters.base import LiveFilter
from common.schedules import Linear, Weight, value_at
from common.settings import Positive


class Rank(LiveFilter):
    """Weigh a pixel by the rank ``r`` of its confidence in its class: ``2 / (1 + exp(-k r)) - 1``.

    The rank in [0, 1] is the share of quantiles of the confidences remembered for the class that
    lie below. So a rare class, never confident, teaches as much as a common one [1]. The memory
    holds evenly spaced pixels of the last batches and grows while training only. A larger
    ``steepness`` trusts no pixel less, and hardly tells apart the upper ranks. Before a class
    was seen it has no trust.

    [1] Huang et al., DWL, ISPRS 2024, doi:10.1016/j.isprsjprs.2024.04.010, and the authors' code
    github.com/zhu-xlab/DWL, utils/util.py.
    """

    name: Literal["rank"] = "rank"
    steepness: Weight = Linear(start=2.0, end=22.0)  # k
    quantiles: Positive = 20
    memory_batches: Positive = 50
    memory_pixels: Positive = 1024  # of each batch

    def start(self, num_classes: int) -> nn.Module:
        return _Remembering(self, num_classes)


class _Remembering(nn.Module):
    confidence: Tensor  # (batches, pixels)
    label: Tensor  # (batches, pixels), IGNORE where nothing is remembered
    turn: Tensor  # (1,), which batch is forgotten next

    def __init__(self, filter: Rank, num_classes: int) -> None:
        super().__init__()
        self.filter, self.num_classes = filter, num_classes
        shape = filter.memory_batches, filter.memory_pixels
        self.register_buffer("confidence", torch.zeros(shape))
        self.register_buffer("label", torch.full(shape, IGNORE))
        self.register_buffer("turn", torch.zeros(1, dtype=torch.long))

    @torch.no_grad()
    def forward(self, probs: Probs, progress: float = 1.0) -> Weights:
        confidence, label = probs.max(dim=1)
        if self.training:
            self._remember(confidence, label)
        passed = self._passed(confidence, label)
        steepness = value_at(self.filter.steepness, progress)
        return torch.tanh(passed * (steepness / 2))  # the logistic curve in full

    def _remember(self, confidence: Tensor, label: Tensor) -> None:
        chosen, fresh = _evenly_spaced(confidence.flatten() > 0, self.filter.memory_pixels)
        sure, named = confidence.flatten()[chosen], label.flatten()[chosen]
        self.confidence.index_copy_(0, self.turn, sure.to(self.confidence.dtype)[None])
        self.label.index_copy_(0, self.turn, torch.where(fresh, named, IGNORE)[None])
        self.turn.copy_((self.turn + 1) % self.filter.memory_batches)

    def _passed(self, confidence: Weights, label: Labels) -> Weights:
        """The share of the quantiles of its class that each pixel is above."""
        quantiles = self._quantiles().double()
        # one class after the other on one line, each two apart from the next
        apart = 2.0 * torch.arange(self.num_classes, device=label.device)
        line = (quantiles + apart).T.contiguous()
        below = torch.searchsorted(line.flatten(), confidence.double() + apart[label])
        return (below - label * len(quantiles)).to(confidence.dtype) / len(quantiles)

    def _quantiles(self) -> Tensor:
        """``(quantiles, K)``, each class's largest last; 1 for a class without memories."""
        confidence, label = self.confidence.flatten(), self.label.flatten()
        order = confidence.argsort()
        order = order[label[order].argsort(stable=True)]  # by class, then by confidence
        classes = torch.arange(self.num_classes, device=label.device)
        count = (label == classes[:, None]).sum(dim=1)
        first, share = count.cumsum(0) - count, self.filter.quantiles
        steps = torch.arange(1, share + 1, device=label.device)[:, None] / share
        places = first + (steps * (count - 1).clamp_min(0)).round().long()
        found = confidence[order[places.clamp_max(len(order) - 1)]]
        return torch.where(count > 0, found, 1.0)


def _evenly_spaced(there: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Indices ``(number,)`` of pixels that are ``there``, each once, and which of them count."""
    before = there.cumsum(0)
    total, wanted = before[-1], torch.arange(number, device=there.device)
    nth = torch.where(total > number, wanted * total // number, wanted)
    place = torch.searchsorted(before, nth + 1).clamp_max(len(there) - 1)
    return place, wanted < total
