"""The log of a run: every step once, whatever was torn."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from common.journal import Journal, read_log


def written(folder: Path, steps: range, first_step: int = 0) -> None:
    journal = Journal(folder, first_step)
    for step in steps:
        journal.write(step, {"loss/total": 1 / step, "coverage": 0.5})
    journal.close()


def test_what_was_written_is_read(tmp_path: Path) -> None:
    written(tmp_path, range(1, 4))
    assert read_log(tmp_path / "log.csv") == [
        (step, name, value)
        for step in (1, 2, 3)
        for name, value in (("loss/total", 1 / step), ("coverage", 0.5))
    ]


def test_the_first_line_names_the_columns(tmp_path: Path) -> None:
    written(tmp_path, range(1, 2))
    assert (tmp_path / "log.csv").read_text().splitlines()[0] == "step,quantity,value"


def test_no_file_is_no_rows(tmp_path: Path) -> None:
    assert read_log(tmp_path / "log.csv") == []


def test_going_on_drops_what_came_after_and_keeps_every_step_once(tmp_path: Path) -> None:
    written(tmp_path, range(1, 9))
    written(tmp_path, range(6, 11), first_step=5)
    steps = [step for step, name, _ in read_log(tmp_path / "log.csv") if name == "coverage"]
    assert steps == [*range(1, 11)]


def test_names_with_commas_and_values_beyond_numbers_survive(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 0)
    journal.write(1, {'validation/dice/"left", upper': math.nan, "loss/total": math.inf})
    journal.close()
    (_, name, nan), (_, _, infinite) = read_log(tmp_path / "log.csv")
    assert name == 'validation/dice/"left", upper'
    assert math.isnan(nan)
    assert infinite == math.inf


@pytest.mark.parametrize("torn", range(1, 22))
def test_a_torn_last_line_is_dropped_wherever_it_tore(tmp_path: Path, torn: int) -> None:
    written(tmp_path, range(1, 4))
    path = tmp_path / "log.csv"
    whole = path.read_bytes()
    assert whole.endswith(b"\r\n3,coverage,0.5\r\n")
    path.write_bytes(whole + b"4,loss/total,-0.25e-3"[:torn])
    assert [step for step, *_ in read_log(path)] == [1, 1, 2, 2, 3, 3]
    written(tmp_path, range(4, 5), first_step=3)
    assert [step for step, *_ in read_log(path)] == [1, 1, 2, 2, 3, 3, 4, 4]


def test_events_lie_beside_the_log(tmp_path: Path) -> None:
    written(tmp_path, range(1, 3))
    assert [*(tmp_path / "events").iterdir()]
