"""Which items a step sees: a function of (seed, step), whatever the number of workers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from common.batch import Batch, Labeled, Unlabeled
from common.settings import Count, Positive, Settings

ORDER, VIEW = 1, 2
"""Which items, and how each is cut: two draws that must not share a generator."""

S = TypeVar("S", Labeled, Unlabeled, covariant=True)


class BatchSize(Settings):
    """How many images of each kind one step sees, and how many processes prepare them."""

    labeled: Positive = 2
    unlabeled: Count = 2
    workers: Count = 0  # 0 prepares batches in the training process itself


class Pool(Protocol, Generic[S]):
    """Items to draw from. Item ``index`` is cut and turned as ``rng`` says, and nothing else."""

    def __len__(self) -> int:
        """How many items there are."""

    def draw(self, index: int, rng: np.random.Generator) -> S:
        """One sample without batch axis: image ``(C, *S)`` with its target or validity."""

    def nothing(self) -> S:
        """A batch of no samples, ``(0, C, *S)``."""


class TwoStream(Dataset[Batch]):
    """Step number in, batch out."""

    def __init__(
        self, labeled: Pool[Labeled], unlabeled: Pool[Unlabeled], *, size: BatchSize, seed: int
    ) -> None:
        self.labeled, self.unlabeled = labeled, unlabeled
        self.size, self.seed = size, seed

    def __getitem__(self, step: int) -> Batch:
        return Batch(
            labeled=Labeled(*self._stream(self.labeled, self.size.labeled, step, stream=0)),
            unlabeled=Unlabeled(*self._stream(self.unlabeled, self.size.unlabeled, step, stream=1)),
        )

    def _stream(self, pool: Pool[S], count: int, step: int, *, stream: int) -> S:
        if count == 0:
            return pool.nothing()
        samples = [
            pool.draw(index, generator(self.seed, stream, step, slot, VIEW))
            for slot, index in enumerate(
                items(len(pool), count, step=step, seed=(self.seed, stream))
            )
        ]
        columns = (torch.stack(column) for column in zip(*samples, strict=True))
        return type(samples[0])(*columns)

    def from_step(self, first_step: int) -> Iterator[Batch]:
        """Batches of ``first_step`` and all that follow, without end."""
        loader = DataLoader(
            self,
            batch_size=None,
            sampler=itertools.count(first_step),
            num_workers=self.size.workers,
            prefetch_factor=4 if self.size.workers else None,
        )
        return iter(loader)


def items(num_items: int, count: int, *, step: int, seed: tuple[int, ...]) -> list[int]:
    """The items of one step: every epoch is a new permutation, cut into whole batches.

    Within a batch no item appears twice, as long as there are ``count`` items; with fewer,
    each appears as often as any other, give or take one.
    """
    rounds = -(-count // num_items)
    steps_per_epoch = max(1, num_items // count)
    epoch, position = divmod(step, steps_per_epoch)
    order = np.concatenate(
        [generator(*seed, epoch, again, ORDER).permutation(num_items) for again in range(rounds)]
    )
    return [int(each) for each in order[position * count : (position + 1) * count]]


def generator(*key: int) -> np.random.Generator:
    """A random generator that is a function of its key alone."""
    return np.random.default_rng(np.random.SeedSequence(key))
