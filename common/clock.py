"""How far a training is, and how fast."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import NamedTuple

from common.batch import Batch


class News(NamedTuple):
    """What a watcher hears now and then."""

    step: int
    steps: int
    values: Mapping[str, float]
    images_per_second: float
    seconds_left: float


class Clock:
    """Images per second and time left, from the steps seen so far."""

    def __init__(self, first: int, steps: int) -> None:
        self.first, self.steps, self.images = first, steps, 0
        self.began = time.monotonic()

    def see(self, batch: Batch) -> None:
        """Count the images of one batch."""
        self.images += batch.labeled.image.shape[0] + batch.unlabeled.image.shape[0]

    def news(self, step: int, values: Mapping[str, float]) -> News:
        """What to tell after ``step`` steps."""
        elapsed = max(time.monotonic() - self.began, 1e-9)
        return News(
            step=step,
            steps=self.steps,
            values=values,
            images_per_second=self.images / elapsed,
            seconds_left=(self.steps - step) * elapsed / max(step - self.first, 1),
        )
