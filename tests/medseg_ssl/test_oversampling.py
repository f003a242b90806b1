"""Volumes of poor classes come more often; nobody asks what unlabeled ones show."""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from common import verbs
from medseg_ssl.adapter import medseg
from medseg_ssl.domain import Volumes
from medseg_ssl.settings import MedsegRun
from tests.medseg_ssl.volumes import CLASSES, plain, save

LEVELS = {"c0": -1000, "c1": 0, "c2": 1000}  # an intensity to tell each labeled case by


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Only c1 shows the lesion; the label of c3, which is unlabeled, cannot be read."""
    folder = plain(tmp_path / "data", cases=6, labeled=5)
    for name, level in LEVELS.items():
        noise = np.random.default_rng(0).normal(scale=9, size=(14, 12, 10))
        image = (level + noise).astype(np.float32)
        save(folder / "images" / f"{name}.nii.gz", image)
        label = np.asarray(nib.load(folder / "labels" / f"{name}.nii.gz").dataobj).copy()
        label[label == 4] = 4 if name == "c1" else 0
        save(folder / "labels" / f"{name}.nii.gz", label)
    (folder / "labels" / "c3.nii.gz").write_bytes(b"reading this fails")
    return folder


def run_of(folder: Path, rule: str = "class_calibrated", **splits: list[str]) -> MedsegRun:
    domain = {
        "data": folder,
        "cache": folder.parent / "cache",
        "classes": [{"name": name, "value": value} for name, value in CLASSES.items()],
        "splits": {"labeled": [*LEVELS], "unlabeled": ["c3", "c5"]} | splits,
        "normalize": {"name": "window", "window_hu": [-1000, 1000]},
        "patch": [16, 16, 16],
        "network": {"name": "unet", "features": [4, 8]},
        "weak": {"flip_axes": []},
        "batch": {"labeled": 2, "unlabeled": 1},
    }
    keep = {"name": rule, "oversampling": 10, "every": 2, "fold_steps": 1}
    return MedsegRun.model_validate(
        {
            "domain": domain,
            "method": {"name": "fixmatch", "filter": keep},
            "fit": {"steps": 4, "accelerator": "cpu"},
        }
    )


def test_each_labeled_volume_tells_what_it_shows_and_no_other_is_asked(folder: Path) -> None:
    domain: Volumes = medseg.open(medseg.resolve(run_of(folder)))
    assert domain.shown() == {"c0": {1}, "c1": {1, 2}, "c2": {1}}
    assert domain.task.background == 0


def test_a_volume_comes_as_many_times_more_as_is_asked(folder: Path) -> None:
    domain = medseg.open(medseg.resolve(run_of(folder)))
    stream = domain.batches(seed=0, first_step=0, extra={"c1": 3})  # 1 + 4 + 1 in an epoch
    seen = Counter(
        round(float(image[image != 0].median()), 1)
        for batch in itertools.islice(stream, 3)
        for image in batch.labeled.image
    )
    assert sorted(seen.values()) == [1, 1, 4]
    before, after = [
        next(domain.batches(seed=0, first_step=4, **more)) for more in ({}, {"extra": {}})
    ]
    assert torch.equal(before.labeled.image, after.labeled.image)


@pytest.mark.parametrize(
    ("rule", "splits"),
    [
        ("class_calibrated", {}),
        ("class_calibrated", {"validation": ["c4"]}),
        ("conformal", {}),
    ],
    ids=["folds", "validation", "folds of conformal"],
)
def test_a_run_set_by_held_out_cases_is_told_of_its_poor_classes(
    folder: Path, rule: str, splits: dict[str, list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="seg_ssl"):
        assert verbs.train(run_of(folder, rule, **splits), medseg, folder.parent / "run").finished
    told = [r.getMessage() for r in caplog.records if r.getMessage().startswith("poor classes")]
    assert told
    assert all("background" not in each for each in told)
    saved = torch.load(folder.parent / "run" / "latest.ckpt", weights_only=True)["model"]
    assert int(saved["keep.confusion"].sum()) == 14 * 12 * 10 * (1 if splits else len(LEVELS))
