"""Two predictions of the same images: what both say, what either says, who wins."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.agreement import conflict, conflict_rates, cross_table, intersection, union
from common.batch import IGNORE, Pseudo

CLASSES = 5
seeds = st.integers(0, 10_000)


def two_opinions(seed: int, dims: int = 2) -> tuple[Pseudo, Pseudo]:
    """Predictions that agree often, are nowhere sure, and share their invalid pixels."""
    rng = np.random.default_rng(seed)
    shape = (2, *[4] * dims)
    first = rng.integers(0, CLASSES - 1, shape)  # the last class is never named
    second = np.where(rng.random(shape) < 0.5, first, rng.integers(0, CLASSES - 1, shape))
    valid = rng.random(shape) < 0.8
    return tuple(
        Pseudo(
            torch.from_numpy(np.where(valid, each, IGNORE)),
            torch.from_numpy((rng.random(shape) * valid).astype(np.float32)),
        )
        for each in (first, second)
    )


def naive_rates(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Per class, the share of conflict where the first names it, plus that of the second."""
    rates = np.zeros(CLASSES)
    for c in range(CLASSES):
        for one, other in ((first, second), (second, first)):
            named = [(a, b) for a, b in zip(one.flat, other.flat, strict=True) if a == c]
            rates[c] += sum(a != b for a, b in named) / (len(named) + 1)
    return rates


@given(seed=seeds, dims=st.sampled_from([2, 3]))
def test_the_union_is_the_naive_one(seed, dims):
    first, second = two_opinions(seed, dims)
    either = union(first, second, CLASSES)
    a, b = first.target.numpy(), second.target.numpy()
    rates = naive_rates(a, b)
    for at in np.ndindex(a.shape):
        if a[at] == IGNORE:
            assert either.target[at] == IGNORE
            assert either.weight[at] == 0
        elif a[at] == b[at]:
            assert either.target[at] == a[at]
            assert torch.isclose(either.weight[at], (first.weight[at] + second.weight[at]) / 2)
        elif abs(rates[a[at]] - rates[b[at]]) > 1e-6:
            won = first if rates[a[at]] > rates[b[at]] else second
            assert either.target[at] == won.target[at]
            assert either.weight[at] == won.weight[at]


@given(seed=seeds)
def test_union_names_one_of_both_and_what_both_say_where_they_agree(seed):
    first, second = two_opinions(seed)
    either = union(first, second, CLASSES)
    assert ((either.target == first.target) | (either.target == second.target)).all()
    agreed = ~conflict(first, second)
    assert torch.equal(either.target[agreed], first.target[agreed])


@given(seed=seeds)
def test_intersection_and_conflict_part_the_valid_pixels(seed):
    first, second = two_opinions(seed)
    first, second = (p._replace(weight=(p.target != IGNORE).float()) for p in (first, second))
    both = intersection(first, second)
    taught, fought = both.weight > 0, conflict(first, second)
    assert not (taught & fought).any()
    assert torch.equal(taught | fought, first.target != IGNORE)
    assert torch.equal(both.target[taught], second.target[taught])


@given(seed=seeds)
def test_the_table_counts_pairs_and_leaves_ignored_pixels_out(seed):
    first, second = two_opinions(seed)
    table = cross_table(first.target, second.target, CLASSES)
    assert table.sum() == (first.target != IGNORE).sum()
    pairs = [*zip(first.target.flatten().tolist(), second.target.flatten().tolist(), strict=True)]
    for i in range(CLASSES):
        for j in range(CLASSES):
            assert table[i, j] == pairs.count((i, j))


def test_a_class_that_nobody_names_is_in_no_conflict():
    rates = conflict_rates(torch.tensor([[3, 1, 0], [0, 0, 0], [0, 0, 0]]))
    assert torch.allclose(rates, torch.tensor([1 / 5, 1 / 2, 0.0]))


def test_pixels_of_conflict_keep_a_target_so_that_they_count_in_a_divisor():
    target = torch.tensor([[0, 1]]), torch.tensor([[0, 2]])
    first, second = (Pseudo(each, torch.ones(1, 2)) for each in target)
    both = intersection(first, second)
    assert (both.target != IGNORE).all()
    assert both.weight.tolist() == [[1.0, 0.0]]
