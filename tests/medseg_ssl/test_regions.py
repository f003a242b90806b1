"""Labels that are unions of others, as nnU-Net has them: read, drafted, measured, reported."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from pydantic import ValidationError

from common import verbs
from common.adapter import Wish
from medseg_ssl.adapter import medseg
from medseg_ssl.legend import read_legend
from medseg_ssl.measures import MeasureSettings, measure_volume, rules
from tests.medseg_ssl.test_domain import home, run_of
from tests.medseg_ssl.test_measures import CLASSES, SPACING_MM, blobs
from tests.medseg_ssl.volumes import image_and_label, save

__all__ = ["home"]  # a fixture
BRATS = {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing": 3}


def test_each_value_is_a_class_and_each_region_a_union():
    problems: list[str] = []
    legend = read_legend(BRATS | {"ignore": 4}, problems)
    assert not problems
    assert legend.classes == (
        ("background", 0),
        ("whole tumor 1", 1),
        ("tumor core 2", 2),
        ("enhancing", 3),
    )
    assert legend.ignore == 4
    assert legend.regions == (
        ("tumor core", ("tumor core 2", "enhancing")),
        ("whole tumor", ("whole tumor 1", "tumor core 2", "enhancing")),
    )


@pytest.mark.parametrize("strange", [[], ["a"], "b", None, [1.5]])
def test_what_is_no_number_is_refused(strange):
    problems: list[str] = []
    read_legend({"background": 0, "odd": strange}, problems)
    assert "label 'odd' stands for" in problems[0]


def test_two_names_of_one_value_are_told():
    problems: list[str] = []
    read_legend({"background": 0, "a": 1, "b": [1]}, problems)
    assert problems == [
        "dataset.json: labels 'a' and 'b' both stand for 1. Give each class a value of its own."
    ]


def test_a_region_is_measured_as_one_class_and_leaves_the_mean_alone():
    predicted, truth = blobs(0), blobs(1)
    probs = torch.nn.functional.one_hot(predicted, 3).movedim(-1, 0).float()

    def table(settings, classes=CLASSES, guess=probs, known=truth):
        found = measure_volume(
            guess, known, spacing_mm=SPACING_MM, classes=classes, settings=settings
        )
        return {(each.metric, each.label): each.value for each in found}

    both = table(MeasureSettings(regions={"both": ("near", "far")}))
    plain = table(MeasureSettings())
    assert {key: both[key] for key in plain} == pytest.approx(plain, nan_ok=True)
    merged = torch.stack([probs[0], probs[1] + probs[2]])
    as_one = table(MeasureSettings(), ("background", "both"), merged, (truth > 0).long())
    assert {key: value for key, value in both.items() if key[1] == "both"} == pytest.approx(
        {key: value for key, value in as_one.items() if key[1] == "both"}, nan_ok=True
    )
    assert "both is near and far" in " ".join(rules(MeasureSettings(regions={"both": CLASSES[1:]})))


@pytest.fixture
def tumors(tmp_path):
    """A folder as nnU-Net has it, with values 1, 2, 3."""
    folder = tmp_path / "data"
    for number in range(6):
        image, label = image_and_label(number)
        label[label == 4] = 2
        label[6, 6, 5] = 3
        save(folder / "imagesTr" / f"c{number}_0000.nii.gz", image)
        save(folder / "labelsTr" / f"c{number}.nii.gz", label)
    facts = {"channel_names": {"0": "T1"}, "labels": BRATS, "regions_class_order": [1, 2, 3]}
    (folder / "dataset.json").write_text(json.dumps(facts), encoding="utf-8")
    return folder


def test_a_drafted_run_reports_regions_beside_classes(tumors, tmp_path):
    text = medseg.draft(tumors, Wish(labeled=2))
    values = yaml.safe_load(text)
    assert values["domain"]["measures"]["regions"]["tumor core"] == ["tumor core 2", "enhancing"]
    (tmp_path / "a.yaml").write_text(text, "utf-8")
    short = ["fit.steps=2", "fit.accelerator=cpu", f"domain.cache={tmp_path / 'cache'}"]
    small = ["domain.patch=[16,16,16]", "domain.network={name: unet, features: [4, 8]}"]
    run = verbs.load(tmp_path / "a.yaml", medseg, [*short, *small])
    verbs.train(run, medseg, tmp_path / "run")
    report = verbs.evaluate(tmp_path / "run", medseg).read_text("utf-8")
    summary = pd.read_csv(tmp_path / "run" / "summary.csv", keep_default_na=False)
    assert {"tumor core", "whole tumor", "enhancing", "mean"} <= {*summary["class"]}
    assert ">whole tumor<" in report.replace("\n", "").replace(" <", "<").replace("> ", ">")
    (written,) = verbs.predict(
        tmp_path / "run", medseg, [tumors / "imagesTr" / "c0_0000.nii.gz"], tmp_path / "out"
    )
    assert {*np.unique(nib.load(written).dataobj)} <= {0, 1, 2, 3}


@pytest.mark.parametrize(
    "regions",
    [{"organ": ["lesion"]}, {"mean": ["organ"]}, {"a": []}, {"a": ["background"]}, {"a": ["x"]}],
)
def test_a_region_that_cannot_be_is_refused(tmp_path, regions):
    with pytest.raises(ValidationError, match=r"must be another name than those of classes"):
        run_of(tmp_path, tmp_path, measures={"regions": regions})
