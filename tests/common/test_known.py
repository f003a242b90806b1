"""What is known of cases, cut into subgroups, and how a report compares them."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.display import DASH
from common.known import MOST_NUMBERS, UNKNOWN, subgroups
from common.report import write_report
from common.subgroups import subgroup_tables
from tests.common.runs import medical


def test_words_and_few_numbers_are_subgroups_themselves() -> None:
    assert subgroups({"a": "GE", "b": " GE ", "c": "", "d": "Siemens"}) == {
        "a": "GE",
        "b": "GE",
        "c": UNKNOWN,
        "d": "Siemens",
    }
    assert subgroups({"a": "1.5", "b": "3"}) == {"a": "1.5", "b": "3"}


def test_what_tells_cases_apart_is_not_kept() -> None:
    assert subgroups({f"c{n}": f"patient {n}" for n in range(13)}) == {}
    assert len(subgroups({f"c{n}": f"site {n % 12}" for n in range(24)})) == 24


@given(st.lists(st.integers(0, 90), min_size=MOST_NUMBERS + 1, max_size=40))
def test_many_numbers_are_cut_at_their_quartiles(ages: list[int]) -> None:
    found = subgroups({f"c{n}": str(age) for n, age in enumerate(ages)})
    if len({*ages}) <= MOST_NUMBERS:
        assert [*found.values()] == [str(age) for age in ages]
        return
    assert len({*found.values()}) <= 4
    for age, name in zip(ages, found.values(), strict=True):
        match = re.fullmatch(r"(\S+) to (\S+)", name)
        assert match
        assert float(match[1]) - 0.001 <= age <= float(match[2]) + 0.001


@pytest.fixture
def found(tmp_path):
    evaluation = medical(tmp_path, 20)
    cases = [*evaluation.scores]
    sex = dict(zip(cases, ["F", "M"] * 10, strict=True))
    age = subgroups({case: str(30 + 2 * n) for n, case in enumerate(cases)})
    known = {"sex": sex, "age": age, "name": {}}
    changed = evaluation.model_copy(update={"subgroups": known})
    (tmp_path / "evaluation.json").write_text(changed.model_dump_json(), "utf-8")
    return changed


def test_each_subgroup_is_the_mean_of_its_cases(found) -> None:
    sex, age, name = subgroup_tables(found, {})
    assert [(row.value, row.cases, row.groups) for row in sex.rows] == [
        ("F", 10, 10),
        ("M", 10, 10),
    ]
    scores = np.array([*found.scores.values()], dtype=float)
    assert sex.rows[0].mean == f"{scores[::2].mean():.3f}"
    assert sex.rows[1].worst == f"{scores[1::2].min():.3f}"
    low, high = map(float, sex.rows[0].interval.replace(DASH, " ").split())
    assert low < scores[::2].mean() < high
    assert [row.value for row in age.rows] == [
        "30 to 39.5",
        "39.5 to 49",
        "49 to 58.5",
        "58.5 to 68",
    ]
    assert sum(row.cases for row in age.rows) == 20
    assert not name.rows
    assert name.note == "more than 12 different values; not kept."


def test_a_report_shows_them_and_says_nothing_where_nothing_is_known(found, tmp_path) -> None:
    page = write_report(tmp_path).read_text("utf-8")
    assert "<h3>Subgroups</h3>" in page
    assert '<th scope="row">39.5 to 49</th>' in page
    plain = found.model_copy(update={"subgroups": {}})
    (tmp_path / "evaluation.json").write_text(plain.model_dump_json(), "utf-8")
    page = write_report(tmp_path).read_text("utf-8")
    assert "<h3>Subgroups</h3>" not in page
    assert "None was looked at" in page
