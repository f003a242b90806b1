"""Losses over ``(B, K, *S)`` logits, for any number of spatial axes.

One rule serves truth and pseudo-labels alike: a pixel counts by its weight, and a pixel
whose target is IGNORE does not exist.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from common.batch import (
    IGNORE,
    Labeled,
    Logits,
    PerClass,
    Probs,
    Pseudo,
    Scalar,
    Weights,
    one_hot,
)
from common.settings import Fraction, NonNegative, Settings

TINY = 1e-6
"""Keeps a divisor that may be nothing from being 0; small against any that is something."""


class Loss(Settings):
    """Judges logits against labels, pixel by pixel, each weighted in [0, 1]."""

    @abstractmethod
    def __call__(self, logits: Logits, label: Pseudo, importance: PerClass | None = None) -> Scalar:
        """A scalar; 0 where every weight is 0 or every target is IGNORE.

        With ``importance``, one number from 0 up for each class, it becomes an average in which
        classes count that much. Only their ratios matter; equal ones change nothing.
        """


class CrossEntropy(Loss):
    """Weighted cross-entropy, averaged over all pixels that are not IGNORE.

    Dropped pixels (weight 0) count in the divisor, so a timid filter makes a small loss [1].

    [1] Sohn et al., FixMatch, 2020, arXiv:2001.07685, Eq. 4.
    """

    name: Literal["cross_entropy"] = "cross_entropy"

    def __call__(self, logits: Logits, label: Pseudo, importance: PerClass | None = None) -> Scalar:
        return _average(_missed(logits, label), label, importance)


class Dice(Loss):
    """One minus the soft Dice overlap of the batch, averaged over the classes present [1].

    A pixel enters both numerator and denominator by its weight, so the divisor is the kept
    pixels: unlike cross-entropy, the loss does not shrink when a filter keeps little.

    [1] Milletari et al., V-Net, 2016, arXiv:1606.04797, Sec. 3, without the squares.
    """

    name: Literal["dice"] = "dice"
    smooth: NonNegative = 1e-5

    def __call__(self, logits: Logits, label: Pseudo, importance: PerClass | None = None) -> Scalar:
        probs, truth, trust = _compared(logits, label)
        overlap, size = per_class(probs * truth), per_class(probs * trust + truth)
        lost = 1 - (2 * overlap + self.smooth) / (size + self.smooth)
        return _over_classes(lost, truth, importance)


class CrossEntropyDice(Loss):
    """The sum of both: cross-entropy teaches every pixel, Dice every class [1].

    [1] Isensee et al., nnU-Net, 2021, arXiv:1809.10486.
    """

    name: Literal["cross_entropy_dice"] = "cross_entropy_dice"

    def __call__(self, logits: Logits, label: Pseudo, importance: PerClass | None = None) -> Scalar:
        return CrossEntropy()(logits, label, importance) + Dice()(logits, label, importance)


class GeneralizedCrossEntropy(Loss):
    """``(1 - p^q) / q`` of the labeled class: cross-entropy as q nears 0, absolute error at 1 [1].

    A pixel that contradicts its label pulls the less, the larger q. Divisor: as cross-entropy.

    [1] Zhang and Sabuncu, Generalized cross entropy, 2018, arXiv:1805.07836, Eq. 6.
    """

    name: Literal["generalized_cross_entropy"] = "generalized_cross_entropy"
    q: Annotated[float, Field(gt=0, le=1)] = 0.7

    def __call__(self, logits: Logits, label: Pseudo, importance: PerClass | None = None) -> Scalar:
        lost = -torch.expm1(-self.q * _missed(logits, label)) / self.q
        return _average(lost, label, importance)


class SymmetricCrossEntropy(Loss):
    """Cross-entropy of the prediction and, the other way round, of the label [1].

    ``log 0`` of the label is set to ``log_zero``, so the second term is the absolute error times
    that. Divisor: as cross-entropy.

    [1] Wang et al., Symmetric cross entropy, 2019, arXiv:1908.06112, Eq. 7.
    """

    name: Literal["symmetric_cross_entropy"] = "symmetric_cross_entropy"
    alpha: NonNegative = 0.1  # of cross-entropy
    beta: NonNegative = 1.0  # of its reverse
    log_zero: Annotated[float, Field(lt=0)] = -4.0  # A

    def __call__(self, logits: Logits, label: Pseudo, importance: PerClass | None = None) -> Scalar:
        missed = _missed(logits, label)
        reverse = self.log_zero * torch.expm1(-missed)
        return _average(self.alpha * missed + self.beta * reverse, label, importance)


class Bootstrapping(Loss):
    """Cross-entropy against a label that is mixed with the prediction itself [1].

    ``beta`` of the label and ``1 - beta`` of the class probabilities, through which no gradient
    flows. Divisor: as cross-entropy.

    [1] Reed et al., Bootstrapping, 2014, arXiv:1412.6596, Eq. 6 (soft).
    """

    name: Literal["bootstrapping"] = "bootstrapping"
    beta: Fraction = 0.95

    def __call__(self, logits: Logits, label: Pseudo, importance: PerClass | None = None) -> Scalar:
        log_probs = logits.float().log_softmax(dim=1)
        own = -(log_probs.detach().exp() * log_probs).sum(dim=1) * (label.target != IGNORE)
        lost = self.beta * _missed(logits, label) + (1 - self.beta) * own
        return _average(lost, label, importance)


class NegativeLearning(Loss):
    """``-log(1 - p)`` of a class that the label does not name, drawn anew for each pixel [1].

    To say what a pixel is not is right more often than to say what it is. Divisor: as
    cross-entropy.

    [1] Kim et al., NLNL, 2019, arXiv:1908.07387, Eq. 2.
    """

    name: Literal["negative_learning"] = "negative_learning"

    def __call__(self, logits: Logits, label: Pseudo, importance: PerClass | None = None) -> Scalar:
        classes, known = logits.shape[1], label.target != IGNORE
        further = torch.randint_like(label.target, 1, classes)
        other = torch.where(known, (label.target + further) % classes, 0).unsqueeze(1)
        log_probs = logits.float().log_softmax(dim=1)
        rest = log_probs.scatter(1, other, -torch.inf).logsumexp(dim=1)
        return _average(-rest * known, label, importance)


class NoiseRobustDice(Loss):
    """Dice whose errors count by the power ``gamma``: 2 is Dice with squares, 1 absolute error [1].

    Averaged over the classes present. Divisor: as Dice.

    [1] Wang et al., COPLE-Net, IEEE TMI 2020, doi:10.1109/TMI.2020.3000314, Eq. 3.
    """

    name: Literal["noise_robust_dice"] = "noise_robust_dice"
    gamma: Annotated[float, Field(ge=1, le=2)] = 1.5
    smooth: NonNegative = 1e-5

    def __call__(self, logits: Logits, label: Pseudo, importance: PerClass | None = None) -> Scalar:
        probs, truth, trust = _compared(logits, label)
        hit = one_hot(label.target, logits.shape[1])
        # A power below 2 of exactly 0 has no second derivative, and of 1 no first: stay above.
        errors = ((probs - hit).abs().clamp_min(TINY) ** self.gamma) * trust
        size = per_class(probs.square() * trust + truth)
        lost = per_class(errors) / (size + self.smooth)
        return _over_classes(lost, truth, importance)


AnyLoss = Annotated[
    CrossEntropy
    | Dice
    | CrossEntropyDice
    | GeneralizedCrossEntropy
    | SymmetricCrossEntropy
    | Bootstrapping
    | NegativeLearning
    | NoiseRobustDice,
    Field(discriminator="name"),
]
"""What a loss may be in a YAML file."""


def supervised(
    loss: Loss, logits: Logits, truth: Labeled, importance: PerClass | None = None
) -> Scalar:
    """``loss`` against an annotation: every annotated pixel counts fully."""
    fully = torch.ones_like(truth.target, dtype=torch.float32)
    return loss(logits, Pseudo(truth.target, fully), importance)


def _missed(logits: Logits, label: Pseudo) -> Weights:
    """``-log p`` of the labeled class of each pixel; 0 where the label is IGNORE."""
    return F.cross_entropy(logits.float(), label.target, ignore_index=IGNORE, reduction="none")


def _average(lost: Weights, label: Pseudo, importance: PerClass | None) -> Scalar:
    """The weighted sum over all pixels that are not IGNORE, kept or not."""
    known = label.target != IGNORE
    if importance is None:
        return (lost * label.weight).sum() / known.sum().clamp_min(1)
    counts = importance[torch.where(known, label.target, 0)] * known
    return (lost * label.weight * counts).sum() / counts.sum().clamp_min(TINY)


def _compared(logits: Logits, label: Pseudo) -> tuple[Probs, Probs, Tensor]:
    """Class probabilities, the label as such times its trust, and that trust ``(B, 1, *S)``."""
    trust = (label.weight * (label.target != IGNORE)).unsqueeze(1)
    return logits.float().softmax(dim=1), one_hot(label.target, logits.shape[1]) * trust, trust


def _over_classes(lost: PerClass, truth: Probs, importance: PerClass | None) -> Scalar:
    """The mean over the classes that are present."""
    present = (per_class(truth) > 0).to(lost.dtype)
    counts = present if importance is None else present * importance
    return (lost * counts).sum() / counts.sum().clamp_min(TINY)


def per_class(pixels: Logits) -> torch.Tensor:
    """The sum of each channel over batch and space, ``(K,)``."""
    return pixels.movedim(1, 0).flatten(1).sum(dim=1)
