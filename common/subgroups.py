"""Does a run work for everybody? The headline by what is known of cases: scanner, sex, age."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from common.display import ends, number
from common.known import MOST_VALUES, UNKNOWN
from common.record import Evaluation
from common.statistics import bootstrap


class Subgroup(NamedTuple):
    """Cases that share a value."""

    value: str
    cases: int
    groups: int  # patients
    mean: str  # of the headline over its cases
    interval: str  # 95 %, patients drawn again; empty of a single one
    worst: str  # the lowest


class SubgroupTable(NamedTuple):
    """A column of the manifest: its values, or why they are not shown."""

    column: str
    rows: Sequence[Subgroup]
    note: str = ""


def subgroup_tables(found: Evaluation, group_of: Mapping[str, str]) -> list[SubgroupTable]:
    """A table for each column of the manifest.

    What is drawn again are patients, so the interval of a subgroup is that of the cases it holds
    here, and says nothing of whether subgroups differ by more than chance.

    Args:
        found: The evaluation, with the headline and the subgroup of each case.
        group_of: The patient of each case.
    """
    return [_table(found, column, known, group_of) for column, known in found.subgroups.items()]


def _table(
    found: Evaluation, column: str, known: Mapping[str, str], group_of: Mapping[str, str]
) -> SubgroupTable:
    if not known:
        return SubgroupTable(column, [], f"more than {MOST_VALUES} different values; not kept.")
    scores = pd.Series(found.scores, dtype=float)
    named = pd.Series(known).reindex(scores.index)
    names = sorted(named.dropna().unique(), key=_place)
    return SubgroupTable(
        column, [_row(found, name, scores[named == name], group_of) for name in names]
    )


def _place(name: str) -> tuple[bool, float, str]:
    """Numbers by size, words by the alphabet, and last those of whom nothing is known."""
    try:
        return name == UNKNOWN, float(name.split(" to ")[0]), ""
    except ValueError:
        return name == UNKNOWN, math.inf, name


def _row(found: Evaluation, value: str, scores: pd.Series, group_of: Mapping[str, str]) -> Subgroup:
    metric, _ = found.headline
    groups = [group_of.get(str(case), str(case)) for case in scores.index]
    bounds = bootstrap(scores.to_frame(), groups, lambda drawn: drawn.mean(), seed=found.seed)
    low, high = (float(bounds[end].iloc[0]) for end in ("low", "high"))
    return Subgroup(
        value,
        len(scores),
        len({*groups}),
        number(float(scores.mean()), metric),
        ends(low, high, metric),
        number(float(scores.min()), metric),
    )
