"""Weak labels of volumes from a config to training: checked, cut, resumed, reported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from common import verbs
from common.batch import check_batch
from common.errors import ConfigError, DataError
from common.fit import FitSettings
from medseg_ssl import statements
from medseg_ssl.adapter import medseg
from tests.medseg_ssl.volumes import CLASSES, image_and_label, oblique, plain, save

ROW = "tags of 1, boxes of 1, points of 1, scribbles of 1 of 2 unlabeled cases"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def folder(home):
    """Cases c4 and c5 are unlabeled; a box, a point and a tag of c4, scribbles of c5."""
    affine = oblique(codes="LPS")
    data = plain(home / "data", affine=affine)
    _, truth = image_and_label(5)
    drawn = np.full(truth.shape, 255, np.uint8)
    drawn[:, 4, 5] = truth[:, 4, 5]
    save(data / "scribbles" / "c5.nii.gz", drawn, affine)
    (data / "tags.csv").write_text("case,class\nc4,organ\nc4,lesion\nc0,organ\n")
    header = "case,class,i_min,i_max,j_min,j_max,k_min,k_max\n"
    (data / "boxes.csv").write_text(f"{header}c4,lesion,5,7,5,7,4,6\nc1,lesion,0,99,0,1,0,1\n")
    x, y, z = (affine @ [6, 6, 5, 1])[:3]
    (data / "points.csv").write_text(f"case,class,x_mm,y_mm,z_mm\nc4,lesion,{x},{y},{z}\n")
    return data


ALL = {
    "tags": "tags.csv",
    "boxes": "boxes.csv",
    "points": "points.csv",
    "point_radius_mm": 0.5,
    "scribbles": "scribbles",
}


def config_of(folder: Path, weak_labels: dict | None = None, **domain: object) -> Path:
    classes = [{"name": name, "value": value} for name, value in CLASSES.items()]
    settings = {
        "data": str(folder),
        "cache": str(folder.parent / "cache"),
        "classes": classes,
        "splits": {"labeled": ["c0", "c1"], "test": ["c2", "c3"]},
        "patch": [16, 16, 16],
        "network": {"name": "unet", "features": [4, 8]},
        "weak_labels": ALL if weak_labels is None else weak_labels,
    }
    fit = {"steps": 2, "accelerator": "cpu"}
    values = {"domain": settings | domain, "method": {"name": "fixmatch"}, "fit": fit}
    path = folder.parent / "weak.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def run_of(folder: Path, weak_labels: dict | None = None, **domain: object):
    return verbs.load(config_of(folder, weak_labels, **domain), medseg)


def first_batch(run):
    return next(medseg.open(medseg.resolve(run)).batches(seed=0, first_step=0))


COMMANDS = """
import contextlib, sys
from pathlib import Path
from common import verbs
from medseg_ssl.cli import main

def say(*words):
    sys.argv = ["medseg-ssl", *words]
    try:
        main()
    except SystemExit as end:
        return end.code

@contextlib.contextmanager
def asked_at_once():
    yield lambda: True

