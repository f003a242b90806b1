"""Which items a step sees: a function of (seed, step), and of nothing else."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from common.batch import Batch, Labeled, Unlabeled
from common.sampling import BatchSize, TwoStream, generator, items
from tests.toy import any_class

seeds = st.tuples(st.integers(0, 1000), st.integers(0, 1))


class Numbered:
    """A pool whose samples say which item they are, and what luck they had."""

    def __init__(self, kind: type, count: int) -> None:
        self.kind, self.count = kind, count

    def __len__(self) -> int:
        return self.count

    def draw(self, index: int, rng: np.random.Generator) -> Labeled | Unlabeled:
        assert 0 <= index < self.count
        image = torch.tensor([index, rng.random()], dtype=torch.float64)[:, None]
        if self.kind is Labeled:
            return Labeled(image, torch.zeros(1, dtype=torch.int64))
        return Unlabeled(image, torch.zeros(1, dtype=torch.bool), any_class(2, 1))

    def nothing(self) -> Unlabeled:
        nothing = torch.zeros(0, 2, 1), torch.zeros(0, 1, dtype=torch.bool)
        return Unlabeled(*nothing, any_class(2, 1).expand(0, -1, -1))


def stream(
    first_step: int = 0,
    *,
    seed: int = 7,
    workers: int = 0,
    counts: tuple[int, int] = (2, 3),
    sizes: tuple[int, int] = (4, 9),
) -> Iterator[Batch]:
    size = BatchSize(labeled=counts[0], unlabeled=counts[1], workers=workers)
    pools = Numbered(Labeled, sizes[0]), Numbered(Unlabeled, sizes[1])
    return TwoStream(*pools, size=size, seed=seed).from_step(first_step)


def taken(batches: Iterator[Batch], steps: int) -> list[Batch]:
    return list(itertools.islice(batches, steps))


def same(a: Batch, b: Batch) -> bool:
    pairs = zip([*a.labeled, *a.unlabeled], [*b.labeled, *b.unlabeled], strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def test_the_number_of_workers_changes_nothing() -> None:
    alone, with_two = taken(stream(), 11), taken(stream(workers=2), 11)
    assert all(same(a, b) for a, b in zip(alone, with_two, strict=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_going_on_from_a_step_is_the_tail_of_all(workers: int) -> None:
    whole, tail = taken(stream(), 12), taken(stream(5, workers=workers), 7)
    assert all(same(a, b) for a, b in zip(whole[5:], tail, strict=True))


def test_a_second_call_gives_the_same_and_another_seed_does_not() -> None:
    first, again, other = (taken(stream(seed=seed), 6) for seed in (1, 1, 2))
    assert all(same(a, b) for a, b in zip(first, again, strict=True))
    assert not any(same(a, b) for a, b in zip(first, other, strict=True))


def test_torch_and_numpy_seeds_have_no_say() -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    before = taken(stream(), 3)
    torch.manual_seed(99)
    np.random.seed(99)
    assert all(same(a, b) for a, b in zip(before, taken(stream(), 3), strict=True))


def test_batches_have_the_sizes_asked_for() -> None:
    for batch in taken(stream(counts=(3, 5)), 4):
        assert batch.labeled.image.shape == (3, 2, 1)
        assert batch.labeled.target.shape == (3, 1)
        assert batch.unlabeled.image.shape == (5, 2, 1)
        assert batch.unlabeled.valid.shape == (5, 1)
        assert isinstance(batch, Batch)
        assert isinstance(batch.labeled, Labeled)
        assert isinstance(batch.unlabeled, Unlabeled)


def test_no_unlabeled_images_asked_for_are_an_empty_batch() -> None:
    batch = next(stream(counts=(2, 0)))
    assert batch.unlabeled.image.shape == (0, 2, 1)


def test_labeled_and_unlabeled_streams_differ_though_pool_and_seed_are_one_f5() -> None:
    batches = taken(stream(counts=(3, 3), sizes=(9, 9)), 30)
    order = [(b.labeled.image[:, 0], b.unlabeled.image[:, 0]) for b in batches]
    luck = [(b.labeled.image[:, 1], b.unlabeled.image[:, 1]) for b in batches]
    assert sum(torch.equal(a, b) for a, b in order) <= 1
    assert not any((a == b).any() for a, b in luck)


def test_every_draw_has_its_own_luck() -> None:
    batches = taken(stream(), 40)
    draws = [float(v) for b in batches for v in (*b.labeled.image[:, 1], *b.unlabeled.image[:, 1])]
    assert len(set(draws)) == len(draws) == 40 * 5


@given(num_items=st.integers(1, 30), count=st.integers(1, 12), step=st.integers(0, 500), seed=seeds)
@settings(max_examples=200, deadline=None)
def test_no_item_is_in_a_batch_more_often_than_it_must(
    num_items: int, count: int, step: int, seed: tuple[int, int]
) -> None:
    drawn = items(num_items, count, step=step, seed=seed)
    times = Counter(drawn)
    assert len(drawn) == count
    assert set(drawn) <= set(range(num_items))
    if count <= num_items:
        assert max(times.values()) == 1
    else:
        assert len(times) == num_items
        assert max(times.values()) - min(times.values()) <= 1


@given(count=st.integers(1, 6), parts=st.integers(1, 6), epoch=st.integers(0, 50), seed=seeds)
@settings(max_examples=100, deadline=None)
def test_an_epoch_shows_every_item_once(
    count: int, parts: int, epoch: int, seed: tuple[int, int]
) -> None:
    steps = range(epoch * parts, (epoch + 1) * parts)
    seen = [each for step in steps for each in items(count * parts, count, step=step, seed=seed)]
    assert sorted(seen) == list(range(count * parts))


@pytest.mark.parametrize(("num_items", "count"), [(7, 3), (5, 4), (3, 5), (10, 1)])
def test_over_many_epochs_every_item_is_seen_equally_often(num_items: int, count: int) -> None:
    steps = 3000
    times = Counter(
        each for step in range(steps) for each in items(num_items, count, step=step, seed=(3, 1))
    )
    expected = steps * count / num_items
    assert all(times[item] == pytest.approx(expected, rel=0.05) for item in range(num_items))


@given(seed=seeds, epoch=st.integers(0, 40))
@settings(max_examples=50, deadline=None)
def test_every_epoch_has_an_order_of_its_own_f6(seed: tuple[int, int], epoch: int) -> None:
    def order(of: int) -> list[list[int]]:
        return [items(12, 3, step=4 * of + part, seed=seed) for part in range(4)]

    assert order(epoch) != order(epoch + 1)


@given(st.lists(st.integers(0, 50), min_size=4, max_size=4), st.data())
@settings(max_examples=50, deadline=None)
def test_a_generator_is_a_function_of_its_key(key: list[int], data: st.DataObject) -> None:
    other = data.draw(st.lists(st.integers(0, 50), min_size=4, max_size=4))
    assume(other != key)
    assert generator(*key).random() == generator(*key).random()
    assert generator(*key).random() != generator(*other).random()
