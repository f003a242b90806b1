"""Trust what the model is sure of."""

from __future__ import annotations

from typing import Literal

from common.batch import Probs, Weights
from common.filters.base import Filter
from common.schedules import Share, value_at


class Confidence(Filter):
    """Keep a pixel whose largest class probability reaches ``threshold`` [1].

    A higher threshold keeps no more.

    [1] Sohn et al., FixMatch, 2020, arXiv:2001.07685, Eq. 4.
    """

    name: Literal["confidence"] = "confidence"
    threshold: Share = 0.95  # tau

    def __call__(self, probs: Probs, progress: float = 1.0) -> Weights:
        return (probs.amax(dim=1) >= value_at(self.threshold, progress)).to(probs.dtype)
