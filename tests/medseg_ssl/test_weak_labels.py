"""Weak labels of volumes as files: what is read, and what is said of what cannot be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from common.batch import IGNORE
from common.errors import DataError, GridMismatch
from medseg_ssl.cases import read_geometry
from medseg_ssl.files import KNOWN
from medseg_ssl.weak_labels import (
    Box,
    Point,
    Scribble,
    VolumeHints,
    VolumeLegend,
    VolumeWeakLabelFiles,
    in_words,
    read_hints,
    read_scribble,
)
from tests.medseg_ssl.volumes import oblique, save

LEGEND = VolumeLegend(("background", "organ", "lesion"), (0, 1, 4), ("c4", "c5", "c6"))
MM = "case,class,x_min_mm,x_max_mm,y_min_mm,y_max_mm,z_min_mm,z_max_mm\n"
VOXELS = "case,class,i_min,i_max,j_min,j_max,k_min,k_max\n"


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def problems(folder: Path, **files: object) -> list[str]:
    return read_hints(VolumeWeakLabelFiles(**files), folder, LEGEND).problems


def test_every_file_is_read_for_the_cases_that_it_names(tmp_path):
    mask = save(tmp_path / "drawn" / "c5.nii.gz", np.zeros((2, 2, 2), np.uint8))
    files = VolumeWeakLabelFiles(
        tags=written(tmp_path / "t.csv", "case,class\nc4,organ\nc4,lesion\n"),
        boxes=written(tmp_path / "b.csv", MM + "c4,organ,-1,2,-3.5,4,0,9\n"),
        points=written(tmp_path / "p.csv", "class,case,k,j,i,by\nlesion,c6,3,2,1,me\n"),
        point_radius_mm=2.5,
        scribbles=tmp_path / "drawn",
        unmarked=9,
    )
    read = read_hints(files, tmp_path, LEGEND)
    assert read.problems == []
    box = {"low": (-1, -3.5, 0), "high": (2, 4, 9), "unit": "mm", "source": "b.csv, line 2"}
    point = {"at": (1, 2, 3), "unit": "voxel", "source": "p.csv, line 2"}
    assert read.by_case == {
        "c4": VolumeHints(tags=(1, 2), boxes=(Box(label=1, **box),)),
        "c5": VolumeHints(scribble=Scribble(path=mask, values=(0, 1, 4), unmarked=9)),
        "c6": VolumeHints(points=(Point(label=2, **point),), point_radius_mm=2.5),
    }


def test_boxes_may_be_told_in_voxels_and_points_in_mm(tmp_path):
    files = VolumeWeakLabelFiles(
        boxes=written(tmp_path / "b.csv", VOXELS + "c4,organ,1,2,3,4,5,6\n"),
        points=written(tmp_path / "p.csv", "case,class,x_mm,y_mm,z_mm\nc4,organ,.5,-1e1,2\n"),
    )
    hints = read_hints(files, tmp_path, LEGEND).by_case["c4"]
    assert (hints.boxes[0].low, hints.boxes[0].high) == ((1, 3, 5), (2, 4, 6))
    assert hints.boxes[0].unit == "voxel"
    assert (hints.points[0].at, hints.points[0].unit) == ((0.5, -10, 2), "mm")


def test_files_beside_the_data_are_found(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    written(tmp_path / "t.csv", "case,class\nc4,organ\n")
    read = read_hints(VolumeWeakLabelFiles(tags=Path("t.csv")), tmp_path, LEGEND)
    assert read.by_case == {"c4": VolumeHints(tags=(1,))}


def test_a_file_that_is_nowhere_is_named(tmp_path):
    (found,) = problems(tmp_path, tags=Path("gone.csv"))
    assert found == (f"weak labels gone.csv are neither in the current folder nor in {tmp_path}.")


def test_every_line_that_cannot_be_used_is_told_with_all_the_others(tmp_path):
    found = problems(
        tmp_path,
        tags=written(tmp_path / "t.csv", "case,class\nc44,organ\nc4,orgn\n"),
        boxes=written(tmp_path / "b.csv", MM + "c4,organ,0,1,0,one,0,1\nc4,organ,0,1,5,3,0,1\n"),
        points=written(tmp_path / "p.csv", "case,class,i,j,k\nc4,organ,1,2,2.5\nc4,organ,1,2\n"),
    )
    assert found == [
        "t.csv, line 2: there is no case 'c44'. Did you mean 'c4'?",
        "t.csv, line 3: there is no class 'orgn'. Did you mean 'organ'?",
        "b.csv, line 2: y_max_mm is 'one', expected a number.",
        "p.csv, line 3: k is '', expected a number.",
    ]
    found = problems(
        tmp_path,
        boxes=written(tmp_path / "b.csv", MM + "c4,organ,0,1,5,3,0,1\n"),
        points=written(tmp_path / "p.csv", "case,class,i,j,k\nc4,organ,1,2,2.5\n"),
    )
    assert found == [
        "b.csv, line 2: the box ends along its second axis at 3, before it begins at 5. Swap them.",
        "p.csv, line 2: k is 2.5, expected a whole number: the index of a voxel.",
    ]


def test_the_header_says_in_which_unit_places_are_told(tmp_path):
    both = written(tmp_path / "p.csv", "case,class,x_mm,y_mm,z_mm,i,j,k\n")
    none = written(tmp_path / "b.csv", "case,class,x,y,z\n")
    some = written(tmp_path / "s.csv", "case,class,x_mm,y_mm\n")
    assert problems(tmp_path, points=both) == [
        f"{both} has both kinds of columns that tell a place: expected x_mm, y_mm, z_mm or i, j, "
        "k. Keep one of both."
    ]
    assert problems(tmp_path, boxes=none) == [
        f"{none} has no columns that tell a place: expected x_min_mm, x_max_mm, y_min_mm, "
        "y_max_mm, z_min_mm, z_max_mm or i_min, i_max, j_min, j_max, k_min, k_max. Add them."
    ]
    assert problems(tmp_path, points=some) == [
        f"{some} has no column z_mm: expected case, class, x_mm, y_mm, z_mm in its first line."
    ]


def test_a_folder_of_scribbles_holds_one_nifti_file_per_case_and_nothing_else(tmp_path):
    nothing = np.zeros((2, 2, 2), np.uint8)
    for name in ("c4.nii", "c4.nii.gz", "c44.nii.gz"):
        save(tmp_path / "drawn" / name, nothing)
    for name in ("notes.txt", ".hidden"):
        written(tmp_path / "drawn" / name, "")
    drawn = tmp_path / "drawn"
    assert problems(tmp_path, scribbles=drawn) == [
        f"{drawn}/c4.nii.gz: case 'c4' has c4.nii, too. Remove one.",
        f"{drawn}/c44.nii.gz: there is no case 'c44'. Did you mean 'c4'?",
        f"{drawn}/notes.txt is no volume: expected {KNOWN}. Move it elsewhere.",
    ]
    table = written(tmp_path / "t.csv", "")
    assert problems(tmp_path, scribbles=table) == [
        f"{table} is no folder: scribbles are one volume per case, named like the case."
    ]


@pytest.fixture
def image(tmp_path):
    return save(tmp_path / "c4.nii.gz", np.zeros((4, 5, 6), np.float32), oblique())


def scribble(path: Path) -> Scribble:
    return Scribble(path=path, values=(0, 1, 4), unmarked=255)


def test_a_scribble_is_read_as_class_indices(tmp_path, image):
    drawn = np.full((4, 5, 6), 255.0, np.float32)  # whole numbers, stored as others
    drawn[0, 0, :3] = 0, 1, 4
    path = save(tmp_path / "drawn" / "c4.nii.gz", drawn, oblique())
    index = read_scribble(scribble(path), image, read_geometry([image]))
    assert index[0, 0, :4].tolist() == [0, 1, 2, IGNORE]
    assert (index != IGNORE).sum() == 3


def test_a_scribble_on_another_grid_is_refused(tmp_path, image):
    path = save(tmp_path / "drawn" / "c4.nii.gz", np.full((4, 5, 6), 255, np.uint8))
    with pytest.raises(GridMismatch) as error:
        read_scribble(scribble(path), image, read_geometry([image]))
    assert str(error.value) == (
        "c4.nii.gz and c4.nii.gz lie on different grids: (4, 5, 6) at 1 x 1.2 x 2.5 mm, RAS, "
        "origin (-31.5, 12.25, 7) mm; (4, 5, 6) at 1 x 1 x 1 mm, RAS, origin (0, 0, 0) mm. They "
        "must share one grid: resample the scribbles (nearest), or remove drawn/c4.nii.gz."
    )


def test_a_scribble_of_a_value_that_is_no_class_is_refused(tmp_path, image):
    drawn = np.full((4, 5, 6), 2, np.uint8)
    path = save(tmp_path / "drawn" / "c4.nii.gz", drawn, oblique())
    with pytest.raises(DataError) as error:
        read_scribble(scribble(path), image, read_geometry([image]))
    assert str(error.value) == (
        f"scribbles {path} hold the values 2, which are none of the classes [0, 1, 4] and not "
        "255, where nobody drew. Correct them, or set domain.weak_labels.unmarked."
    )


def test_only_unlabeled_cases_are_counted():
    point = Point(label=1, at=(0, 0, 0), unit="mm", source="p.csv, line 2")
    said = {"a": VolumeHints(tags=(1,), points=(point,)), "b": VolumeHints(tags=(1,))}
    assert in_words(said, ["a", "c"]) == (
        "tags of 1, boxes of 0, points of 1, scribbles of 0 of 2 unlabeled cases"
    )
