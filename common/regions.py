"""How right is each region of a prediction? Regions are the cells of a coarse grid.

A cell has so many pixels a side; where they do not divide the image, cells overlap a little.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from common.agreement import conflict
from common.batch import (
    IGNORE,
    Image,
    Labeled,
    Labels,
    Logits,
    Mask,
    Pseudo,
    Regions,
    Scalar,
    Unlabeled,
    Verdicts,
    Weights,
    most_probable,
)
from common.learners import Peers
from common.localizer import Localizer
from common.losses import TINY
from common.parts import coarser


class JudgedPeers(Peers):
    """Two peers, and for each a discriminator that judges its predictions."""

    def __init__(self, peers: Iterable[nn.Module], judges: Iterable[Localizer]) -> None:
        super().__init__(peers)
        self.judges = nn.ModuleList(judges)

    def verdicts(self, beliefs: Sequence[Logits], weak: Unlabeled, *, pixels: int) -> Verdicts:
        """How likely regions are right, by who judges and by whose prediction it is."""
        found = [
            judged(judge, weak.image, belief, weak.valid, pixels=pixels)
            for judge in self.judges
            for belief in beliefs
        ]
        rated = torch.stack(found).sigmoid()
        return rated.view(len(self.judges), len(beliefs), *rated.shape[1:])

    def judgements(self, said: Sequence[Logits], truth: Labeled, *, pixels: int) -> Scalar:
        """What each discriminator learns of what its peer said of labeled images, summed."""
        return torch.stack(
            [
                judgement(judge, truth.image, logits, truth.target, pixels=pixels)
                for judge, logits in zip(self.judges, said, strict=True)
            ]
        ).sum()


def judged(judge: nn.Module, image: Image, logits: Logits, where: Mask, *, pixels: int) -> Regions:
    """The log-odds that a pixel of each region is right.

    The mean of what ``judge`` says of the pixels of the region that are in ``where``, and 0 if
    there is none. No gradient flows back to ``logits``.

    Args:
        judge: Sees image and prediction.
        image: What was predicted.
        logits: The prediction.
        where: Which pixels count.
        pixels: Side of a region.
    """
    return region_means(judge(image, logits).float(), where, pixels=pixels)


def judgement(
    judge: nn.Module, image: Image, logits: Logits, target: Labels, *, pixels: int
) -> Scalar:
    """Cross-entropy of what a judge says of regions and the share of them that is right.

    The mean over annotated pixels: a region counts by how many it has. Without any, it is 0.

    Args:
        judge: Learns.
        image: What was predicted.
        logits: The prediction. Gets no gradient.
        target: The truth; a pixel with IGNORE has no say.
        pixels: Side of a region.
    """
    known = target != IGNORE
    verdict = judged(judge, image, logits, known, pixels=pixels)
    right = (most_probable(logits) == target).float()
    share = region_means(right, known, pixels=pixels)
    missed = F.binary_cross_entropy_with_logits(verdict, share, reduction="none")
    counts = _means(known.float(), pixels)
    return (missed * counts).sum() / counts.sum().clamp_min(TINY)


def disputed(first: Pseudo, second: Pseudo, *, pixels: int) -> Regions:
    """The share of each region in which the two name different classes; IGNORE has no say."""
    known = (first.target != IGNORE) & (second.target != IGNORE)
    return region_means(conflict(first, second).float(), known, pixels=pixels)


def pull(teacher: Regions, learner: Regions, dispute: Regions) -> Regions:
    """How much each region of a teacher counts for a learner, in [0, 1].

    ``1 - d + d t / (t + l)``: what both agree on counts fully; in what they dispute the more
    reliable one pulls harder, and both pulls add up to 1.

    Args:
        teacher: t, how reliable the teacher is, in [0, 1].
        learner: l, how reliable the learner is, in [0, 1].
        dispute: d, the share of the region in which they name different classes.
    """
    return 1 - dispute * learner / (teacher + learner).clamp_min(TINY)


def region_means(values: Weights, where: Mask, *, pixels: int) -> Regions:
    """The mean of each region over its pixels in ``where``; 0 if there is none."""
    inside = where.to(values.dtype)
    return _means(values * inside, pixels) / _means(inside, pixels).clamp_min(TINY)


def on_pixels(regions: Regions, like: Weights) -> Weights:
    """To each pixel what its region has, on the grid of ``like``."""
    return F.interpolate(regions.unsqueeze(1), like.shape[1:], mode="nearest").squeeze(1)


def _means(values: Weights, pixels: int) -> Regions:
    means: torch.Tensor = coarser(values.unsqueeze(1), pixels).squeeze(1)
    return means
