"""How far a network's confidence can be believed, by class, from cases that did not train it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from scipy import stats

from common.batch import IGNORE, ClassVolume, Confusion, FewerSteps, Grid, PerClass, Reliability

BINS = 100
"""Steps of confidence, each 0.01 wide."""


class HeldOut(NamedTuple):
    """What became of predictions on cases that did not train."""

    reliability: Reliability
    confusion: Confusion


def pooled(found: Iterable[HeldOut]) -> HeldOut:
    """The pixels of several cases, or of several folds, as if they were of one."""
    reliabilities, confusions = zip(*found, strict=True)
    return HeldOut(torch.stack(reliabilities).sum(dim=0), torch.stack(confusions).sum(dim=0))


def reliability(probs: ClassVolume, truth: Grid, *, bins: int = BINS) -> Reliability:
    """What became of each confidence in one case: pixels, right ones and summed confidence.

    By predicted class and step of confidence; those of several cases add.

    Args:
        probs: Class probabilities ``(K, *S)``.
        truth: Class indices ``(*S)``; IGNORE is left out.
        bins: Steps from 0 to 1, each holding its lower end; the last holds 1 as well.
    """
    known = truth != IGNORE
    confidence, label = (each[known] for each in probs.max(dim=0))
    step = (confidence * bins).long().clamp(0, bins - 1)
    index = label * bins + step
    columns = (torch.ones_like(confidence), label == truth[known], confidence)
    size = probs.shape[0] * bins
    counts = [torch.bincount(index, each.double(), size) for each in columns]
    return torch.stack(counts).view(3, probs.shape[0], bins).float()


def from_each_step(found: Reliability) -> Reliability:
    """The same of all pixels of a step or a higher one: what a threshold there would keep."""
    kept: Reliability = found.double().flip(2).cumsum(2).flip(2)
    return kept


def coarser(found: Reliability, bins: int) -> FewerSteps:
    """The same in fewer steps, of which each takes equally many."""
    return found.view(*found.shape[:2], bins, -1).sum(dim=3)


def calibration_error(found: Reliability) -> PerClass:
    """ECE [1]: by how much confidence and the share of right pixels differ, step by step.

    The mean of the absolute differences, by pixels, for the pixels predicted as each class; NaN
    for a class never predicted.

    [1] Guo et al., On calibration of modern neural networks, ICML 2017, arXiv:1706.04599, Sec. 2.
    """
    pixels, right, promised = found.double()
    error: PerClass = (right - promised).abs().sum(dim=1) / pixels.sum(dim=1)
    return error


def threshold_for(
    found: Reliability, precision: float, *, steps: Sequence[int], least_coverage: float
) -> PerClass:
    """For each class the least confidence from which on ``precision`` of the pixels are right.

    NaN where no threshold that keeps ``least_coverage`` of the class, and a pixel, has it: what
    happens to a few pixels says nothing. A higher precision never lowers a threshold.

    Args:
        found: What became of predictions on held-out cases.
        precision: That is asked for, in [0, 1].
        steps: Of confidence that a threshold may lie at the lower end of, in order.
        least_coverage: Share of the class that must be kept.
    """
    places = torch.tensor(steps)
    kept = from_each_step(found)
    pixels, right, _ = kept[:, :, places]
    enough = (pixels >= least_coverage * kept[0].amax(dim=1, keepdim=True)) & (pixels > 0)
    holds = enough & (right >= precision * pixels)
    first = places[holds.float().argmax(dim=1)].double() / found.shape[2]
    return torch.where(holds.any(dim=1), first, torch.nan)


def class_thresholds(found: Reliability, low: float, high: float, *, tolerance: float) -> PerClass:
    """For each class the least confidence from which on it may be believed [1].

    A class may be believed from ``t`` on when, of the pixels predicted so with confidence ``t``
    or more, at least as many are right as their mean confidence promises, less ``tolerance``.
    A class that keeps no such promise, or is never predicted so surely, gets ``high``.

    [1] CAFS clips its thresholds to [low, high] and follows calibration; the rule itself was not
    released with the paper's code, so this one is ours.
    """
    pixels, right, promised = from_each_step(found)
    kept = (right + tolerance * pixels >= promised) & (pixels > 0)
    steps = torch.arange(round(low * BINS), round(high * BINS) + 1, device=found.device)
    kept = kept[:, steps.clamp_max(BINS - 1)]
    first = kept.float().argmax(dim=1)  # the first that holds
    chosen = torch.where(kept.any(dim=1), steps[first] / BINS, high)
    return chosen.clamp(low, high).float()


def bounded_thresholds(found: Reliability, alpha: float, *, delta: float, fewest: int) -> PerClass:
    """For each class the least confidence from which on it is shown to err seldom [1].

    Steps of confidence are tested one by one, from the highest that ``fewest`` pixels of the class
    reach or exceed, and the last one that passes before any fails is chosen. A step passes where
    so few mistakes, or fewer, had a chance of ``delta`` at most if each pixel were wrong with
    probability ``alpha``: where the upper Clopper-Pearson bound is ``alpha`` at most. Tests in a
    fixed order need no correction for their number, and where they start is settled by counts of
    predictions, not of mistakes.

    Returns:
        Thresholds; infinite for a class of which no step passes.

    [1] Angelopoulos et al., Learn then Test, 2021, arXiv:2110.01052.
    """
    pixels, right, _ = from_each_step(found.cpu())
    mistakes = (pixels - right).numpy()
    chance = torch.from_numpy(stats.binom.cdf(mistakes, pixels.numpy(), alpha))
    tested = pixels >= fewest
    passed = ((chance <= delta) | ~tested).flip(1).cummin(1).values.flip(1) & tested
    least = passed.float().argmax(dim=1)
    chosen = torch.where(passed.any(dim=1), least / BINS, torch.inf)
    return chosen.float().to(found.device)
