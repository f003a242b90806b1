"""Is one run better than another? The same cases, pair by pair."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from common import config
from common.adapter import Adapter
from common.display import shown
from common.domain import Domain
from common.errors import ConfigError, RunError
from common.evaluate import DRAWS, table
from common.record import Evaluation, read_cases, read_evaluation, write_whole
from common.statistics import bootstrap, check_pairs, signed_rank

COLUMNS = ("run", "metric", "class", "baseline", "value", "difference", "low", "high", "p", "n")


class Comparison(NamedTuple):
    """What runs differ by from a baseline."""

    baseline: str
    split: str
    headline: tuple[str, str]
    cases: int
    groups: int
    differences: pd.DataFrame  # of COLUMNS, the headline of each run first


def compare(folders: Sequence[Path], adapter: Adapter, *, output: Path | None = None) -> Comparison:
    """Hold evaluated runs against the first of them, on the same cases.

    For each metric and class: the value of both over the data set, their difference, and its 95 %
    bootstrap interval when patients (or blocks) are drawn again, both runs' cases with them. Where
    each case has a value of its own, ``p`` is that of a two-sided Wilcoxon signed-rank test on the
    mean differences of the groups. Nothing is corrected for how many of them are looked at.

    Args:
        folders: Of the runs, or of evaluations made with ``--output``; the baseline first.
        adapter: Of their domain.
        output: A file for all differences, as CSV; absent: none.

    Raises:
        ConfigError: When there are fewer than two runs.
        RunError: When a run was not evaluated, or on another split or other classes.
        DataError: When runs were measured on different cases.
    """
    if len(folders) < 2:
        raise ConfigError("compare needs two runs or more: the baseline first, then the others.")
    shared = Counter(each.name for each in {*folders})
    names = [each.name if shared[each.name] == 1 else str(each) for each in folders]
    first, *others = map(_evaluated, folders, names)
    domain = _domain(folders[0], adapter)
    rows = []
    for other in others:
        _check(first, other)
        rows.append(_differences(domain, first, other))
    found = Comparison(
        first.name,
        first.found.split,
        first.found.headline,
        len(first.values),
        len({*first.groups}),
        pd.concat(rows, ignore_index=True),
    )
    if output is not None:
        write_whole(output, found.differences.to_csv(index=False, float_format="%.6g"))
    return found


class _Evaluated(NamedTuple):
    name: str
    found: Evaluation
    values: pd.DataFrame  # by case, one column per (metric, class)
    groups: list[str]


def _evaluated(folder: Path, name: str) -> _Evaluated:
    found = read_evaluation(folder / "evaluation.json")
    if found is None:
        raise RunError(f"'{folder}' holds no evaluation. Run the verb evaluate on it first.")
    cases = read_cases(folder / "cases.csv")
    cases = cases[cases["split"] == found.split].sort_values("case", kind="stable")
    groups = cases.drop_duplicates("case")["group"].tolist()
    return _Evaluated(name, found, table(cases), groups)


def _domain(folder: Path, adapter: Adapter) -> Domain:
    """That of a run, which knows how cases are summed up. Opens no data."""
    return adapter.open(adapter.for_prediction(config.load(folder / "run.yaml", adapter.schema)))


def _check(first: _Evaluated, other: _Evaluated) -> None:
    if other.found.split != first.found.split:
        raise RunError(
            f"'{first.name}' was evaluated on split '{first.found.split}', '{other.name}' on "
            f"'{other.found.split}'. Evaluate both on the same one."
        )
    if [each.name for each in first.found.classes] != [each.name for each in other.found.classes]:
        raise RunError(f"'{first.name}' and '{other.name}' have different classes.")
    check_pairs(first.values.iloc[:, 0], other.values.iloc[:, 0])


def paired(
    domain: Domain, first: pd.DataFrame, other: pd.DataFrame, groups: Sequence[str], *, seed: int
) -> tuple[pd.Series, pd.Series, pd.DataFrame]:
    """Two sets of values over the same cases, and how sure their differences are.

    Args:
        domain: Knows how cases are summed up.
        first, other: One row per case, one column per ``(metric, class)``.
        groups: The patient or block of each row of ``first``.
        seed: Of the bootstrap.

    Returns:
        The values of both over all cases, and ``low`` and ``high`` of ``other`` less ``first``.
    """
    both = pd.concat({"a": first, "b": other.loc[first.index]}, axis=1)

    def difference(drawn: pd.DataFrame) -> pd.Series:
        one, another = (pd.DataFrame(drawn[name]) for name in ("a", "b"))
        return domain.summarize(another) - domain.summarize(one)

    ends = bootstrap(both, groups, difference, seed=seed, draws=DRAWS)
    return domain.summarize(first), domain.summarize(other), ends


def _differences(domain: Domain, first: _Evaluated, other: _Evaluated) -> pd.DataFrame:
    a, b, ends = paired(domain, first.values, other.values, first.groups, seed=first.found.seed)
    pairs = [pair for pair in a.index if pair in b.index]
    pairs.sort(key=lambda pair: (pair != first.found.headline, pair[0] != first.found.headline[0]))
    rows = []
    for pair in pairs:
        here = pair in first.values and pair in other.values and not shown(pair[0]).counted
        own = other.values[pair] - first.values[pair] if here else pd.Series(dtype=float)
        own = own.reindex(first.values.index)
        p = signed_rank(own, first.groups) if here else math.nan
        numbers = (a[pair], b[pair], b[pair] - a[pair], ends.loc[pair, "low"])
        row = (*numbers, ends.loc[pair, "high"], p, int(own.notna().sum()))
        rows.append((other.name, *pair, *row))
    return pd.DataFrame(rows, columns=[*COLUMNS])
