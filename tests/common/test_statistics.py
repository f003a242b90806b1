from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from common.errors import DataError
from common.statistics import bootstrap, paired_difference

FINITE = st.floats(-1e3, 1e3, allow_subnormal=False)


def mean(table: pd.DataFrame) -> pd.Series:
    return table.mean()


def frame(values: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(values, index=[f"case-{i}" for i in range(len(values))])


def names(count: int) -> list[str]:
    return [f"group-{i}" for i in range(count)]


@given(values=st.lists(FINITE, min_size=2, max_size=30), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_the_interval_of_a_mean_contains_the_mean(values: list[float], seed: int) -> None:
    table = frame(np.array(values)[:, None])

    found = bootstrap(table, names(len(values)), mean, seed=seed, draws=300)

    estimate = np.mean(values)
    assert found["low"].iloc[0] <= estimate + 1e-9
    assert found["high"].iloc[0] >= estimate - 1e-9


@given(value=FINITE, count=st.integers(2, 20), groups=st.integers(2, 5))
@settings(max_examples=20, deadline=None)
def test_constant_data_gives_an_interval_of_no_width(value: float, count: int, groups: int) -> None:
    table = frame(np.full((count, 2), value))
    found = bootstrap(table, [f"g{i % groups}" for i in range(count)], mean, seed=0, draws=50)

    np.testing.assert_allclose(found.to_numpy(), value, rtol=1e-12)


@given(order=st.permutations(range(12)))
@settings(max_examples=15, deadline=None)
def test_the_order_of_the_cases_changes_nothing(order: list[int]) -> None:
    table = frame(np.random.default_rng(3).random((12, 3)))
    groups = [f"g{i // 3}" for i in range(12)]

    plain = bootstrap(table, groups, mean, seed=5, draws=60)
    shuffled = bootstrap(table.iloc[order], [groups[i] for i in order], mean, seed=5, draws=60)

    np.testing.assert_allclose(plain.to_numpy(), shuffled.to_numpy())


def test_cases_that_come_in_groups_are_less_sure_than_as_many_free_ones() -> None:
    of_a_group = np.random.default_rng(0).normal(size=10)
    table = frame(np.repeat(of_a_group, 8)[:, None])

    grouped = bootstrap(table, [f"g{i // 8}" for i in range(80)], mean, seed=0)
    free = bootstrap(table, names(80), mean, seed=0)

    width = (grouped["high"] - grouped["low"]).iloc[0] / (free["high"] - free["low"]).iloc[0]
    assert width == pytest.approx(8**0.5, rel=0.25)


def test_the_interval_agrees_with_the_textbook_for_a_mean_of_many_cases() -> None:
    values = np.random.default_rng(1).normal(size=400)
    found = bootstrap(frame(values[:, None]), names(400), mean, seed=0, draws=2000)

    half = 1.96 * values.std() / 20
    assert found["low"].iloc[0] == pytest.approx(values.mean() - half, abs=0.01)
    assert found["high"].iloc[0] == pytest.approx(values.mean() + half, abs=0.01)


def test_one_group_has_no_interval() -> None:
    found = bootstrap(frame(np.random.rand(5, 2)), ["one"] * 5, mean, seed=0)

    assert found.isna().all(axis=None)


def test_a_quantity_known_in_one_group_only_has_no_interval_and_others_keep_theirs() -> None:
    values = np.array([[1.0, np.nan], [2.0, np.nan], [3.0, 7.0]])
    found = bootstrap(frame(values), ["a", "b", "c"], mean, seed=0)

    assert found.loc[0].notna().all()
    assert found.loc[1].isna().all()


def test_infinite_values_stay_infinite() -> None:
    values = np.array([[1.0], [2.0], [np.inf], [np.inf]])
    found = bootstrap(frame(values), names(4), mean, seed=0)

    assert found["high"].iloc[0] == np.inf
    assert not found.isna().any(axis=None)


def test_quantities_that_only_the_summary_knows_have_intervals_too() -> None:
    table = frame(np.random.default_rng(0).random((9, 2)))

    def ratio(cases: pd.DataFrame) -> pd.Series:
        return pd.Series({"ratio": cases[0].sum() / cases[1].sum()})

    found = bootstrap(table, names(9), ratio, seed=0)

    assert found.loc["ratio", "low"] < ratio(table)["ratio"] < found.loc["ratio", "high"]


def test_200_cases_and_40_columns_take_less_than_3_seconds() -> None:
    table = frame(np.random.default_rng(0).random((200, 40)))
    began = time.monotonic()
    bootstrap(table, names(200), mean, seed=0)

    assert time.monotonic() - began < 3


def test_groups_must_match_the_cases() -> None:
    with pytest.raises(ValueError, match="2 groups for 3 cases"):
        bootstrap(frame(np.zeros((3, 1))), ["a", "b"], mean, seed=0)


def test_a_paired_difference_pairs_by_name_and_not_by_position() -> None:
    rng = np.random.default_rng(0)
    a = pd.Series(rng.random(20), index=names(20))
    b = (a + 0.1 + 0.01 * rng.random(20)).sample(frac=1, random_state=1)

    found = paired_difference(a, b)

    assert found.difference == pytest.approx(0.105, abs=0.004)
    assert 0.1 <= found.low <= found.difference <= found.high <= 0.11
    assert found.p_value == pytest.approx(stats.wilcoxon(b.reindex(a.index) - a).pvalue)
    assert found.cases == 20


def test_equal_runs_do_not_differ() -> None:
    a = pd.Series([0.5, 0.7, 0.9], index=["x", "y", "z"])

    assert paired_difference(a, a) == (0.0, 0.0, 0.0, 1.0, 3)


def test_repeats_within_a_group_do_not_make_a_paired_test_surer() -> None:
    a = pd.Series(np.zeros(30), index=names(30))
    b = a + np.repeat([0.1, 0.2, 0.3], 10)

    grouped = paired_difference(a, b, groups=[f"g{i // 10}" for i in range(30)])

    assert grouped.p_value == pytest.approx(0.25)
    assert paired_difference(a, b).p_value < 0.001


def test_cases_without_a_value_in_one_run_are_left_out_and_counted() -> None:
    a = pd.Series([0.5, np.nan, 0.9], index=["x", "y", "z"])
    b = pd.Series([0.6, 0.7, 1.0], index=["x", "y", "z"])

    found = paired_difference(a, b)

    assert found.cases == 2
    assert found.difference == pytest.approx(0.1)


def test_runs_measured_on_other_cases_are_not_compared() -> None:
    a, b = pd.Series([0.5], index=["x"]), pd.Series([0.5], index=["y"])

    with pytest.raises(DataError, match="2 cases were measured in one run only: 'x', 'y'"):
        paired_difference(a, b)


def test_nothing_in_common_is_said_in_words() -> None:
    a, b = pd.Series([np.nan], index=["x"]), pd.Series([0.5], index=["x"])

    with pytest.raises(DataError, match="no case where both have a value"):
        paired_difference(a, b)


def test_a_case_given_twice_is_an_error() -> None:
    a = pd.Series([0.1, 0.2], index=["x", "x"])

    with pytest.raises(DataError, match="'x' is given twice"):
        paired_difference(a, a)
