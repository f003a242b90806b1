"""Trust what the model is not torn about."""

from __future__ import annotations

from typing import Literal

from common.batch import Probs, Weights
from common.filters.base import Filter, normalized_entropy
from common.schedules import Share, value_at


class Entropy(Filter):
    """Keep a pixel whose entropy is at most ``ceiling``, as a share of ``ln K`` [1].

    A higher ceiling keeps no less.

    [1] Yu et al., UA-MT, 2019, arXiv:1907.07034, Sec. 2.2, on one prediction and with
    ``ln K`` in place of the binary ``ln 2``.
    """

    name: Literal["entropy"] = "entropy"
    ceiling: Share = 0.5

    def __call__(self, probs: Probs, progress: float = 1.0) -> Weights:
        return (normalized_entropy(probs) <= value_at(self.ceiling, progress)).to(probs.dtype)
