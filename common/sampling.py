"""Which items a step sees: a function of (seed, step, extra), whatever the number of workers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
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
    """Step number in, batch out.

    Args:
        labeled: Annotated items.
        unlabeled: Items without annotation.
        size: Of a batch.
        seed: Of the order and of each view.
        extra: How many times more each labeled item is seen; none: all equally often.
    """

    def __init__(
        self,
        labeled: Pool[Labeled],
        unlabeled: Pool[Unlabeled],
        *,
        size: BatchSize,
        seed: int,
        extra: Sequence[int] = (),
    ) -> None:
        self.labeled, self.unlabeled = labeled, unlabeled
        self.size, self.seed = size, seed
        self.lists = listed(extra or [0] * len(labeled)), listed([0] * len(unlabeled))

    def __getitem__(self, step: int) -> Batch:
        return Batch(
            labeled=Labeled(*self._stream(self.labeled, self.size.labeled, step, stream=0)),
            unlabeled=Unlabeled(*self._stream(self.unlabeled, self.size.unlabeled, step, stream=1)),
        )

    def _stream(self, pool: Pool[S], count: int, step: int, *, stream: int) -> S:
        if count == 0:
            return pool.nothing()
        of = self.lists[stream]
        samples = [
            pool.draw(int(of[place]), generator(self.seed, stream, step, slot, VIEW))
            for slot, place in enumerate(items(len(of), count, step=step, seed=(self.seed, stream)))
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


def listed(extra: Sequence[int]) -> np.ndarray:
    """Items to permute: each once and as many times more as ``extra`` says, or in proportion.

    The list is as short as the proportions allow: with the same ``extra`` for all, each is in it
    once. An item that is in it several times can meet itself in a batch, cut for itself.
    """
    times = 1 + np.asarray(extra, dtype=np.int64)
    return np.repeat(np.arange(len(times)), times // max(1, np.gcd.reduce(times)))


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