usual = verbs.asked_to_stop
assert not say("check", "weak.yaml")
assert not say("train", "weak.yaml", "--output", "whole")
verbs.asked_to_stop = asked_at_once
say("train", "weak.yaml", "--output", "parts")
print("STOPPED" if not Path("parts/best.ckpt").exists() else "FINISHED")
verbs.asked_to_stop = usual
assert not say("train", "weak.yaml", "--output", "parts")
assert not say("train", "weak.yaml", "--output", "free", "--set", "domain.weak_labels=null")
assert not say("evaluate", "parts")
"""


def test_a_run_with_all_four_kinds_is_checked_and_resumes_bit_for_bit(folder, home):
    config_of(folder)
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "STOPPED" in done.stdout
    assert f"{statements.ROW} {ROW}" in " ".join(done.stdout.split())
    whole, parts, free = (
        torch.load(home / name / "best.ckpt", weights_only=False)["model"]
        for name in ("whole", "parts", "free")
    )
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert any(not torch.equal(whole[name], free[name]) for name in whole)
    assert ROW in (home / "parts" / "report.html").read_text(encoding="utf-8")


def test_patches_carry_a_flag_per_voxel_as_soon_as_one_file_tells_voxels_apart(folder):
    batch = first_batch(run_of(folder))
    assert batch.unlabeled.possible.shape == (2, 3, 16, 16, 16)
    check_batch(batch, 1, 3)
    few = [int(count) for count in batch.unlabeled.possible.sum(dim=(1, 2, 3, 4))]
    assert all(count < 3 * 16**3 for count in few)
    only_tags = first_batch(run_of(folder, {"tags": "tags.csv"}))
    flags = {tuple(each) for each in only_tags.unlabeled.possible.flatten(1).tolist()}
    assert only_tags.unlabeled.possible.shape == (2, 3, 1, 1, 1)
    assert flags == {(True, True, True)}
    (folder / "tags.csv").write_text("case,class\nc4,organ\n")
    only_tags = first_batch(run_of(folder, {"tags": "tags.csv"}))
    flags = {tuple(each) for each in only_tags.unlabeled.possible.flatten(1).tolist()}
    assert flags == {(True, True, True), (True, True, False)}
    check_batch(only_tags, 1, 3)
    both = first_batch(run_of(folder, {"tags": "tags.csv", "scribbles": "scribbles"}))
    assert both.unlabeled.possible.shape == (2, 3, 16, 16, 16)


def test_a_run_without_weak_labels_is_free_and_reads_none(folder):
    run = verbs.load(config_of(folder), medseg, ["domain.weak_labels=null"])
    assert first_batch(run).unlabeled.possible.shape == (2, 3, 1, 1, 1)
    assert statements.ROW not in dict(medseg.check(run).facts)
    assert statements.ROW not in dict(medseg.open(medseg.resolve(run)).describe().data)


def test_what_is_marked_is_where_the_image_is_in_every_patch(folder):
    """The point is of the brightest box: wherever it is possible only, the patch is bright."""
    run = run_of(folder, {"points": "points.csv"}, splits={"labeled": ["c0"], "unlabeled": ["c4"]})
    domain = medseg.open(medseg.resolve(run))
    stream, marked = domain.batches(seed=0, first_step=0), 0
    for _ in range(10):
        sample = next(stream).unlabeled
        certain = (sample.possible.sum(dim=1) == 1) & sample.valid
        marked += int(certain.sum())
        assert sample.possible[:, 2][certain].all()
        assert (sample.image[:, 0][certain] > 1).all()
    assert marked > 5


def test_resolving_makes_the_paths_absolute_and_all_files_count_in_the_digest(folder, home):
    run = medseg.resolve(run_of(folder))
    assert run.domain.weak_labels.tags == folder / "tags.csv"
    assert run.domain.weak_labels.scribbles == folder / "scribbles"
    assert medseg.resolve(run) == run
    told = {path.name for path in medseg.open(run).files() if "images" not in path.parts}
    assert {"tags.csv", "boxes.csv", "points.csv"} <= told
    assert folder / "scribbles" / "c5.nii.gz" in {*medseg.open(run).files()}
    assert dict(medseg.open(run).describe().data)[statements.ROW] == ROW
    (folder / "tags.csv").unlink()
    with pytest.raises(DataError, match=r"weak labels tags\.csv are neither in the current"):
        medseg.resolve(run_of(folder))


def test_changed_weak_labels_are_read_anew(folder):
    before = first_batch(run_of(folder, {"boxes": "boxes.csv"}))
    text = (folder / "boxes.csv").read_text()
    (folder / "boxes.csv").write_text(text.replace("c4,lesion", "c4,organ"))
    after = first_batch(run_of(folder, {"boxes": "boxes.csv"}))
    assert torch.equal(before.unlabeled.image, after.unlabeled.image)
    assert not torch.equal(before.unlabeled.possible, after.unlabeled.possible)


def test_check_lists_the_problems_of_all_kinds_at_once(folder):
    affine = oblique(codes="LPS")
    (folder / "tags.csv").write_text("case,class\nc4,organ\nc55,organ\n")
    (folder / "boxes.csv").write_text(
        "case,class,i_min,i_max,j_min,j_max,k_min,k_max\nc4,organ,5,7,5,12,4,6\n"
    )
    (folder / "points.csv").write_text("case,class,i,j,k\nc4,organ,0,0,10\nc5,lesion,0,4,5\n")
    save(folder / "scribbles" / "c4.nii.gz", np.zeros((3, 3, 3), np.uint8), affine)
    found = medseg.check(run_of(folder)).problems
    assert found == [
        "tags.csv, line 3: there is no case 'c55'. Did you mean 'c5'?",
        "case 'c4': points.csv, line 2: the point (0, 0, 10) voxels lies outside of the image, "
        "whose last voxel is (13, 11, 9).",
        "case 'c4': boxes.csv, line 2: the box from (5, 5, 4) to (7, 12, 6) voxels lies outside of "
        "the image, whose last voxel is (13, 11, 9).",
        "case 'c5': points.csv, line 3 leaves no class possible at voxel (0, 4, 5), "
        f"{in_mm(affine, (0, 4, 5))} mm, where other weak labels have ruled out the rest. Correct "
        "one of them.",
    ]
    (folder / "points.csv").write_text("case,class,i,j,k\n")
    (folder / "boxes.csv").write_text("case,class,x_min_mm\n")
    told, *rest = medseg.check(run_of(folder)).problems[1:]
    assert told.endswith("expected case, class, x_min_mm, x_max_mm, y_min_mm, y_max_mm, z_min_mm, "
                         "z_max_mm in its first line.")  # fmt: skip
    (grid,) = rest
    assert "resample the scribbles (nearest), or remove scribbles/c4.nii.gz." in grid
    with pytest.raises(DataError, match="3 problems"):
        verbs.check(run_of(folder), medseg)


def in_mm(affine: np.ndarray, voxel: tuple[int, int, int]) -> str:
    return f"({', '.join(f'{each:.1f}' for each in (affine @ [*voxel, 1])[:3])})"


def test_whoever_opens_a_run_with_weak_labels_that_cannot_be_used_is_told(folder):
    (folder / "tags.csv").write_text("case,class\nc44,organ\n")
    domain = medseg.open(medseg.resolve(run_of(folder)))
    with pytest.raises(DataError) as error:
        next(domain.batches(seed=0, first_step=0))
    assert str(error.value) == (
        "domain.weak_labels: 1 problem\n  tags.csv, line 2: there is no case 'c44'. Did you mean "
        "'c4'?"
    )


def test_weak_labels_of_no_unlabeled_case_are_warned_of(folder):
    (folder / "tags.csv").write_text("case,class\nc0,organ\n")
    found = medseg.check(run_of(folder, {"tags": "tags.csv"}))
    assert found.problems == []
    assert "domain.weak_labels says nothing of any unlabeled case, so it changes nothing." in (
        found.warnings
    )


def test_an_image_that_is_broken_is_told_once(folder):
    (folder / "images" / "c4.nii.gz").write_bytes(b"hello")
    (problem,) = medseg.check(run_of(folder)).problems
    assert problem.startswith("case 'c4': ")
    assert "cannot be read" in problem


def test_a_method_without_pseudo_labels_refuses_weak_labels(folder):
    with pytest.raises(ConfigError) as error:
        verbs.load(config_of(folder), medseg, ["method.name=supervised"])
    assert (
        "domain.weak_labels narrows pseudo-labels, but method 'supervised' makes none. Remove"
        in (str(error.value))
    )


def test_the_value_of_unmarked_voxels_is_no_class(folder):
    with pytest.raises(ConfigError, match=r"weak_labels\.unmarked 4 is also the value of a class"):
        run_of(folder, {"scribbles": "scribbles", "unmarked": 4})


def test_no_mask_of_an_unlabeled_case_is_read_for_its_weak_labels(folder, home):
    for name in ("c4", "c5"):
        (folder / "labels" / f"{name}.nii.gz").write_bytes(b"reading this fails")
    run = run_of(folder, splits={"labeled": ["c0"], "test": ["c2"], "unlabeled": ["c4", "c5"]})
    run = run.model_copy(update={"fit": FitSettings(steps=1, accelerator="cpu")})
    assert verbs.train(run, medseg, home / "run").finished
