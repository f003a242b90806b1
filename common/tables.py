"""The tables of a report, cell by cell, from cases.csv and summary.csv."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd
from markupsafe import Markup

from common.charts import Whisker, forest, whisker
from common.display import Shown, cell, heading, interval, label, shown
from common.record import Evaluation, Look

PIXELS = "pixels_as_"
"""Metrics of this prefix count pixels of the class of the row, by predicted class."""
MOST_COLUMNS = 8
NUMBERS = ("value", "low", "high", "median", "q1", "q3", "n")

NO_SPREAD = "No spread: a count, a number of the whole set, or a single case."

Pair = tuple[str, str]
"""A metric and a class."""


class Value(NamedTuple):
    """A cell, and what it is sorted by."""

    text: Markup
    sort: float | None


class ClassRow(NamedTuple):
    """One class under one metric."""

    name: str
    look: Look | None
    value: Markup
    interval: Markup
    median: Markup
    quartiles: Markup
    n: int
    whisker: Whisker | None


DETAILS = (
    "hd_mm",
    "hd95_voxel",
    "asd_voxel",
    "volume_truth_ml",
    "volume_error_percent",
    "components",
    "components_truth",
    "absent",
)
"""Metrics that the table by class has and the first glance leaves out, to fit a screen."""


@dataclass(frozen=True, slots=True)
class MetricTable:
    """All classes under one metric."""

    metric: Shown
    rows: Sequence[ClassRow]


@dataclass(frozen=True, slots=True)
class Overview:
    """Values only: classes by metrics, and metrics of the whole."""

    metrics: Sequence[Shown]
    rows: Sequence[tuple[str, Look | None, Sequence[Markup]]]
    tiles: Sequence[tuple[str, Markup]]  # beside the headline, what speaks of no class


@dataclass(frozen=True, slots=True)
class ForestTable:
    """Classes under one metric, with intervals drawn."""

    metric: Shown
    rows: Sequence[tuple[str, Look | None, Markup, Whisker | None]]
    ends: tuple[str, str]


@dataclass(frozen=True, slots=True)
class CaseTable:
    """One row per case, worst first."""

    columns: Sequence[str]
    rows: Sequence[tuple[str, str, Sequence[Value]]]  # case, group, values
    measured: int  # numbers per case in cases.csv
    grouped: bool  # whether groups are more than single cases


@dataclass(frozen=True, slots=True)
class ConfusionTable:
    """Pixels by true class (lines) and predicted class (columns)."""

    classes: Sequence[tuple[str, Look | None]]
    rows: Sequence[Sequence[tuple[int, float]]]  # pixels, and their share of the row
    totals: Sequence[int]

    @property
    def lines(self) -> list[tuple[tuple[str, Look | None], Sequence[tuple[int, float]], int]]:
        """Class, cells and sum of each row."""
        return [*zip(self.classes, self.rows, self.totals, strict=True)]


def metric_tables(found: Evaluation, summary: pd.DataFrame) -> list[MetricTable]:
    """One table per metric, the headline's first."""
    numbers = _by_pair(summary)
    looks = {look.name: look for look in found.classes}
    return [
        MetricTable(
            shown(metric),
            [
                _class_row(metric, name, numbers[metric, name], looks)
                for name in _labels(found, [pair for pair in numbers if pair[0] == metric])
            ],
        )
        for metric in _metrics(found, [*numbers])
    ]


def overview(found: Evaluation, summary: pd.DataFrame) -> Overview:
    """What each metric says of each class, and those that speak of no class, at a glance."""
    numbers = _by_pair(summary)
    own = {look.name for look in found.classes}
    of_classes = {metric for metric, name in numbers if name in own}
    inside = [pair for pair in numbers if pair[0] in of_classes]
    metrics = [metric for metric in _metrics(found, inside) if metric not in DETAILS]
    looks = {look.name: look for look in found.classes}
    rows = []
    for name in _labels(found, inside):
        values = [numbers.get((metric, name), {}).get("value") for metric in metrics]
        cells = [cell(value, metric) for value, metric in zip(values, metrics, strict=True)]
        rows.append((label(name), looks.get(name), cells))
    tiles = [
        (heading(*pair), cell(row["value"], pair[0]))
        for pair, row in numbers.items()
        if pair[0] not in of_classes and pair != found.headline
    ]
    return Overview([shown(metric) for metric in metrics], rows, tiles)


def case_table(found: Evaluation, cases: pd.DataFrame) -> CaseTable:
    """The headline of each case and what matters beside it, worst first."""
    values: dict[str, dict[Pair, float]] = {}
    groups: dict[str, str] = {}
    for row in cases.to_dict("records"):
        groups[row["case"]] = row["group"]
        if not row["metric"].startswith(PIXELS):
            values.setdefault(row["case"], {})[row["metric"], row["class"]] = row["value"]
    pairs = list(dict.fromkeys(pair for each in values.values() for pair in each))
    chosen = _columns(found, pairs)
    known = {case: math.inf if score is None else score for case, score in found.scores.items()}
    rows = []
    for case in sorted(known, key=lambda case: (known[case], case)):
        cells = [_value(found.scores[case], found.headline[0])]
        cells += [_value(values.get(case, {}).get(pair), pair[0]) for pair in chosen]
        rows.append((case, groups.get(case, case), cells))
    columns = [heading(*pair) for pair in (found.headline, *chosen)]
    return CaseTable(columns, rows, len(pairs), any(case != group for case, group, _ in rows))


