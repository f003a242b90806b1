"""Tidying up a prediction, tried on validation cases."""

from __future__ import annotations

import shutil

import pytest
import torch

from common import postprocessing, screens, verbs
from common.batch import Pixel
from common.errors import DataError
from common.refiners import FillHoles, LargestComponent, Majority
from medseg_ssl.adapter import medseg
from tests.medseg_ssl.test_compare import dice
from tests.medseg_ssl.test_label import a_run, home

__all__ = ["home"]  # a fixture
SPLITS = {"labeled": ["c0"], "unlabeled": ["c4"], "validation": ["c1", "c2"], "test": ["c3"]}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    home = tmp_path_factory.mktemp("tidied")
    run = a_run(home, filter={"name": "all"}, splits=SPLITS)
    verbs.train(run, medseg, home / "run")
    return home / "run"


@pytest.fixture
def speck(monkeypatch):
    """Predictions are the truth, but for a speck of the first organ far from it."""

    def answer(runs, asking, case):
        truth = case.truth.clone()
        truth[0, 0, 0] = 1
        return torch.nn.functional.one_hot(truth.long(), 3).movedim(-1, 0).float()

    monkeypatch.setattr(postprocessing, "answer", answer)


def test_what_makes_predictions_better_is_found_and_can_be_pasted(trained, speck, tmp_path):
    seen = []
    found = verbs.postprocess([trained], medseg, watch=lambda *said: seen.append(said))
    assert seen == [("c1", 1, 2), ("c2", 2, 2)]
    assert (found.cases, found.groups, found.headline) == (2, 2, ("dice", "mean"))
    tried = {each.refiners: each for each in found.tried}
    alone, holes = tried[(LargestComponent(),)], tried[(FillHoles(),)]
    assert alone.value == 1
    assert alone.difference == pytest.approx(1 - found.before)
    assert alone.helps
    assert holes.difference < 0  # the lesion is a hole in the organ
    assert not holes.helps
    assert found.best == alone  # of equals the first

    screen = screens.of_choice(found)
    advice = screen.lines[-1]
    assert advice.endswith('--set "refiners=[{name: largest_component}]"')
    asked = advice.partition('--set "')[2].rstrip('"')
    verbs.otherwise([trained], medseg, [asked])


def test_each_candidate_is_measured_as_evaluate_measures_it(trained, tmp_path):
    found = verbs.postprocess([trained], medseg)
    for each in (found.tried[0], found.tried[-1]):
        words = ", ".join(screens._flow(refiner) for refiner in each.refiners)
        asked = verbs.otherwise([trained], medseg, [f"refiners=[{words}]"])
        output = tmp_path / each.refiners[0].name
        verbs.evaluate(trained, medseg, split="validation", otherwise=asked, output=output)
        assert each.value == pytest.approx(dice(output).mean())


def test_nothing_that_does_not_help_is_advised(trained, monkeypatch):
    def answer(runs, asking, case):
        return torch.nn.functional.one_hot(case.truth.long(), 3).movedim(-1, 0).float()

    monkeypatch.setattr(postprocessing, "answer", answer)
    found = verbs.postprocess([trained], medseg)
    assert found.before == 1
    assert found.best is None
    assert "None of them helps" in screens.of_choice(found).lines[-1]


def test_without_validation_cases_nothing_is_chosen(trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "run")
    text = (folder / "run.yaml").read_text()
    assert "- c1" in text
    before, _, after = text.partition("    validation:")
    after = after.partition("    test:")
    (folder / "run.yaml").write_text(f"{before}    validation: []\n    test:{after[2]}")
    with pytest.raises(DataError, match=r"no validation case with a label.*splits\.validation"):
        verbs.postprocess([folder], medseg)


def test_neighbors_are_those_within_one_and_a_half_pixels():
    *_, (last,) = postprocessing.candidates(Pixel((0.5, 0.5, 2.0), "mm"))
    assert last == Majority(radius=3.0)
    *_, (last,) = postprocessing.candidates(Pixel())
    assert last == Majority(radius=1.5)
