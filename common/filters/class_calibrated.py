"""Trust each class from the confidence on at which it was seen to be right."""

from __future__ import annotations

from typing import Literal, Self

import torch
from pydantic import model_validator
from torch import Tensor, nn

from common.batch import Probs, Weights
from common.calibration import HeldOut, class_thresholds
from common.filters.base import Filter
from common.settings import Fraction, NonNegative, Positive


class ClassCalibrated(Filter):
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
    oversampling: NonNegative = 0.0  # lambda, 10 in [1]; 0 sees all labeled cases equally often
    every: Positive = 500  # optimizer steps
    folds: Positive = 4  # at most one for each labeled case
    fold_steps: Positive = 300  # of supervised training, for each fold

    @model_validator(mode="after")
    def _low_is_low(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low {self.low:g} lies above high {self.high:g}. Swap them.")
        return self

    def __call__(self, probs: Probs, progress: float = 1.0) -> Weights:
        """As before any calibration: every class at ``high``."""
        return (probs.amax(dim=1) >= self.high).to(probs.dtype)

    def start(self, num_classes: int) -> Calibrated:
        return Calibrated(self, num_classes)


class Calibrated(nn.Module):
    """The live filter: its thresholds travel with checkpoints, and what oversampling rests on."""

    thresholds: Tensor  # (K,)
    confusion: Tensor | None  # (K, K) pixels of held-out cases; None where nobody asks for them

    def __init__(self, filter: ClassCalibrated, num_classes: int) -> None:
        super().__init__()
        self.filter = filter
        self.register_buffer("thresholds", torch.full((num_classes,), filter.high))
        none_yet = torch.zeros(num_classes, num_classes, dtype=torch.int64)
        self.register_buffer("confusion", none_yet if filter.oversampling > 0 else None)

    def forward(self, probs: Probs, progress: float = 1.0) -> Weights:
        confidence, label = probs.max(dim=1)
        return (confidence >= self.thresholds[label]).to(probs.dtype)

    @torch.no_grad()
    def calibrate(self, found: HeldOut) -> None:
        """Set the thresholds by what became of predictions on held-out cases."""
        rule = self.filter
        chosen = class_thresholds(found.reliability, rule.low, rule.high, tolerance=rule.tolerance)
        self.thresholds.copy_(chosen)
        if self.confusion is not None:
            self.confusion.copy_(found.confusion)
