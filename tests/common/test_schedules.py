"""Factors of progress: ends, shapes, and values from the formulas."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import schedules

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