def confusion_table(found: Evaluation, cases: pd.DataFrame) -> ConfusionTable | None:
    """Which class is taken for which, over all cases; None where nobody counted pixels."""
    counts: dict[Pair, float] = {}
    for row in cases[cases["metric"].str.startswith(PIXELS)].to_dict("records"):
        pair = (row["class"], row["metric"].removeprefix(PIXELS))
        counts[pair] = counts.get(pair, 0.0) + row["value"]
    if not counts:
        return None
    looks = {look.name: look for look in found.classes}
    names = list(dict.fromkeys([*looks, *sorted(name for pair in counts for name in pair)]))
    rows = [[round(counts.get((truth, name), 0)) for name in names] for truth in names]
    totals = [sum(row) for row in rows]
    return ConfusionTable(
        [(name, looks.get(name)) for name in names],
        [[(n, n / (total or 1)) for n in row] for row, total in zip(rows, totals, strict=True)],
        totals,
    )


def _by_pair(summary: pd.DataFrame) -> dict[Pair, dict[str, float]]:
    """The rows of summary.csv, without the pixel counts, which have a table of their own."""
    return {
        (row["metric"], row["class"]): {key: float(row[key]) for key in NUMBERS}
        for row in summary.to_dict("records")
        if not row["metric"].startswith(PIXELS)
    }


def spotlight(found: Evaluation, pairs: Sequence[Pair]) -> str:
    """The metric that tells most of a class: the headline's, or the first that classes have."""
    own = {look.name for look in found.classes}
    of_classes = dict.fromkeys(metric for metric, name in pairs if name in own)
    headline = found.headline[0]
    return headline if headline in of_classes else next(iter(of_classes), headline)


def forest_table(found: Evaluation, summary: pd.DataFrame) -> ForestTable:
    """The spotlight metric of each class with its interval."""
    numbers = _by_pair(summary)
    metric = spotlight(found, [*numbers])
    names = _labels(found, [pair for pair in numbers if pair[0] == metric])
    rows = [numbers[metric, name] for name in names]
    drawn = forest([(row["low"], row["value"], row["high"]) for row in rows])
    looks = {look.name: look for look in found.classes}
    return ForestTable(
        shown(metric),
        [
            (label(name), looks.get(name), cell(row["value"], metric), at)
            for name, row, at in zip(names, rows, drawn.rows, strict=True)
        ],
        (f"{drawn.ends[0]:.3g}", f"{drawn.ends[1]:.3g}"),
    )


def _class_row(metric: str, name: str, row: dict[str, float], looks: dict[str, Look]) -> ClassRow:
    known = shown(metric)
    drawn = not known.unit and 0 <= row["value"] <= 1
    spreads = row["n"] > 1 and not known.counted
    spread = row if spreads else row | dict.fromkeys(("median", "q1", "q3"), math.nan)
    return ClassRow(
        label(name),
        looks.get(name),
        cell(row["value"], metric),
        interval(row["low"], row["high"], metric),
        cell(spread["median"], metric, why=NO_SPREAD),
        interval(spread["q1"], spread["q3"], metric, why=NO_SPREAD),
        int(row["n"]),
        whisker(row["low"], row["value"], row["high"], ends=(0.0, 1.0)) if drawn else None,
    )


def _metrics(found: Evaluation, pairs: Sequence[Pair]) -> list[str]:
    names = dict.fromkeys(metric for metric, _ in pairs)
    return sorted(names, key=lambda name: name != found.headline[0])


def _labels(found: Evaluation, pairs: Sequence[Pair]) -> list[str]:
    """What speaks of all classes first, then the classes in their own order."""
    names = dict.fromkeys(name for _, name in pairs)
    own = [look.name for look in found.classes]
    return [*(name for name in names if name not in own), *(name for name in own if name in names)]


def _columns(found: Evaluation, pairs: Sequence[Pair]) -> list[Pair]:
    """The spotlight metric of each class, then what else speaks of the whole case."""
    own = [look.name for look in found.classes]
    several = len({name for _, name in pairs if name in own}) > 1
    bright, order = spotlight(found, pairs), [metric for metric, _ in pairs]

    def rank(pair: Pair) -> tuple[bool, bool, int, int]:
        metric, name = pair
        position = own.index(name) if name in own else -1
        return metric != bright, name in own and several, order.index(metric), position

    others = sorted((pair for pair in pairs if pair != found.headline), key=rank)
    return others[: MOST_COLUMNS - 1]


def _value(value: float | None, metric: str) -> Value:
    if value is None or not math.isfinite(value):
        return Value(cell(value, metric), None)
    return Value(cell(value, metric), float(value))
