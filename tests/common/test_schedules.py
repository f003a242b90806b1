"""Factors of progress: ends, shapes, and values from the formulas."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from common import schedules
from common.schedules import (
    Cosine,
    Exponential,
    Jump,
    Linear,
    Schedule,
    Share,
    Sigmoid,
    Weight,
    value_at,
)
from common.settings import Settings

progress = st.floats(0, 1)
some_progress = st.floats(0.01, 1)


@given(progress, progress, some_progress)
def test_the_ramp_never_falls_and_ends_at_one(a: float, b: float, until: float) -> None:
    first, second = sorted((a, b))
    low, high = (schedules.sigmoid_ramp(each, until) for each in (first, second))
    assert 0 < low <= high <= 1
    assert schedules.sigmoid_ramp(until, until) == 1


def test_the_ramp_follows_its_paper() -> None:
    assert schedules.sigmoid_ramp(0, 0.5) == pytest.approx(math.exp(-5))
    assert schedules.sigmoid_ramp(0.25, 0.5) == pytest.approx(math.exp(-1.25))


def test_a_ramp_of_no_length_is_over_at_once() -> None:
    assert schedules.sigmoid_ramp(0, 0) == 1
    assert schedules.warm_up(0, 0) == 1


@given(progress, progress)
def test_poly_and_cosine_fall_from_one_to_zero(a: float, b: float) -> None:
    first, second = sorted((a, b))
    for falls in (schedules.poly, schedules.cosine):
        assert 1 >= falls(first) >= falls(second) >= 0
        assert falls(0) == 1
        assert falls(1) == pytest.approx(0, abs=1e-12)


def test_poly_and_cosine_by_hand() -> None:
    assert schedules.poly(0.5) == pytest.approx(0.5**0.9)
    assert schedules.cosine(0.5) == pytest.approx(0.5)
    assert schedules.cosine(1 / 3) == pytest.approx(0.75)


@given(progress)
def test_one_cycle_stays_between_its_ends_and_its_peak(at: float) -> None:
    assert 1e-5 <= schedules.one_cycle(at) <= 1


def test_one_cycle_rises_to_its_peak_and_falls() -> None:
    assert schedules.one_cycle(0) == pytest.approx(1 / 25)
    assert schedules.one_cycle(0.3) == pytest.approx(1)
    assert schedules.one_cycle(1) == pytest.approx(1e-5)
    values = [schedules.one_cycle(step / 100) for step in range(101)]
    assert values[:31] == sorted(values[:31])
    assert values[30:] == sorted(values[30:], reverse=True)


@given(progress, some_progress)
def test_warm_up_is_a_straight_line_that_stops_at_one(at: float, until: float) -> None:
    assert schedules.warm_up(at, until) == pytest.approx(min(at / until, 1))


@given(progress)
def test_constant_is_one(at: float) -> None:
    assert schedules.constant(at) == 1


SCHEDULES = [
    kind(start=low, end=high, since=0.2, until=0.6)
    for kind in (Linear, Sigmoid, Cosine, Exponential, Jump)
    for low, high in ((0.0 if kind is not Exponential else 0.1, 2.0), (3.0, 1.0))
]
each_schedule = pytest.mark.parametrize(
    "schedule", SCHEDULES, ids=lambda each: f"{each.name}-{each.start:g}-{each.end:g}"
)


@each_schedule
@given(progress=st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted))
def test_a_schedule_moves_one_way_from_start_to_end_and_stays_there(
    schedule: Schedule, progress: list[float]
) -> None:
    early, late = (schedule(each) for each in progress)
    assert (late - early) * (schedule.end - schedule.start) >= 0
    assert min(schedule.start, schedule.end) <= early <= max(schedule.start, schedule.end)
    assert schedule(0.0) == schedule(0.2) == schedule.start
    assert schedule(0.6) == schedule(1.0) == schedule.end


def test_schedules_by_hand() -> None:
    assert Linear(start=1, end=3, until=0.5)(0.25) == pytest.approx(2)
    assert Cosine(end=1)(0.5) == pytest.approx(0.5)
    assert Sigmoid(end=10, until=0.5)(0.25) == pytest.approx(10 * math.exp(-5 * 0.25))
    assert Exponential(start=5, end=0.5)(0.5) == pytest.approx(math.sqrt(5 * 0.5))
    assert Exponential(start=2, end=2)(0.5) == 2
    assert Jump(start=2, end=5, until=0.5)(0.49) == 2
    assert value_at(0.7, 0.1) == 0.7
    assert value_at(Linear(end=1), 0.1) == pytest.approx(0.1)


class Numbers(Settings):
    weight: Weight = 1.0
    share: Share = 0.5


def test_a_yaml_file_may_give_a_number_or_a_schedule() -> None:
    numbers = Numbers.model_validate({"weight": {"name": "linear", "end": 3}, "share": 1})
    assert value_at(numbers.weight, 0.5) == 1.5
    assert value_at(numbers.share, 0.5) == 1
    assert Numbers.model_validate(numbers.model_dump(mode="json")) == numbers


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"share": 1.5}, "less than or equal to 1"),
        (
            {"share": {"name": "linear", "end": 1.5}},
            "share.end\n  Input should be less than or equal",
        ),
        ({"weight": {"name": "jump", "end": 1, "since": 0.5, "until": 0.2}}, "Set since to 0.2"),
        ({"weight": {"name": "exponential", "start": 0, "end": 1}}, "greater than 0"),
        ({"weight": -1}, "greater than or equal to 0"),
        ({"weight": {"name": "lineer", "end": 1}}, "'lineer'"),
        ({"weight": {"name": "linear"}}, "Field required"),
    ],
)
def test_a_number_out_of_bounds_is_refused(values: dict, complaint: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(complaint)):
        Numbers.model_validate(values)
