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
    Labels,
    Logits,
    Mask,
    PerClass,
    Probs,
    Pseudo,
    Scalar,
    SoftPseudo,
    Weights,
    one_hot,
)
from common.settings import NonNegative, Settings

TINY = 1e-6
"""Keeps a divisor that may be nothing from being 0; small against any that is something."""


class Loss(Settings):
    """Judges logits against labels, pixel by pixel, each weighted in [0, 1]."""

    @abstractmethod
    def __call__(
        self,
        logits: Logits,
        target: Labels,
        weight: Weights,
        *,
        importance: PerClass | None = None,
    ) -> Scalar:
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

    def __call__(
        self,
        logits: Logits,
        target: Labels,
        weight: Weights,
        *,
        importance: PerClass | None = None,
    ) -> Scalar:
        per_pixel = F.cross_entropy(logits.float(), target, ignore_index=IGNORE, reduction="none")
        known = target != IGNORE
        if importance is None:
            return (per_pixel * weight).sum() / known.sum().clamp_min(1)
        counts = importance[torch.where(known, target, 0)] * known
        return (per_pixel * weight * counts).sum() / counts.sum().clamp_min(TINY)


class Dice(Loss):
    """One minus the soft Dice overlap of the batch, averaged over the classes present [1].

    A pixel enters both numerator and denominator by its weight, so the divisor is the kept
    pixels: unlike cross-entropy, the loss does not shrink when a filter keeps little.

    [1] Milletari et al., V-Net, 2016, arXiv:1606.04797, Sec. 3, without the squares.
    """

    name: Literal["dice"] = "dice"
    smooth: NonNegative = 1e-5

    def __call__(
        self,
        logits: Logits,
        target: Labels,
        weight: Weights,
        *,
        importance: PerClass | None = None,
    ) -> Scalar:
        probs = logits.float().softmax(dim=1)
        trust = (weight * (target != IGNORE)).unsqueeze(1)
        truth = one_hot(target, logits.shape[1]) * trust
        overlap, size = _per_class(probs * truth), _per_class(probs * trust + truth)
        present = (_per_class(truth) > 0).to(probs.dtype)
        dice = (2 * overlap + self.smooth) / (size + self.smooth)
        counts = present if importance is None else present * importance
        return ((1 - dice) * counts).sum() / counts.sum().clamp_min(TINY)


class CrossEntropyDice(Loss):
    """The sum of both: cross-entropy teaches every pixel, Dice every class [1].

    [1] Isensee et al., nnU-Net, 2021, arXiv:1809.10486.
    """

    name: Literal["cross_entropy_dice"] = "cross_entropy_dice"

    def __call__(
        self,
        logits: Logits,
        target: Labels,
        weight: Weights,
        *,
        importance: PerClass | None = None,
    ) -> Scalar:
        parts = CrossEntropy(), Dice()
        first, second = (part(logits, target, weight, importance=importance) for part in parts)
        return first + second


AnyLoss = Annotated[CrossEntropy | Dice | CrossEntropyDice, Field(discriminator="name")]
"""What a loss may be in a YAML file."""


def supervised(loss: Loss, logits: Logits, truth: Labeled) -> Scalar:
    """``loss`` against an annotation: every annotated pixel counts fully."""
    return loss(logits, truth.target, torch.ones_like(truth.target, dtype=torch.float32))


def pseudo_supervised(loss: Loss, logits: Logits, pseudo: Pseudo) -> Scalar:
    """``loss`` against a pseudo-label: every pixel counts as far as it is trusted."""
    return loss(logits, pseudo.target, pseudo.weight)


def consistency(logits: Logits, pseudo: SoftPseudo) -> Scalar:
    """Squared difference of class probabilities, averaged over classes and trust [1].

    The divisor is the sum of the weights: with every valid pixel trusted, the valid pixels.

    [1] Tarvainen and Valpola, Mean teachers, 2017, arXiv:1703.01780, Sec. 3.
    """
    return _squares(logits, pseudo) / pseudo.weight.sum().clamp_min(1)


def consistency_of_valid(logits: Logits, pseudo: SoftPseudo, valid: Mask) -> Scalar:
    """The same, but the divisor is all valid pixels, so that little trust makes a small loss [1].

    Trust is 0 where ``valid`` is False.

    [1] French et al., CutMix-Seg, 2020, arXiv:1906.01916, Sec. 3.4.
    """
    return _squares(logits, pseudo) / valid.sum().clamp_min(1)


def _squares(logits: Logits, pseudo: SoftPseudo) -> Scalar:
    per_pixel = (logits.float().softmax(dim=1) - pseudo.probs).square().mean(dim=1)
    return (per_pixel * pseudo.weight).sum()


def divergence(logits: Logits, pseudo: SoftPseudo) -> Scalar:
    """Kullback-Leibler divergence of the prediction from soft labels, averaged over trust [1].

    The divisor is the sum of the weights: with every valid pixel trusted, the valid pixels.

    [1] Zhang et al., Deep mutual learning, 2018, arXiv:1706.00384, Eq. 4.
    """
    per_pixel = divergence_map(logits, pseudo.probs)
    return (per_pixel * pseudo.weight).sum() / pseudo.weight.sum().clamp_min(1)


def divergence_map(logits: Logits, probs: Probs) -> Weights:
    """``KL(probs || softmax(logits))`` of each pixel, in nats."""
    return F.kl_div(logits.float().log_softmax(dim=1), probs, reduction="none").sum(dim=1)


def likeness(first: Tensor, second: Tensor, where: Mask) -> Scalar:
    """How alike two maps of features ``(B, F, *T)`` are, from 0, opposed, to 2, the same [1].

    One plus the cosine, the mean of both directions: each moves only one of the two. ``where``
    is on the grid of the image; a pixel of features counts by the share of True under it.

    [1] Wang et al., CCVC, CVPR 2023, arXiv:2303.01276, Sec. 3.2.
    """
    shares = F.interpolate(where.float().unsqueeze(1), first.shape[2:], mode="area").squeeze(1)
    first, second = first.float(), second.float()
    pairs = (first.detach(), second), (first, second.detach())
    cosines = torch.stack([F.cosine_similarity(*pair, dim=1, eps=1e-6) for pair in pairs])
    return ((1 + cosines.mean(dim=0)) * shares).sum() / shares.sum().clamp_min(TINY)


def complementary(logits: Logits, target: Labels, weight: Weights) -> Scalar:
    """Mean of ``-log(1 - p[target])``, weighted: rewards every class but ``target``.

    The divisor is the sum of the weights. A target IGNORE does not exist.
    """
    known = target != IGNORE
    named = one_hot(target, logits.shape[1]).bool()
    others = logits.float().masked_fill(named, -torch.inf).logsumexp(dim=1)
    trust = weight * known
    return ((logits.float().logsumexp(dim=1) - others) * trust).sum() / trust.sum().clamp_min(1)


def _per_class(pixels: Logits) -> torch.Tensor:
    return pixels.movedim(1, 0).flatten(1).sum(dim=1)
