"""Where the lines and dots of small charts lie. The report's template draws them as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from common.paints import Paint, of_palette

WIDTH, HEIGHT = 480.0, 230.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 10.0, 12.0, 30.0
UPWARDS = HEIGHT - BOTTOM, TOP
MOST_POINTS = 300
"""Longer lines are drawn as the means of this many equal stretches."""


class Tick(NamedTuple):
    """A mark on an axis."""

    at: float  # px
    text: str


@dataclass(frozen=True, slots=True)
class Line:
    """One quantity."""

    name: str
    paint: Paint
    strokes: Sequence[str]  # SVG points of each unbroken stretch
    dots: Sequence[tuple[float, float, str]]  # px, px, what to say of it
    last: float
    note: str = ""  # what the legend says of it; empty: its last value


@dataclass(frozen=True, slots=True)
class Chart:
    """A set of lines on shared axes."""

    title: str
    about: str
    lines: Sequence[Line]
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    x_label: str = "step"
    rules: Sequence[Tick] = field(default=())  # horizontal lines worth a name
    legend: str = "Last values:"  # what is said of each line; empty: no legend
    averaged: bool = False
    width: float = WIDTH
    height: float = HEIGHT
    left: float = LEFT
    right: float = WIDTH - RIGHT
    top: float = TOP
    bottom: float = HEIGHT - BOTTOM


Points = Sequence[tuple[float, float]]


class Series(NamedTuple):
    """A quantity over steps."""

    name: str
    paint: Paint
    points: Points  # (step, value) in order; NaN breaks the line
    note: str = ""


def line_chart(
    title: str, about: str, series: Sequence[Series], *, shows: Sequence[float] = ()
) -> Chart:
    """Quantities over steps.

    Args:
        title: Over the chart.
        about: One sentence below the title.
        series: What to draw.
        shows: Values that the vertical axis shows in any case, such as 0.
    """
    short = [each._replace(points=_thinned(each.points)) for each in series]
    steps = [x for each in short for x, _ in each.points]
    x_axis = _Axis.over([0.0, *steps], LEFT, WIDTH - RIGHT)
    values = [y for each in short for _, y in each.points]
    y_axis = _Axis.over([*values, *shows], *UPWARDS)
    return Chart(
        title,
        about,
        [_line(each, x_axis, y_axis, "step ") for each in short],
        x_axis.ticks(whole=True),
        y_axis.ticks(),
        averaged=any(len(each.points) > MOST_POINTS for each in series),
    )


def rank_chart(title: str, about: str, scores: Sequence[tuple[str, float]]) -> Chart:
    """Every case as a dot, from the lowest to the highest value, and their median."""
    ranked = sorted(scores, key=lambda each: (each[1], each[0]))
    values = [value for _, value in ranked]
    x_axis = _Axis(0.0, len(ranked) + 1.0, LEFT, WIDTH - RIGHT)
    y_axis = _Axis.over(_tenths(values), *UPWARDS)
    dots = [
        (x_axis.at(rank), y_axis.at(value), f"{case}: {value:.3f}")
        for rank, (case, value) in enumerate(ranked, start=1)
    ]
    middle = float(np.median(values))
    marks = sorted({1, len(ranked)})
    return Chart(
        title,
        about,
        [Line("case", of_palette(0), (), dots, middle)],
        [Tick(x_axis.at(mark), str(mark)) for mark in marks],
        y_axis.ticks(),
        x_label="cases, from worst to best",
        rules=[Tick(y_axis.at(middle), f"median {middle:.3f}")],
        legend="",
    )


def difference_chart(
    title: str,
    about: str,
    points: Sequence[tuple[str, float, float]],
    *,
    paint: Paint,
    rules: Sequence[tuple[float, str]],
    x_label: str,
) -> Chart:
    """Every case as a dot, ``(name, x, y)``, with named heights ruled across."""
    x_axis = _Axis.over([x for _, x, _ in points], LEFT + 12, WIDTH - RIGHT - 12)
    heights = [*(y for _, _, y in points), *(y for y, _ in rules)]
    y_axis = _Axis.over([*heights, 0.0], *UPWARDS)
    dots = [(x_axis.at(x), y_axis.at(y), f"{name}: {y:+.4g} at {x:.4g}") for name, x, y in points]
    return Chart(
        title,
        about,
        [Line("case", paint, (), dots, float(np.mean([y for _, _, y in points])))],
        x_axis.ticks(),
        y_axis.ticks(),
        x_label=x_label,
        rules=[Tick(y_axis.at(y), name) for y, name in rules],
        legend="",
    )


def share_chart(
    title: str,
    about: str,
    series: Sequence[Series],
    *,
    x_label: str,
    legend: str,
    asked: float | None = None,
) -> Chart:
    """One share against another, both from 0 to 1; what is ``asked`` is ruled across."""
    x_axis = _Axis(0.0, 1.0, LEFT, WIDTH - RIGHT)
    values = [y for each in series for _, y in each.points if math.isfinite(y)]
    y_axis = _Axis.over(_tenths([*values, 1.0, *([] if asked is None else [asked])]), *UPWARDS)
    rules = [] if asked is None else [Tick(y_axis.at(asked), f"asked for: {asked:g}")]
    return Chart(
        title,
        about,
        [_line(each, x_axis, y_axis, "") for each in series],
        x_axis.ticks(),
        y_axis.ticks(),
        x_label=x_label,
        rules=rules,
        legend=legend,
    )


def _tenths(values: Sequence[float]) -> tuple[float, float]:
    """The range of values; of fractions, widened to the tenths around them."""
    if not all(0 <= value <= 1 for value in values):
        return min(values), max(values)
    return math.floor(10 * min(values)) / 10, math.ceil(10 * max(values)) / 10


class Whisker(NamedTuple):
    """A value with its interval on a scale of 0 to 100."""

    low: float
    value: float
    high: float


@dataclass(frozen=True, slots=True)
class Forest:
    """One quantity of several classes, with intervals, on one scale."""

    rows: Sequence[Whisker | None]
    ends: tuple[float, float]


def forest(intervals: Sequence[tuple[float, float, float]]) -> Forest:
    """Where ``(low, value, high)`` of each class lie on a scale that just holds them all."""
    known = [each for row in intervals for each in row if math.isfinite(each)] or [0.0, 1.0]
    first, last = _tenths(known) if len(known) > 1 else (known[0] - 0.5, known[0] + 0.5)
    return Forest([whisker(*row, ends=(first, last)) for row in intervals], (first, last))


def whisker(low: float, value: float, high: float, *, ends: tuple[float, float]) -> Whisker | None:
    """Where an interval lies between two ``ends``; None where there is no value."""
    if not math.isfinite(value):
        return None
    low, high = (low if math.isfinite(low) else value), (high if math.isfinite(high) else value)
    first, last = ends
    width = (last - first) or 1.0
    return Whisker(*(_px(100 * (each - first) / width) for each in (low, value, high)))


class _Axis(NamedTuple):
    """From values to px."""

    first: float
    last: float
    start: float
    end: float

    @classmethod
    def over(cls, values: Sequence[float], start: float, end: float) -> _Axis:
        known = [value for value in values if math.isfinite(value)] or [0.0]
        low, high = min(known), max(known)
        if low == high:
            low, high = low - 0.5 * (low != 0), high + 0.5
        return cls(low, high, start, end)

    def at(self, value: float) -> float:
        share = (value - self.first) / (self.last - self.first)
        return _px(self.start + share * (self.end - self.start))

    def ticks(self, *, whole: bool = False) -> list[Tick]:
        """About five round values within the axis."""
        rough = (self.last - self.first) / 5
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * nice for nice in (1, 2, 2.5, 5, 10) if power * nice >= rough * 0.999)
        step = max(1.0, round(step)) if whole else step
        digits = max(0, 2 - math.floor(math.log10(step)) - 1) if step < 10 else 0
        count = math.floor(self.last / step + 1e-9)
        marks = [k * step for k in range(math.ceil(self.first / step - 1e-9), count + 1)]
        texts = [f"{mark:,.{digits}f}" for mark in marks]
        while digits and all(text.endswith("0") for text in texts):
            digits -= 1
            texts = [text[:-1].rstrip(".") for text in texts]
        return [Tick(self.at(mark), text) for mark, text in zip(marks, texts, strict=True)]


def _line(series: Series, x_axis: _Axis, y_axis: _Axis, what: str) -> Line:
    name, paint, points, note = series
    strokes: list[list[str]] = [[]]
    for x, y in points:
        if math.isfinite(y):
            strokes[-1].append(f"{x_axis.at(x):g},{y_axis.at(y):g}")
        else:
            strokes.append([])
    known = [(x, y) for x, y in points if math.isfinite(y)]
    dots = [(x_axis.at(x), y_axis.at(y), f"{name}, {what}{x:.6g}: {y:.4g}") for x, y in known]
    return Line(
        name,
        paint,
        [" ".join(stroke) for stroke in strokes if len(stroke) > 1],
        dots if len(dots) <= 25 else (),
        known[-1][1] if known else math.nan,
        note,
    )


def _thinned(points: Points) -> Points:
    """At most MOST_POINTS means of equal stretches; the last step stays where it is."""
    if len(points) <= MOST_POINTS:
        return points
    array = np.asarray(points, dtype=float)
    parts = np.array_split(array, MOST_POINTS)
    return [(float(part[-1, 0]), float(part[:, 1].mean())) for part in parts]


def _px(value: float) -> float:
    return round(value, 1)
