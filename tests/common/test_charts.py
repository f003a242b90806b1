from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.charts import MOST_POINTS, Series, forest, line_chart, rank_chart, whisker
from common.paints import of_palette

VALUES = st.lists(
    st.floats(-1e6, 1e6, allow_subnormal=False) | st.just(math.nan), min_size=1, max_size=700
)


def chart_of(values: list[float], shows: tuple[float, ...] = ()):
    points = [(10.0 * (i + 1), value) for i, value in enumerate(values)]
    return line_chart("t", "a", [Series("s", of_palette(0), points)], shows=shows)


@given(values=VALUES)
@settings(max_examples=60, deadline=None)
def test_every_line_dot_and_tick_lies_within_the_axes(values: list[float]) -> None:
    chart = chart_of(values)
    line = chart.lines[0]
    points = [tuple(map(float, p.split(","))) for stroke in line.strokes for p in stroke.split()]
    points += [(x, y) for x, y, _ in line.dots]

    assert len(points) <= 2 * MOST_POINTS
    assert all(chart.left - 0.1 <= x <= chart.right + 0.1 for x, _ in points)
    assert all(chart.top - 0.1 <= y <= chart.bottom + 0.1 for _, y in points)
    assert all(chart.top - 0.1 <= tick.at <= chart.bottom + 0.1 for tick in chart.y_ticks)
    assert 1 <= len(chart.y_ticks) <= 12
    assert len({tick.text for tick in chart.y_ticks}) == len(chart.y_ticks)


def test_a_long_line_is_drawn_as_means_and_says_so() -> None:
    chart = chart_of([float(i % 2) for i in range(3000)])

    ys = {float(p.split(",")[1]) for p in chart.lines[0].strokes[0].split()}
    assert len(chart.lines[0].strokes[0].split()) == MOST_POINTS
    assert chart.averaged
    assert len(ys) == 1


def test_a_value_that_is_missing_breaks_the_line() -> None:
    chart = chart_of([1.0, 2.0, math.nan, 3.0, 4.0])

    assert [len(stroke.split()) for stroke in chart.lines[0].strokes] == [2, 2]
    assert chart.lines[0].last == 4.0


def test_ticks_are_round_numbers_and_the_last_step_has_one() -> None:
    chart = chart_of([0.0, 1.0] * 50, shows=(0.0, 1.0))

    assert [tick.text for tick in chart.y_ticks] == ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]
    assert [tick.text for tick in chart.x_ticks] == ["0", "200", "400", "600", "800", "1,000"]


def test_a_single_point_is_a_dot() -> None:
    chart = chart_of([0.5])

    assert chart.lines[0].strokes == []
    assert len(chart.lines[0].dots) == 1


def test_ranks_run_from_the_worst_to_the_best() -> None:
    chart = rank_chart("t", "a", [("b", 0.9), ("a", 0.1), ("c", 0.5)])

    assert [text for _, _, text in chart.lines[0].dots] == ["a: 0.100", "c: 0.500", "b: 0.900"]
    heights = [y for _, y, _ in chart.lines[0].dots]
    assert heights == sorted(heights, reverse=True)
    assert chart.rules[0].text == "median 0.500"


def test_a_whisker_runs_from_0_to_100() -> None:
    assert whisker(0.0, 0.5, 1.0, ends=(0.0, 1.0)) == (0, 50, 100)
    assert whisker(math.nan, 0.5, math.nan, ends=(0.0, 1.0)) == (50, 50, 50)
    assert whisker(0.0, math.nan, 1.0, ends=(0.0, 1.0)) is None


def test_a_forest_holds_all_its_intervals() -> None:
    found = forest([(0.71, 0.75, 0.79), (0.82, 0.85, 0.88)])

    assert found.ends == (0.7, 0.9)
    assert found.rows[0] == pytest.approx((5, 25, 45))


@pytest.mark.parametrize("rows", [[], [(math.nan, math.nan, math.nan)], [(3.0, 3.0, 3.0)]])
def test_a_forest_of_nothing_much_is_still_drawn(rows: list[tuple[float, float, float]]) -> None:
    first, last = forest(rows).ends

    assert first <= last
