"""Trust each class from the confidence on at which few of its pixels can be wrong."""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import model_validator

from common.batch import PerClass, Reliability
from common.calibration import bounded_thresholds
from common.filters.base import CalibratedFilter
from common.settings import Fraction, Positive


class Conformal(CalibratedFilter):
    """Keep a pixel if, from its confidence on, at most ``alpha`` of its class are wrong [1].

    The threshold of a class is tested on labeled cases that do not train: down from the highest
    step of 0.01 that ``fewest`` pixels of the class reach, as long as the upper bound on the
    share of wrong ones, exact for a binomial count at confidence 1 - ``delta``, is at most
    ``alpha``. A class that fails at once or reaches nowhere so many pixels is dropped in full, as
    all are before the first test. A smaller ``alpha`` or ``delta`` keeps no more. Which cases
    these are, and what follows for poor classes, is as with ``class_calibrated``.

    The bound is an optimistic one. It counts pixels as if they were independent, but pixels of one
    case err together; counting cases would be honest, but takes 45 of them without any mistake
    for the defaults. It speaks of each class alone and of the network that was tested, which
    learned from what earlier tests on the same cases let through, or came from a fold.

    [1] Angelopoulos et al., Learn then Test, 2021, arXiv:2110.01052, fixed-sequence testing; the
    use on pixels by class, and ``fewest``, are ours.
    """

    name: Literal["conformal"] = "conformal"
    alpha: Fraction = 0.05
    delta: Fraction = 0.1
    fewest: Positive = 1000  # pixels of a class, in the first test

    @model_validator(mode="after")
    def _can_be_passed(self) -> Self:
        if (1 - self.alpha) ** self.fewest > self.delta:
            raise ValueError(
                f"{self.fewest} pixels without a mistake do not show that at most alpha "
                f"{self.alpha:g} are wrong, at confidence 1 - delta = {1 - self.delta:g}. Raise "
                "fewest, alpha or delta."
            )
        return self

    @property
    def at_first(self) -> float:
        return math.inf

    def thresholds(self, found: Reliability) -> PerClass:
        return bounded_thresholds(found, self.alpha, delta=self.delta, fewest=self.fewest)
