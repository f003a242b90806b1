"""The largest values of each group, against sorting."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.ranking import largest, nth_largest

SOME = st.sampled_from([-3.5, -1.0, -0.25, 0.0, 1e-40, 0.1, 0.1000001, 0.5, 1.0, 7e8])
VALUES = st.lists(st.tuples(SOME, st.integers(0, 3)), min_size=1, max_size=60)


def sorted_and_cut(values: np.ndarray, group: np.ndarray, wanted: list[int], turn: np.ndarray):
    """What :func:`largest` promises, one group after the other."""
    chosen = np.zeros(len(values), dtype=bool)
    for index, number in enumerate(wanted):
        mine = np.flatnonzero(group == index)
        by_turn = mine[np.argsort(turn[mine])]
        by_value = by_turn[np.argsort(-values[by_turn], kind="stable")]
        chosen[by_value[:number]] = True
    return chosen


@given(VALUES, st.lists(st.integers(0, 30), min_size=3, max_size=3), st.randoms())
def test_so_many_of_each_group_are_chosen_as_wanted(rows, wanted, random) -> None:
    values, group = (np.array(each) for each in zip(*rows, strict=True))
    turn = np.array(random.sample(range(len(rows)), len(rows)))
    found = largest(
        torch.from_numpy(values).float(),
        torch.from_numpy(group),
        torch.tensor(wanted),
        torch.from_numpy(turn),
    )
    expected = sorted_and_cut(values.astype(np.float32), group, wanted, turn)
    assert np.array_equal(found.numpy(), expected)


def test_many_values_are_ranked_as_sorting_ranks_them() -> None:
    rng = np.random.default_rng(0)
    values = rng.random(50_000, dtype=np.float32).round(3)  # with ties
    group, wanted = rng.integers(0, 5, 50_000), [4_000, 1, 0, 60_000]
    found = largest(*(torch.from_numpy(each) for each in (values, group)), torch.tensor(wanted))
    expected = sorted_and_cut(values, group, wanted, np.arange(50_000))
    assert np.array_equal(found.numpy(), expected)
    assert found.sum() == 4_001 + (group == 3).sum()


@pytest.mark.parametrize(("number", "bound"), [(0, np.inf), (1, 2.0), (2, 0.5), (3, 0.5), (9, -1)])
def test_the_bound_is_the_smallest_of_the_largest(number: int, bound: float) -> None:
    values = torch.tensor([[0.5, 9.0, -1.0], [2.0, 0.5, 9.0]])
    found = nth_largest(values, values < 9, torch.tensor(number))
    assert found == bound
