"""A trained run, diagnosed on the command line and in its report: the same for both adapters."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from common import verbs
from common.adapter import Adapter
from common.config import Run
from common.errors import ConfigError
from common.record import Diagnosis, read_diagnosis


class Said(NamedTuple):
    """What a command left on a terminal."""

    code: int
    out: str
    err: str


def command(adapter: Adapter, *words: object) -> Said:
    """The console script, in a process of its own."""
    package = type(adapter).__module__.partition(".")[0]
    call = [sys.executable, "-c", f"import {package}.cli; {package}.cli.main()"]
    ended = subprocess.run([*call, *map(str, words)], capture_output=True, text=True, check=False)
    return Said(ended.returncode, ended.stdout, ended.stderr)


def follow(run: Run, adapter: Adapter, folder: Path) -> Diagnosis:
    """Train, diagnose, evaluate, diagnose again, and train by the thresholds that were printed."""
    assert verbs.train(run, adapter, folder).finished
    code, said, problem = command(adapter, "diagnose", folder, "--precision", 0.6)
    assert code == 0, problem
    found = read_diagnosis(folder / "diagnosis.json")
    assert found is not None
    _says_it_all(said, found, folder)
    assert not (folder / "report.html").exists()

    page = verbs.evaluate(folder, adapter).read_text(encoding="utf-8")
    for words in ("Precision over coverage", "Reliability", "Where the kept pixels lie"):
        assert words in page
    assert "Thresholds for a precision of 60.0 %" in page  # as was asked for before

    verbs.diagnose(folder, adapter, precision=0.7)
    assert "Thresholds for a precision of 70.0 %" in (folder / "report.html").read_text("utf-8")
    with pytest.raises(ConfigError, match=r"--precision 7: give a share above 0, such as 0.95"):
        verbs.diagnose(folder, adapter, precision=7)

    _trains_by(said, run, adapter, folder.with_name("next"))
    return found


def _says_it_all(said: str, found: Diagnosis, folder: Path) -> None:
    lines = said.splitlines()
    assert f"The run teaches: {found.filter}." in said
    head = "class\tpredicted\tECE\tprecision\tthreshold\tcoverage\tprecision there"
    table = lines[lines.index(head) + 1 :][: len(found.classes)]
    assert [row.split("\t")[0] for row in table] == [look.name for look in found.classes]
    assert f"Thresholds for a precision of {found.precision:g}:" in lines
    assert str(folder / "diagnosis.csv") in said


def _trains_by(said: str, run: Run, adapter: Adapter, folder: Path) -> None:
    """The YAML on the terminal, pasted into the config."""
    text = said[said.index("method:\n") : said.index("    ]\n") + len("    ]\n")]
    chosen = yaml.safe_load(text)["method"]["filter"]
    values = run.model_dump(mode="json")
    values["method"]["filter"] = chosen
    assert chosen["name"] == "class_confidence"
    assert verbs.train(adapter.schema.model_validate(values), adapter, folder).finished
