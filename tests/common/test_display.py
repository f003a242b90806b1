from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.display import (
    DASH,
    METRICS,
    MINUS,
    cell,
    ends,
    heading,
    interval,
    number,
    percent,
    plural,
    shown,
)


@pytest.mark.parametrize(
    ("metric", "title"),
    [
        ("dice", "Dice"),
        ("hd95_mm", "HD95 (mm)"),
        ("volume_ml", "Volume (ml)"),
        ("area_ha", "Area (ha)"),
        ("boundary_distance_mm", "Boundary distance (mm)"),
        ("cloud_share", "Cloud share"),
        ("mm", "Mm"),
        ("", ""),
    ],
)
def test_a_metric_has_a_name_and_its_unit(metric: str, title: str) -> None:
    assert shown(metric).title == title


@pytest.mark.parametrize(
    ("value", "metric", "text"),
    [
        (0.87449, "dice", "0.874"),
        (1.0, "dice", "1.000"),
        (2.345, "hd95_mm", "2.35"),
        (123.45, "volume_ml", "123.5"),
        (12345.6, "area_ha", "12,346"),
        (0.0123, "volume_ml", "0.012"),
        (-4.5, "volume_error_percent", f"{MINUS}4.50"),
        (3.0, "missed", "3"),
        (math.inf, "hd95_mm", "∞"),
        (math.nan, "dice", DASH),
        (None, "dice", DASH),
    ],
)
def test_numbers_are_as_long_as_they_are_sure(value: float | None, metric: str, text: str) -> None:
    assert number(value, metric) == text


@given(value=st.floats(), metric=st.sampled_from([*METRICS, "new_mm", "new"]))
def test_every_number_can_be_shown(value: float, metric: str) -> None:
    text = number(value, metric)

    assert text
    assert "nan" not in text
    assert "inf" not in text


def test_a_dash_explains_itself_and_escapes_the_reason() -> None:
    assert cell(math.nan, why='a "b" <c>') == f'<abbr title="a &#34;b&#34; &lt;c&gt;">{DASH}</abbr>'


def test_an_interval_needs_both_ends() -> None:
    assert ends(0.1, 0.2, "dice") == f"0.100 {DASH} 0.200"
    assert ends(-1.0, 2.0, "volume_error_ml") == f"{MINUS}1.00 to 2.00"
    assert ends(math.nan, 2.0) == ""
    assert "No interval" in interval(math.nan, math.nan)


def test_words() -> None:
    assert percent(0.9734) == "97.3 %"
    assert percent(math.nan) == DASH
    assert plural(1, "case") == "1 case"
    assert plural(1234, "case") == "1,234 cases"
    assert plural(2, "class") == "2 classes"
    assert heading("hd95_mm", "liver") == "HD95 (mm), liver"
