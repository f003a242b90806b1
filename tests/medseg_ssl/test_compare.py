"""Runs held against each other, case by case."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from common import screens, verbs
from common.errors import ConfigError, DataError, RunError
from common.record import read_cases, read_evaluation, read_summary
from medseg_ssl.adapter import medseg
from tests.medseg_ssl.test_label import a_run, home

__all__ = ["home"]  # a fixture
SPLITS = {"labeled": ["c0"], "unlabeled": ["c1"], "test": ["c2", "c3"]}


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """Two seeds, tested on two cases."""
    home = tmp_path_factory.mktemp("compared")
    run = a_run(home, filter={"name": "all"}, splits=SPLITS)
    folders = [home / f"run{seed}" for seed in (0, 1)]
    for seed, folder in enumerate(folders):
        verbs.train(run.model_copy(update={"seed": seed}), medseg, folder)
        verbs.evaluate(folder, medseg)
    return folders


def dice(folder, label="mean"):
    cases = read_cases(folder / "cases.csv")
    own = cases[(cases["metric"] == "dice") & (cases["class"] == label)]
    return own.set_index("case")["value"].sort_index()


def row(found, metric, label):
    rows = found.differences
    return rows[(rows["metric"] == metric) & (rows["class"] == label)].iloc[0]


def test_values_are_those_of_the_reports_and_differences_those_of_the_cases(evaluated):
    found = verbs.compare(evaluated, medseg)
    assert (found.baseline, found.split, found.cases) == (evaluated[0].name, "test", 2)
    mine = row(found, "dice", "mean")
    for folder, value in zip(evaluated, (mine["baseline"], mine["value"]), strict=True):
        summary = read_summary(folder / "summary.csv").set_index(["metric", "class"])["value"]
        assert value == pytest.approx(summary["dice", "mean"])
    difference = dice(evaluated[1]) - dice(evaluated[0])
    assert mine["difference"] == pytest.approx(difference.mean())
    assert mine["low"] == pytest.approx(difference.min())  # of 2 cases, a draw may be one twice
    assert mine["high"] == pytest.approx(difference.max())
    assert mine["p"] == pytest.approx(stats.wilcoxon(difference).pvalue)
    assert tuple(found.differences.loc[0, ["metric", "class"]]) == ("dice", "mean")


def test_a_run_does_not_differ_from_itself_and_order_only_turns_the_sign(evaluated):
    same = verbs.compare([evaluated[0], evaluated[0]], medseg).differences
    known = same["difference"].notna()
    assert known.any()
    assert (same.loc[known, "difference"] == 0).all()
    assert (same.loc[same["p"].notna(), "p"] == 1).all()
    there, back = (verbs.compare(each, medseg).differences for each in (evaluated, evaluated[::-1]))
    np.testing.assert_allclose(there["difference"], -back["difference"])


def test_several_runs_are_held_against_the_first(evaluated, tmp_path):
    path = tmp_path / "all.csv"
    found = verbs.compare([*evaluated, evaluated[0]], medseg, output=path)
    assert [*found.differences["run"].unique()] == [evaluated[1].name, evaluated[0].name]
    written = pd.read_csv(path, keep_default_na=False, na_values=[""])
    np.testing.assert_allclose(written["difference"], found.differences["difference"], rtol=1e-5)
    lines = screens.of_comparison(found).lines
    assert lines[0].startswith("2 test cases in 2 groups, against run0.")
    assert lines[3].startswith("run1\tDice ↑\tmean\t")


def test_runs_of_one_name_are_told_apart_by_their_folders(evaluated, tmp_path):
    twin = shutil.copytree(evaluated[1], tmp_path / evaluated[0].name)
    found = verbs.compare([evaluated[0], twin], medseg)
    assert found.baseline == str(evaluated[0])
    assert {*found.differences["run"]} == {str(twin)}


@pytest.fixture
def copies(evaluated, tmp_path):
    return [shutil.copytree(folder, tmp_path / folder.name) for folder in evaluated]


def test_runs_that_cannot_be_compared_are_refused(copies, tmp_path):
    with pytest.raises(ConfigError, match="compare needs two runs or more: the baseline first"):
        verbs.compare(copies[:1], medseg)
    with pytest.raises(RunError, match=r"holds no evaluation\. Run the verb evaluate on it first"):
        verbs.compare([copies[0], tmp_path], medseg)
    cases = copies[1] / "cases.csv"
    text = cases.read_text("utf-8")
    cases.write_text(text.replace("c3,c3", "c9,c9"), "utf-8")
    with pytest.raises(DataError, match=r"2 cases were measured in one run only: 'c3', 'c9'"):
        verbs.compare(copies, medseg)
    cases.write_text(text, "utf-8")
    held = copies[1] / "evaluation.json"
    whole = read_evaluation(held)
    held.write_text(whole.model_copy(update={"split": "validation"}).model_dump_json(), "utf-8")
    with pytest.raises(RunError, match=r"on split 'test', 'run1' on 'validation'\. Evaluate both"):
        verbs.compare(copies, medseg)
    held.write_text(whole.model_dump_json().replace('"lesion"', '"tumor"'), "utf-8")
    with pytest.raises(RunError, match="'run0' and 'run1' have different classes"):
        verbs.compare(copies, medseg)
