"""What a filter is."""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor, nn

from common.batch import Labels, Mask, PerClass, Probs, Reliability, Scalar, Weights
from common.calibration import HeldOut
from common.ranking import nth_largest
from common.settings import NonNegative, Positive, Settings


class Filter(Settings):
    """Decides how far each pixel of a prediction may be trusted.

    A filter is its settings plus :meth:`__call__`. Most are pure; one that learns while
    training is a :class:`LiveFilter`, and keeps what it learns in buffers, and its settings say
    what it says when called for the first time. A pixel without any probability, all zero, lies
    outside of the image: it has no say in what becomes of others.
    """

    name: str

    @abstractmethod
    def __call__(self, probs: Probs, progress: float = 1.0) -> Weights:
        """Turn class probabilities into weights in [0, 1], at ``progress`` of the training."""

    def unfit(self, num_classes: int) -> str:
        """Why it cannot judge so many classes, in a sentence; empty where it can, as most do."""
        return ""

    @property
    def learns(self) -> bool:
        """Whether what it says depends on what it saw while a run trained."""
        return False

    def start(self, num_classes: int) -> nn.Module:
        """The live filter for one run: a module, probabilities to weights."""
        return _Pure(self)


class LiveFilter(Filter):
    """A filter whose say is that of its live module, because that remembers or keeps tensors."""

    @property
    def learns(self) -> bool:
        """As most of these do."""
        return True

    def __call__(self, probs: Probs, progress: float = 1.0) -> Weights:
        """As the first batch of a run is judged."""
        weights: Weights = self.start(probs.shape[1]).to(probs.device)(probs, progress)
        return weights

    @abstractmethod
    def start(self, num_classes: int) -> nn.Module:
        """The live filter for one run: a module, probabilities to weights."""


class CalibratedFilter(Filter):
    """Keeps a pixel whose confidence reaches the threshold of its class, set by held-out cases.

    These are the validation cases, looked at every ``every`` steps; without any, the labeled
    cases are cut into ``folds``, and before the training each fold is judged by a network that
    learned from the others. The same cases tell which classes are poor, for ``oversampling``.
    """

    oversampling: NonNegative = 0.0  # lambda of CAFS, 10 there; 0 sees labeled cases equally often
    every: Positive = 500  # optimizer steps
    folds: Positive = 4  # at most one for each labeled case
    fold_steps: Positive = 300  # of supervised training, for each fold

    @property
    def learns(self) -> bool:
        """From held-out cases."""
        return True

    @property
    @abstractmethod
    def at_first(self) -> float:
        """The threshold of every class before any calibration."""

    @abstractmethod
    def thresholds(self, found: Reliability) -> PerClass:
        """The threshold of each class, by what became of predictions on held-out cases."""

    def __call__(self, probs: Probs, progress: float = 1.0) -> Weights:
        """As before any calibration."""
        return (probs.amax(dim=1) >= self.at_first).to(probs.dtype)

    def start(self, num_classes: int) -> Calibrated:
        return Calibrated(self, num_classes)


class Calibrated(nn.Module):
    """The live filter: its thresholds travel with checkpoints, and what oversampling rests on."""

    thresholds: Tensor  # (K,)
    confusion: Tensor | None  # (K, K) pixels of held-out cases; None where nobody asks for them

    def __init__(self, filter: CalibratedFilter, num_classes: int) -> None:
        super().__init__()
        self.filter = filter
        self.register_buffer("thresholds", torch.full((num_classes,), filter.at_first))
        none_yet = torch.zeros(num_classes, num_classes, dtype=torch.int64)
        self.register_buffer("confusion", none_yet if filter.oversampling > 0 else None)

    def forward(self, probs: Probs, progress: float = 1.0) -> Weights:
        confidence, label = probs.max(dim=1)
        return (confidence >= self.thresholds[label]).to(probs.dtype)

    @torch.no_grad()
    def calibrate(self, found: HeldOut) -> None:
        """Set the thresholds by what became of predictions on held-out cases."""
        self.thresholds.copy_(self.filter.thresholds(found.reliability))
        if self.confusion is not None:
            self.confusion.copy_(found.confusion)


def normalized_entropy(probs: Probs) -> Weights:
    """Entropy over classes: 0 for certainty, 1 for a tie."""
    nats = -(probs * probs.clamp_min(1e-12).log()).sum(dim=1)
    return (nats / math.log(probs.shape[1])).clamp(0, 1)  # rounding can pass 1


class SeesLabels(nn.Module):
    """A live filter, or a part of one, that is shown the labels of each batch in training."""

    def see(self, target: Labels) -> None:
        """Look at labels, IGNORE where nobody annotated."""
        raise NotImplementedError


def mean_of_valid(values: Probs, there: Mask) -> PerClass:
    """The mean of each channel over the pixels that are there; 0 where none is."""
    inside = there.unsqueeze(1).to(values.dtype)
    total = (values * inside).transpose(0, 1).flatten(1).sum(dim=1)
    return total / inside.sum().clamp_min(1)


def least_left(certainty: Weights, there: Mask, dropped: float) -> Scalar:
    """The least certainty that is left when the share ``dropped`` is gone, the least certain first.

    Of ``n`` pixels ``there``, ``floor(dropped * n)`` go; where none is left, it is ``inf``. Exact.
    """
    count = there.sum()
    return nth_largest(certainty, there, count - (count * dropped).floor().long())


class _Pure(nn.Module):
    def __init__(self, filter: Filter) -> None:
        super().__init__()
        self.filter = filter

    def forward(self, probs: Probs, progress: float = 1.0) -> Weights:
        weights: Weights = self.filter(probs, progress)
        return weights
