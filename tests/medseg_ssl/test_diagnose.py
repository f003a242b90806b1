"""From a config on volumes to a diagnosis, its words and its section of the report."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from common import verbs
from common.errors import RunError
from medseg_ssl.adapter import medseg
from tests.common import diagnosed
from tests.medseg_ssl.test_domain import opened, run_of
from tests.medseg_ssl.volumes import image_and_label, oblique, plain


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))


def test_a_run_is_diagnosed_on_its_validation_cases(tmp_path):
    splits = {"labeled": ["c0"], "validation": ["c1"], "test": ["c2", "c3"]}
    folder = plain(tmp_path / "data", affine=oblique((1.0, 1.2, 2.5), codes="LPS"))
    run = run_of(folder, tmp_path / "cache", splits=splits)
    method = {"refiners": [{"name": "superpixels"}, {"name": "largest_component"}]}
    values = run.model_dump(mode="json")
    run = medseg.schema.model_validate(values | {"method": values["method"] | method})

    found = diagnosed.follow(run, medseg, tmp_path / "run")

    assert found.split == "validation"
    assert found.cases == ("c1",)
    assert "; then superpixels, " in found.filter
    assert found.filter.endswith("; then largest_component")
    assert [each.name for each in found.distances][1] == "to 2 mm"
    _, label = image_and_label(1)
    assert sum(map(sum, (each.predicted for each in found.distances))) == label.size


def test_without_a_case_to_diagnose_with_it_says_so_and_ends_with_2(tmp_path):
    run = run_of(plain(tmp_path / "data"), tmp_path / "cache")
    assert verbs.train(run, medseg, tmp_path / "run").finished

    said = diagnosed.command(medseg, "diagnose", tmp_path / "run")

    assert said.code == 2
    said = " ".join(said.err.split())
    assert "DataError: nothing to diagnose with: this run has no validation case" in said
    assert "domain.splits.validation" in said
    assert "Not diagnosed" in verbs.evaluate(tmp_path / "run", medseg).read_text("utf-8")


def test_a_whole_case_lies_on_the_grid_of_its_file(tmp_path):
    folder = plain(tmp_path / "data", affine=oblique((1.0, 1.2, 2.5), codes="PSR"))
    domain = opened(run_of(folder, tmp_path / "cache", spacing_mm=[2.0, 2.0, 2.0]))
    case = next(domain.cases("test"))
    whole = domain.whole(case)
    image, label = image_and_label(2)
    assert whole.weak.image.shape == (1, 1, *label.shape)
    normal = torch.from_numpy((image - image.mean()) / image.std())
    torch.testing.assert_close(whole.weak.image[0, 0], normal, atol=1e-3, rtol=1e-3)
    assert whole.pixel.size == pytest.approx(case.geometry.spacing_mm)
    assert whole.weak.valid.all()


def test_thresholds_that_are_not_one_for_each_class_are_refused_in_the_config(tmp_path):
    values = run_of(tmp_path, tmp_path).model_dump(mode="json")
    values["method"]["filter"] = {"name": "class_confidence", "thresholds": [0.5, 0.6]}
    with pytest.raises(ValidationError, match=r"holds 2 values, but there are 3 classes. Give one"):
        medseg.schema.model_validate(values)


def test_a_run_folder_without_training_is_told(tmp_path):
    with pytest.raises(RunError, match=r"holds no best.ckpt"):
        verbs.diagnose(tmp_path, medseg)
