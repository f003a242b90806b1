"""Trust what the model is sure of."""

from __future__ import annotations

from typing import Literal

from common.batch import Probs, Weights
from common.filters.base import Filter
from common.settings import Fraction


class Confidence(Filter):
    """Keep a pixel whose largest class probability reaches ``threshold`` [1].

    A higher threshold keeps no more.

    [1] Sohn et al., FixMatch, 2020, arXiv:2001.07685, Eq. 4.
    """

    name: Literal["confidence"] = "confidence"
    threshold: Fraction = 0.95  # tau

    def __call__(self, probs: Probs) -> Weights:
        return (probs.amax(dim=1) >= self.threshold).to(probs.dtype)
