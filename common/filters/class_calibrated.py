"""Trust each class from the confidence on at which it was seen to be right."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from common.batch import PerClass, Reliability
from common.calibration import class_thresholds
from common.filters.base import CalibratedFilter
from common.settings import Fraction


class ClassCalibrated(CalibratedFilter):
    """Keep a pixel whose confidence reaches the threshold of its class [1].

    Thresholds lie between ``low`` and ``high``: the better a class keeps what its confidence
    promises on labeled cases that do not train, the lower. These are the validation cases, looked
    at every ``every`` steps; without any, the labeled cases are cut into ``folds``, and before
    the training each fold is judged by a network that learned from the others.

    The same cases tell which classes are poor: their IoU lies below the mean over classes, the
    background left out. With ``oversampling`` above 0 a labeled case is seen
    ``ceil(oversampling * (mean - IoU))`` times more for each poor class it shows [1]. Seen more
    is the whole case, not the places of the class in it: where all labeled cases show the same
    poor classes, nothing changes.

    [1] CAFS, 2023, after its released thresholds and its oversampling of classes; the rule that
    sets the thresholds is ours, as the authors released none.
    """

    name: Literal["class_calibrated"] = "class_calibrated"
    low: Fraction = 0.85
    high: Fraction = 0.95
    tolerance: Fraction = 0.01  # by how much a class may miss its promise

    @model_validator(mode="after")
    def _low_is_low(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low {self.low:g} lies above high {self.high:g}. Swap them.")
        return self

    @property
    def at_first(self) -> float:
        return self.high

    def thresholds(self, found: Reliability) -> PerClass:
        return class_thresholds(found, self.low, self.high, tolerance=self.tolerance)
