"""Trust that grows with confidence, without a bound."""

from __future__ import annotations

from typing import Literal

from common.batch import Probs, Weights
from common.filters.base import Filter
from common.schedules import Weight, value_at


class ConfidencePower(Filter):
    """Weigh a pixel by its largest class probability to the power ``power`` [1].

    A larger power trusts no pixel more.

    [1] Hu et al., AEL, 2021, arXiv:2110.05474, where the power is 2.
    """

    name: Literal["confidence_power"] = "confidence_power"
    power: Weight = 2.0

    def __call__(self, probs: Probs, progress: float = 1.0) -> Weights:
        return probs.detach().amax(dim=1) ** value_at(self.power, progress)
