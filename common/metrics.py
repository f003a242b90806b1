"""Numbers from one confusion matrix, in any number of dimensions, and of pseudo-labels.

Accumulate matrices over cases and measure once: the mean of per-image ratios is another number.
``n[i, j]`` counts the pixels of class ``i`` that were predicted as ``j``; ``t[i]`` is the sum of
row ``i`` (truth), ``p[j]`` of column ``j`` (prediction) [1].

[1] Ran et al., Semi-supervised semantic segmentation based on pseudo-labels: a survey, 2024,
    arXiv:2403.01909, on metrics.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from common.batch import IGNORE, ClassVolume, Confusion, Grid, PerClass, TrustMap, most_probable
from common.errors import ShapeError


def confusion(predicted: Grid, truth: Grid, num_classes: int) -> Confusion:
    """Count pixels by true class (rows) and predicted class (columns); IGNORE is left out.

    Raises:
        ShapeError: When the grids differ, or a counted pixel holds no class.
    """
    if predicted.shape != truth.shape:
        raise ShapeError(
            f"prediction {tuple(predicted.shape)} and truth {tuple(truth.shape)} must share a grid."
        )
    known = truth != IGNORE
    rows, columns = truth[known].long(), predicted[known].long()
    for name, index in (("truth", rows), ("prediction", columns)):
        if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < num_classes:
            raise ShapeError(
                f"the {name} holds classes {int(index.min())} to {int(index.max())}; expected "
                f"0..{num_classes - 1}, or IGNORE={IGNORE} in the truth. Remap it."
            )
    pairs = rows * num_classes + columns
    return torch.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def pixel_accuracy(counts: Confusion) -> float:
    """PA: the share of pixels that are right; NaN without pixels."""
    n = counts.double()
    return float(n.trace() / n.sum())


def mean_accuracy(counts: Confusion) -> float:
    """MA: the mean producer's accuracy of the classes that the truth holds."""
    return float(producers_accuracy(counts).nanmean())


def iou(counts: Confusion) -> PerClass:
    """Intersection over union of each class.

    NaN for a class in neither truth nor prediction; 0 for one that is only predicted.
    """
    n = counts.double()
    return n.diagonal() / (n.sum(dim=1) + n.sum(dim=0) - n.diagonal())


def miou(counts: Confusion) -> float:
    """The mean IoU of the classes in truth or prediction."""
    return float(iou(counts).nanmean())


def fwiou(counts: Confusion) -> float:
    """The IoU of the classes weighted by their share of the truth; equal shares give mIoU."""
    share = counts.double().sum(dim=1) / counts.sum()
    return float(torch.where(share == 0, 0.0, share * iou(counts)).sum())


def f1(counts: Confusion) -> PerClass:
    """F1 (Dice) of each class, with the edges of :func:`iou`."""
    n = counts.double()
    return 2 * n.diagonal() / (n.sum(dim=1) + n.sum(dim=0))


def kappa(counts: Confusion) -> float:
    """Cohen's kappa: agreement beyond chance [1]; NaN where all is one class on both sides.

    [1] Cohen, A coefficient of agreement for nominal scales, 1960.
    """
    n = counts.double()
    total = n.sum()
    by_chance = (n.sum(dim=1) * n.sum(dim=0)).sum() / total**2
    return float((n.trace() / total - by_chance) / (1 - by_chance))


def producers_accuracy(counts: Confusion) -> PerClass:
    """Recall: which share of a class was found; NaN for a class that the truth lacks."""
    n = counts.double()
    return n.diagonal() / n.sum(dim=1)


def users_accuracy(counts: Confusion) -> PerClass:
    """Precision: which share of a predicted class is right; NaN for a class never predicted."""
    n = counts.double()
    return n.diagonal() / n.sum(dim=0)


@dataclass(frozen=True, slots=True)
class PseudoQuality:
    """How much of each predicted class is kept, and how much of that is right.

    Qualities add: the sum over cases is the quality of all their pixels together.
    """

    predicted: PerClass  # pixels with known truth, by predicted class
    kept: PerClass  # their trust
    right: PerClass  # the trust of those that are right

    def __add__(self, other: PseudoQuality) -> PseudoQuality:
        """The quality of both sets of pixels together."""
        return PseudoQuality(
            self.predicted + other.predicted, self.kept + other.kept, self.right + other.right
        )

    @property
    def coverage(self) -> PerClass:
        """Trust per predicted pixel, in [0, 1]; NaN for a class never predicted."""
        return self.kept / self.predicted

    @property
    def precision(self) -> PerClass:
        """The share of the kept trust that is right; NaN for a class of which nothing is kept."""
        return self.right / self.kept


def pseudo_quality(probs: ClassVolume, weight: TrustMap, truth: Grid) -> PseudoQuality:
    """Judge the pseudo-labels of one case where its hidden truth is known.

    Args:
        probs: Class probabilities ``(K, *S)``.
        weight: Trust ``(*S)`` in [0, 1]; 0 drops the pixel.
        truth: Class indices ``(*S)``; IGNORE is left out.
    """
    known = truth != IGNORE
    label, trust, right = most_probable(probs, dim=0)[known], weight[known].double(), truth[known]
    num_classes = probs.shape[0]
    return PseudoQuality(
        predicted=torch.bincount(label, minlength=num_classes).double(),
        kept=torch.bincount(label, trust, num_classes).double(),  # of no pixel: whole
        right=torch.bincount(label, trust * (label == right), num_classes).double(),
    )
