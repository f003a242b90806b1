"""How sure a number is: bootstrap intervals over groups, and paired tests between two runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from common.errors import DataError

LEVEL = 0.95
"""Every interval of this package covers this share."""

Floats = npt.NDArray[np.float64]


def bootstrap(
    table: pd.DataFrame,
    groups: Sequence[str],
    summarize: Callable[[pd.DataFrame], pd.Series],
    *,
    seed: int,
    draws: int = 1000,
) -> pd.DataFrame:
    """Percentile intervals of ``summarize(table)`` when whole groups are drawn again [1].

    Cases of one patient, or scenes of one block, resemble each other, so they are drawn
    together. The result does not depend on the order of the cases. A draw in which a quantity
    is not defined leaves that quantity out.

    Args:
        table: One row per case, numbers only.
        groups: The group of each row.
        summarize: From cases to one value per quantity; called ``draws`` times.
        seed: Of the draws.
        draws: How many times the groups are drawn.

    Returns:
        Columns ``low`` and ``high``, one row per quantity. NaN where fewer than two groups
        bear on a quantity: one group says nothing about its spread.

    Raises:
        ValueError: When ``groups`` does not name one group per row.

    [1] Efron and Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13.
    """
    if len(groups) != len(table):
        raise ValueError(f"{len(groups)} groups for {len(table)} cases: one each, please.")
    estimate = summarize(table)
    members = _members(table, groups)
    if len(members) < 2:
        return _intervals(np.full((2, len(estimate)), np.nan), estimate.index)
    values = table.to_numpy(dtype=np.float64)
    rng = np.random.default_rng(seed)
    drawn = np.empty((draws, len(estimate)))
    for row, picked in enumerate(rng.integers(len(members), size=(draws, len(members)))):
        again = values[np.concatenate([members[each] for each in picked])]
        summary = summarize(pd.DataFrame(again, columns=table.columns))
        if not summary.index.equals(estimate.index):
            summary = summary.reindex(estimate.index)
        drawn[row] = summary.to_numpy(dtype=np.float64)
    bounds = _percentiles(drawn)
    bounds[:, _of_one_group(table, members, estimate.index)] = np.nan
    return _intervals(bounds, estimate.index)


class Paired(NamedTuple):
    """What two runs differ by on the same cases."""

    difference: float  # mean of b - a over cases
    low: float  # 95 % bootstrap interval over groups; NaN with fewer than 2 groups
    high: float
    p_value: float  # Wilcoxon signed-rank test, two-sided, on the mean of each group
    cases: int  # cases where both runs have a value


def paired_difference(
    a: pd.Series,
    b: pd.Series,
    *,
    groups: Sequence[str] | None = None,
    seed: int = 0,
    draws: int = 1000,
) -> Paired:
    """How much better ``b`` is than ``a`` on the same cases.

    Args:
        a: One value per case, indexed by case.
        b: The same cases under another run, in any order.
        groups: The group of each case of ``a``; None where every case is its own.
        seed: Of the bootstrap.
        draws: Of the bootstrap.

    Raises:
        DataError: When the runs were not measured on the same cases, or share no value.
    """
    check_pairs(a, b)
    difference = (b.reindex(a.index) - a).to_frame("difference")
    group = pd.Series([*groups] if groups is not None else [*a.index], index=a.index, dtype=str)
    known = difference["difference"].notna()
    difference, group = difference[known], group[known]
    if difference.empty:
        raise DataError("the two runs have no case where both have a value: nothing to compare.")
    bounds = bootstrap(difference, [*group], lambda table: table.mean(), seed=seed, draws=draws)
    return Paired(
        difference=float(difference["difference"].mean()),
        low=float(bounds["low"].iloc[0]),
        high=float(bounds["high"].iloc[0]),
        p_value=signed_rank(difference["difference"], [*group]),
        cases=len(difference),
    )


def signed_rank(difference: pd.Series, groups: Sequence[str]) -> float:
    """Wilcoxon's signed-rank test, two-sided, on the mean of each group; NaN of nothing.

    Args:
        difference: One value per case; NaN is left out.
        groups: The group of each.
    """
    known = difference.groupby([*groups]).mean().dropna().to_numpy()
    if not known.size:
        return math.nan
    return float(stats.wilcoxon(known).pvalue) if np.any(known != 0) else 1.0


def _members(table: pd.DataFrame, groups: Sequence[str]) -> list[npt.NDArray[np.intp]]:
    """Rows of each group, in an order that owes nothing to the order of the table."""
    order = np.lexsort((np.asarray(table.index, dtype=str), np.asarray(groups, dtype=str)))
    names = np.asarray(groups, dtype=str)[order]
    starts = np.flatnonzero(names[1:] != names[:-1]) + 1
    return np.split(order, starts) if len(names) else []


def _percentiles(drawn: Floats) -> Floats:
    """``(2, quantities)``: the ends of the central share, NaN where nothing was ever defined."""
    bounds = np.full((2, drawn.shape[1]), np.nan)
    tail = (1 - LEVEL) / 2 * 100
    for column, values in enumerate(drawn.T):
        known = values[~np.isnan(values)]
        if known.size:
            # the inverse of the distribution itself: between two infinite draws lies no number
            ends = np.percentile(known, [tail, 100 - tail], method="inverted_cdf")
            bounds[:, column] = ends
    return bounds


def _of_one_group(
    table: pd.DataFrame, members: Sequence[npt.NDArray[np.intp]], quantities: pd.Index
) -> npt.NDArray[np.bool_]:
    """Quantities that are columns of the table, but known in fewer than two groups."""
    known = table.notna().to_numpy()
    counts = np.sum([known[rows].any(axis=0) for rows in members], axis=0)
    lonely = {column for column, count in zip(table.columns, counts, strict=True) if count < 2}
    return np.array([quantity in lonely for quantity in quantities], dtype=bool)


def _intervals(bounds: Floats, index: pd.Index) -> pd.DataFrame:
    return pd.DataFrame({"low": bounds[0], "high": bounds[1]}, index=index)


def check_pairs(a: pd.Series, b: pd.Series) -> None:
    """Refuse runs that were not measured on the same cases.

    Raises:
        DataError: Naming cases.
    """
    repeated = [*a.index[a.index.duplicated()], *b.index[b.index.duplicated()]]
    if repeated:
        raise DataError(f"case '{repeated[0]}' is given twice: a paired test needs each case once.")
    lonely = sorted(str(case) for case in set(a.index) ^ set(b.index))
    if lonely:
        shown = ", ".join(f"'{case}'" for case in lonely[:5])
        raise DataError(
            f"{len(lonely)} cases were measured in one run only: {shown}. A paired test needs the "
            "same cases in both: evaluate both runs on the same split."
        )
