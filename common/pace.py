"""How long a step takes here, and how much memory: known before a training, not after it."""

from __future__ import annotations

import itertools
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from common.batch import Batch
from common.environment import device
from common.fit import Company, FitSettings, Learner, fit, launch

STEPS = 4
"""Of which the first, in which everything is slow, does not count."""


class Pace(NamedTuple):
    """What one step of a training costs."""

    seconds: float
    gib: float  # the most that the device held; on a CPU the most that this process held
    where: str

    def in_words(self, steps: int) -> str:
        """A row for a person, of a training of so many steps."""
        memory = "" if math.isnan(self.gib) else f", at most {self.gib:.2g} GiB"
        return (
            f"{self.seconds:.2g} s on {self.where}{memory}; {steps:,} steps are "
            f"{_duration(self.seconds * steps)}, besides validation"
        )


def told(
    learner: Learner, batches: Callable[[int], Iterator[Batch]], settings: FitSettings
) -> tuple[str, list[str]]:
    """What a step costs, for a person; and a warning where half precision makes it slower.

    Few CPUs compute bfloat16 themselves; others take several times as long as for float32.

    Args:
        learner, batches, settings: As of :func:`pace`.
    """
    found = pace(learner, batches, settings)
    words, single = found.in_words(settings.steps), {"precision": "32-true"}
    if settings.precision == "32-true":
        return words, []
    full = pace(learner, batches, settings.model_copy(update=single))
    if full.seconds > found.seconds:
        return words, []
    slower = (
        f"fit.precision {settings.precision}: a step takes {found.seconds:.2g} s on {found.where}, "
        f"with 32-true it takes {full.seconds:.2g} s. Set 32-true, or train on a GPU."
    )
    return words, [slower]


def pace(
    learner: Learner, batches: Callable[[int], Iterator[Batch]], settings: FitSettings
) -> Pace:
    """Train a few steps that are thrown away, and say what one of them costs.

    Args:
        learner: Is changed by it.
        batches: From the first step wanted on.
        settings: Of the training; one device is measured, whatever they say.
    """
    short = {"steps": STEPS, "log_every": 1, "validate_every": 0, "devices": 1}
    trial = settings.model_copy(update=short)
    fabric = launch(trial)
    on_gpu = fabric.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    times: list[float] = []
    company = Company(watch=lambda news: times.append(time.monotonic()))
    with tempfile.TemporaryDirectory() as folder:
        fit(learner, batches, trial, fabric, seed=0, folder=Path(folder), company=company)
    seconds = statistics.median(b - a for a, b in itertools.pairwise(times))
    return Pace(seconds, _peak_gib(on_gpu=on_gpu), device(settings.accelerator))


def _peak_gib(*, on_gpu: bool) -> float:
    if on_gpu:
        return torch.cuda.max_memory_allocated() / 2**30
    if sys.platform == "win32":  # which does not tell
        return math.nan
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak / (2**30 if sys.platform == "darwin" else 2**20))


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours"
