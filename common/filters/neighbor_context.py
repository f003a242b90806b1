"""Trust what the neighbors confirm."""

from __future__ import annotations

import math
from typing import Literal

import torch

from common.batch import Probs, Weights
from common.filters.base import Filter, least_left
from common.neighborhoods import around, steps_within
from common.schedules import Linear, Share, value_at
from common.settings import Fraction

BETA = math.exp(-0.5)


class NeighborContext(Filter):
    """Keep a pixel whose margin, refined by its neighbors, leads those of the share ``dropped``.

    Each class probability ``p`` becomes that of the union of two events, of the pixel and of the
    neighbor, among those that share a side, where the class is most probable, ``n``:
    ``p + b n - b max(p n, p agreement)``, ``b = exp(-1/2)`` [1]. The bound is the percentile of
    the margins, between the two most probable classes, as they were before. So an unsure pixel
    amid sure ones of its class is kept, and one whose neighbors object is not; a larger share
    keeps no more, and 0 keeps everything. The label stays that of the unrefined probabilities, as
    in [1]: this judges, and is no refiner.

    Departures: [1] measures ``agreement``, how often a neighbor shares the class, on the labels,
    per class; here it is one number, for a filter sees no labels. Neighbors are those of the grid,
    whatever the size of its pixels.

    [1] Kimhi et al., S4MC, 2023, arXiv:2308.13900, and the authors' code.
    """

    name: Literal["neighbor_context"] = "neighbor_context"
    dropped: Share = Linear(start=0.4, end=0.0)
    agreement: Fraction = 0.98

    def __call__(self, probs: Probs, progress: float = 1.0) -> Weights:
        dropped = value_at(self.dropped, progress)
        if dropped == 0:
            return torch.ones_like(probs[:, 0])
        there = probs.sum(dim=1) > 0
        bound = least_left(_margin(probs), there, dropped)
        return (_margin(self.refined(probs)) >= bound).to(probs.dtype)

    def refined(self, probs: Probs) -> Probs:
        """``probs`` after their neighbors were heard; they need not sum to 1."""
        dims = probs.ndim - 2
        best = torch.zeros_like(probs)
        for theirs in around(probs, steps_within(1.0, [1.0] * dims)):
            best = torch.maximum(best, theirs)
        both = torch.maximum(probs * best, probs * self.agreement)
        return probs + BETA * (best - both)


def _margin(probs: Probs) -> Weights:
    first, second = probs.topk(2, dim=1).values.unbind(dim=1)
    return first - second
