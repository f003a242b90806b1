"""How far a network's confidence can be believed, by class, from cases that did not train it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from scipy import stats

from common.batch import IGNORE, ClassVolume, Confusion, Grid, PerClass, Reliability

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


def reliability(probs: ClassVolume, truth: Grid) -> Reliability:
    """What became of each confidence in one case: pixels, right ones and summed confidence.

    By predicted class and step of confidence; those of several cases add.

    Args:
        probs: Class probabilities ``(K, *S)``.
        truth: Class indices ``(*S)``; IGNORE is left out.
    """
    known = truth != IGNORE
    confidence, label = (each[known] for each in probs.max(dim=0))
    step = (confidence * BINS).long().clamp(0, BINS - 1)
    index = label * BINS + step
    columns = (torch.ones_like(confidence), label == truth[known], confidence)
    size = probs.shape[0] * BINS
    counts = [torch.bincount(index, each.double(), size) for each in columns]
    return torch.stack(counts).view(3, probs.shape[0], BINS).float()


def class_thresholds(found: Reliability, low: float, high: float, *, tolerance: float) -> PerClass:
    """For each class the least confidence from which on it may be believed [1].

    A class may be believed from ``t`` on when, of the pixels predicted so with confidence ``t``
    or more, at least as many are right as their mean confidence promises, less ``tolerance``.
    A class that keeps no such promise, or is never predicted so surely, gets ``high``.

    [1] CAFS clips its thresholds to [low, high] and follows calibration; the rule itself was not
    released with the paper's code, so this one is ours.
    """
    pixels, right, promised = _of_each_step_or_more(found)
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
    pixels, right, _ = _of_each_step_or_more(found.cpu())
    mistakes = (pixels - right).numpy()
    chance = torch.from_numpy(stats.binom.cdf(mistakes, pixels.numpy(), alpha))
    tested = pixels >= fewest
    passed = ((chance <= delta) | ~tested).flip(1).cummin(1).values.flip(1) & tested
    least = passed.float().argmax(dim=1)
    chosen = torch.where(passed.any(dim=1), least / BINS, torch.inf)
    return chosen.float().to(found.device)


def _of_each_step_or_more(found: Reliability) -> torch.Tensor:
    return found.double().flip(2).cumsum(2).flip(2)
