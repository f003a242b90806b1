"""Trust where no second class comes near."""

from __future__ import annotations

from typing import Literal

from common.batch import Probs, Weights
from common.filters.base import Filter
from common.schedules import Share, value_at


class Margin(Filter):
    """Keep a pixel whose largest probability leads the second largest by ``threshold``.

    A higher threshold keeps no more. With two classes it is a threshold on confidence.
    """

    name: Literal["margin"] = "margin"
    threshold: Share = 0.7

    def __call__(self, probs: Probs, progress: float = 1.0) -> Weights:
        first, second = probs.topk(2, dim=1).values.unbind(dim=1)
        return (first - second >= value_at(self.threshold, progress)).to(probs.dtype)
