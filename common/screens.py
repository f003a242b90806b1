"""What the command line shows at length: a page as wide as the terminal, lines for a pipe."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from common.caveats import alarms
from common.comparison import Comparison
from common.config import Run
from common.curves import read_curves
from common.display import ends, heading, label, number, percent, plural, share, shown
from common.evidence import WHERE, ClassEvidence, class_rows, yaml_of
from common.methods_table import Row, Setting, explained, named, row_of, rows, settings_of
from common.postprocessing import Choice
from common.record import Diagnosis
from common.refiners import AnyRefiner
from common.tables import DETAILS

WIDE = 120
"""Columns from which on every fact about a method has a column of its own."""

READING = (
    "Networks: how many are held; how many of them learn. Forwards: passes per step.\n"
    "All of them run in 2D and in 3D, on volumes and on scenes."
)


class Screen(NamedTuple):
    """The same twice."""

    page: RenderableType  # for a terminal
    lines: Sequence[str]  # for grep, cut and files: tabs between columns, nothing wrapped
    advice: str = ""  # ends the page, and is not wrapped, for it is to be copied


def of_methods(schema: type[Run], *, width: int) -> Screen:
    """All methods that runs of ``schema`` may name, by family, in ``width`` columns."""
    found = rows(schema)
    table = _table(width)
    for family, members in groupby(found, key=lambda row: row.family):
        table.add_row(f"[bold yellow]{escape(family)}[/]")
        for row in members:
            table.add_row(*(_wide_cells(row) if width >= WIDE else _narrow_cells(row)))
        table.add_section()
    lines = ["\t".join(Row._fields), *("\t".join(map(str, row)) for row in found)]
    return Screen(Group(table, READING), lines)


def of_method(name: str, schema: type[Run]) -> Screen:
    """One method: its docstring, and every key it takes.

    Raises:
        ConfigError: When there is none of this name.
    """
    method = named(name, schema)
    row, text, settings = row_of(method), explained(method), settings_of(method)
    head = f"[bold]{escape(name)}[/]  {escape('. '.join(_facts(row)))}"
    body = [Padding(escape(line), (0, 0, 0, 2)) for line in text]
    lines = [
        "\t".join(map(str, row)),
        *("", *text, ""),
        "\t".join(Setting._fields),
        *("\t".join(each) for each in settings),
    ]
    return Screen(Group(head, "", *body, "", _keys(settings)), lines)


def of_diagnosis(found: Diagnosis, folder: Path) -> Screen:
    """What pseudo-labels are worth: facts, a line for each class, alarms, thresholds to paste."""
    head = [*_about(found)]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    columns = ("class", "predicted", "ECE", "precision", "threshold", "coverage", "precision there")
    for name in columns:
        table.add_column(name, justify="left" if name == "class" else "right", overflow="fold")
    rows = [_cells(row) for row in class_rows(found)]
    for row in rows:
        table.add_row(*map(escape, row))
    warned = alarms(found.classes, read_curves(folder / "log.csv"), found)
    said = [f"Alarm: {each}" for each in warned]
    paste, yaml = f"Thresholds for a precision of {found.precision:g}:", yaml_of(found)
    where = f"All of it: {folder / 'diagnosis.csv'} and {folder / 'diagnosis.json'}"
    page = Group(
        *map(escape, head),
        table,
        *(f"[yellow]{escape(each)}[/]" for each in said),
        *("", f"[bold]{escape(paste)}[/]", escape(yaml), "", escape(where)),
    )
    plain = ["\t".join(columns), *("\t".join(row) for row in rows)]
    return Screen(page, [*head, "", *plain, "", *said, "", paste, *yaml.splitlines(), "", where])


def of_comparison(found: Comparison, *, details: Sequence[str] = DETAILS) -> Screen:
    """What runs differ by from a baseline: a line for each metric and class, the headline first."""
    about = (
        f"{plural(found.cases, f'{found.split} case')} in {plural(found.groups, 'group')}, against "
        f"{found.baseline}. Intervals: 95 %, groups drawn again. p: Wilcoxon, of the groups."
    )
    columns = ("metric", "class", found.baseline, "run", "difference", "interval", "p")
    pages: list[RenderableType] = [escape(about)]
    lines = [about, "", "\t".join(("name", *columns))]
    for name, own in found.differences.groupby("run", sort=False):
        grid = Table(title=f"[bold]{escape(str(name))}[/]", box=box.SIMPLE_HEAD, pad_edge=False)
        for column in columns:
            left = column in ("metric", "class")
            grid.add_column(escape(column), justify="left" if left else "right", overflow="fold")
        for row in own.itertuples(index=False):
            if row.metric not in details:
                cells = _compared(row)
                grid.add_row(*map(escape, cells), style="" if _sure(row) else "dim")
                lines.append("\t".join((str(name), *cells)))
        pages.append(grid)
    return Screen(Group(*pages), lines)


def _compared(row: Any) -> tuple[str, ...]:  # noqa: ANN401
    """The cells of one difference."""
    arrow = {"higher": "↑", "lower": "↓"}.get(shown(row.metric).better, "")
    values = (number(each, row.metric) for each in (row.baseline, row.value))
    sign = "+" if row.difference > 0 else ""
    return (
        f"{shown(row.metric).title} {arrow}".strip(),
        label(row[2]),
        *values,
        f"{sign}{number(row.difference, row.metric)}",
        ends(row.low, row.high, row.metric),
        "" if math.isnan(row.p) else f"{row.p:.2g}",
    )


def of_choice(found: Choice) -> Screen:
    """Whether a refiner makes predictions better, and how to ask for it."""
    metric, name = found.headline
    about = (
        f"{heading(metric, name)} of {plural(found.cases, 'validation case')} in "
        f"{plural(found.groups, 'group')}, before and after. Intervals: 95 %, groups drawn again."
    )
    columns = ("refiners", "before", "after", "difference", "interval")
    grid, lines = Table(box=box.SIMPLE_HEAD, pad_edge=False), [about, "", "\t".join(columns)]
    for column in columns:
        grid.add_column(column, justify="left" if column == "refiners" else "right")
    for each in found.tried:
        words = " + ".join(_in_words(refiner) for refiner in each.refiners)
        sign = "+" if each.difference > 0 else ""
        cells = (
            words,
            *(number(value, metric) for value in (found.before, each.value)),
            f"{sign}{number(each.difference, metric)}",
            ends(each.low, each.high, metric),
        )
        grid.add_row(*map(escape, cells), style="" if each.helps else "dim")
        lines.append("\t".join(cells))
    advice = _advice(found)
    return Screen(Group(escape(about), grid), [*lines, "", advice], advice)


def _advice(found: Choice) -> str:
    if found.best is None:
        return "None of them helps beyond chance: predict as it is."
    listed = ", ".join(_flow(each) for each in found.best.refiners)
    return f'Helps: predict and evaluate with --set "refiners=[{listed}]"'


def _in_words(refiner: AnyRefiner) -> str:
    values = refiner.model_dump(exclude_none=True)
    return ", ".join([str(values.pop("name")), *(f"{key} {values[key]}" for key in values)])


def _flow(refiner: AnyRefiner) -> str:
    """As YAML takes it on a command line."""
    values = refiner.model_dump(exclude_none=True)
    return "{" + ", ".join(f"{key}: {value}" for key, value in values.items()) + "}"


def _sure(row: Any) -> bool:  # noqa: ANN401
    """Whether the interval leaves out 0."""
    return bool(row.low > 0 or row.high < 0)


def _about(found: Diagnosis) -> Iterator[str]:
    """What was looked at, and what must be known of it."""
    drawn = f"{len(found.cases)} of {plural(found.held, f'{found.split} case')}"
    yield f"Looked at {drawn}. The run teaches: {found.filter}."
    yield WHERE[found.split]
    yield (
        f"All pixels: {percent(share(*_together(found)))} right, confidence off by "
        f"{percent(found.error)} (ECE)."
    )


def _together(found: Diagnosis) -> tuple[float, float]:
    right = sum(curve.right[0] for curve in found.curves)
    return right, sum(curve.pixels[0] for curve in found.curves)


def _cells(row: ClassEvidence) -> tuple[str, ...]:
    threshold = "none has it" if row.threshold is None else f"{row.threshold:g}"
    shares = (row.predicted, row.error, row.precision)
    return (
        row.name, *map(percent, shares), threshold, percent(row.coverage), percent(row.reached),
    )  # fmt: skip


def _table(width: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, expand=True)
    table.add_column("method", no_wrap=True)
    if width < WIDE:
        table.add_column("idea, paper, cost", ratio=1, overflow="fold")
        return table
    table.add_column("paper", ratio=3, overflow="fold")
    table.add_column("year", no_wrap=True)
    for head, ratio in (("idea", 7), ("networks", 2), ("forwards", 3), ("needs", 3)):
        table.add_column(head, ratio=ratio, overflow="fold")
    return table


def _wide_cells(row: Row) -> Iterator[str]:
    yield f"  [bold]{escape(row.name)}[/]"
    yield from map(escape, (row.paper, str(row.year), row.idea))
    yield from map(escape, (row.networks, row.forwards, row.needs))


def _narrow_cells(row: Row) -> Iterator[str]:
    yield f"  [bold]{escape(row.name)}[/]"
    yield f"{escape(row.idea)}\n[dim]{escape('. '.join(_facts(row)))}[/]"


def _facts(row: Row) -> Iterator[str]:
    yield f"{row.paper}, {row.year}"
    yield f"Networks {row.networks}"
    yield f"Forwards {row.forwards}"
    if row.needs:
        yield f"Needs {row.needs}"


def _keys(settings: Sequence[Setting]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, expand=True)
    table.add_column("key", no_wrap=True)
    for head in ("default", "takes", "meaning"):
        table.add_column(head, ratio=1, overflow="fold")
    for each in settings:
        table.add_row(f"[bold]{escape(each.name)}[/]", *map(escape, each[1:]))
    return table
