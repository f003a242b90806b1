"""Weak labels of scenes as files: what is read, and what is said of what cannot be."""

from __future__ import annotations

import numpy as np
import pytest
import shapely

from common import verbs
from common.errors import DataError
from common.weak_labels import possible
from rsseg_ssl import reader, statements
from rsseg_ssl.adapter import rsseg
from tests.rsseg_ssl.scenes import halves, mosaic, noise, save
from tests.rsseg_ssl.weak import (
    ALL,
    BOXES,
    POINTS,
    SIDE,
    on_map,
    place,
    problems,
    run_of,
    saved,
)

pytestmark = pytest.mark.usefixtures("home")


def test_check_lists_the_problems_of_all_kinds_at_once(folder):
    (folder / "tags.csv").write_text("case,class\nt66,land\nt8,lnd\n")
    (folder / "boxes.csv").write_text(
        f"{BOXES}t8,water,0,3,0,32\nt8,water,5,3,0,3\nt8,water,0,3,0.5,3\nt0,water,0,99,0,99\n"
    )
    (folder / "points.csv").write_text(f"{POINTS}t8,water,-1,3\nt8,water,one,3\n")
    (folder / "scribbles" / "t9.tif").unlink()
    save(folder / "scribbles" / "t9.tif", halves(side=SIDE), transform=place(8))
    save(folder / "scribbles" / "t8.tif", noise(side=SIDE), transform=place(8))
    save(folder / "scribbles" / "t88.tif", halves(side=SIDE), transform=place(8))
    assert problems(folder, **(ALL | {"boxes": "boxes.csv"})) == [
        "tags.csv, line 2: there is no case 't66'. Did you mean 't6'?",
        "tags.csv, line 3: there is no class 'lnd'. Did you mean 'land'?",
        "boxes.csv, line 2: column_max is 32, outside of scene 't8' of 32 rows and 32 columns, "
        "which count from 0.",
        "boxes.csv, line 3: the box begins at 5 and ends before, at 3. Swap them.",
        "boxes.csv, line 4: column_min is 0.5, expected a whole number: pixels count from 0.",
        "points.csv, line 3: row is 'one', expected a number.",
        "scribbles, t8.tif: 3 bands of uint8, expected one of whole numbers: class values.",
        "scribbles, t88.tif: there is no case 't88'. Did you mean 't8'?",
        "scribbles, t9.tif: scene 't9' and its scribbles are not on one grid: shifted by up to 32 "
        "pixels. Draw them on the pixels of the scene, or resample them (gdalwarp -r near).",
    ]
    (folder / "points.csv").write_text(f"{POINTS}t8,water,-1,3\n")
    assert problems(folder, points="points.csv") == [
        "points.csv, line 2: row is -1, outside of scene 't8' of 32 rows and 32 columns, which "
        "count from 0."
    ]
    with pytest.raises(DataError, match="1 problem"):
        verbs.check(run_of(folder, {"points": "points.csv"}), rsseg)


def test_contradictions_are_found_and_told_at_their_pixel(folder):
    (folder / "points.csv").write_text(f"{POINTS}t8,water,9,25\nt8,water,4,14\nt7,water,2,2\n")
    assert problems(folder, tags="tags.csv", boxes="boxes.gpkg", points="points.csv") == [
        "case 't7': points.csv, line 4 leaves no class possible at row 2, column 2, where other "
        "weak labels have ruled out the rest. Correct one of them.",
        "case 't8': points.csv, line 3 leaves no class possible at row 4, column 14, where other "
        "weak labels have ruled out the rest. Correct one of them.",
    ]


def test_contradictions_are_found_in_large_scenes_strip_by_strip(folder, monkeypatch):
    monkeypatch.setattr("rsseg_ssl.records.STRIP_PIXELS", 3 * SIDE)
    (folder / "points.csv").write_text(f"{POINTS}t8,water,30,14\n")
    (found,) = problems(folder, boxes="boxes.gpkg", points="points.csv")
    assert "points.csv, line 2 leaves no class possible at row 30, column 14" in found


def test_a_box_of_a_class_that_the_tags_leave_out_is_told(folder):
    (folder / "tags.csv").write_text("case,class\nt8,land\n")
    assert problems(folder, tags="tags.csv", boxes="boxes.gpkg") == [
        "scene 't8': there is a box of 'water', which the tags of the scene do not name "
        "(boxes.gpkg, feature 1). Add the tag, or remove the box."
    ]


def test_a_scribble_value_that_is_no_class_is_told(folder):
    mask = np.full((1, SIDE, SIDE), 255, np.uint8)
    mask[0, 30, 3] = 7
    path = save(folder / "scribbles" / "t9.tif", mask, transform=place(9))
    assert problems(folder, scribbles="scribbles") == [
        f"scribbles '{path}' hold 7, which are no classes of this run (0, 1) and not 255, where "
        "nobody drew. Correct them, or set domain.weak_labels.unmarked."
    ]
    assert problems(folder, scribbles="scribbles", unmarked=7) != []
    assert rsseg.check(run_of(folder, {"scribbles": "scribbles"}, ignore=[7])).problems == ()


def test_the_value_of_unmarked_pixels_is_no_class(folder):
    assert problems(folder, scribbles="scribbles", unmarked=1) == [
        "domain.weak_labels.unmarked 1 is also the value of class 'water'. Set it to a value that "
        "only says that nobody drew."
    ]


def test_shapes_need_scenes_that_lie_somewhere(home):
    data = mosaic(home / "data", side=SIDE, crs=None)
    path = saved(data / "boxes.gpkg", ("water", shapely.box(0, 0, 1, 1)))
    assert problems(data, boxes="boxes.gpkg") == [
        f"{path} holds places on Earth, but unlabeled scenes have no CRS: t6, t7, t8, t9. Assign "
        "one (gdal_edit.py -a_srs EPSG:...), or give a .csv in pixels or masks."
    ]
    (data / "boxes.csv").write_text(f"{BOXES}t6,water,1,2,3,5\n")
    (data / "points.csv").write_text(f"{POINTS}t6,water,2,4\n")
    files = {"boxes": "boxes.csv", "points": "points.csv"}
    assert problems(data, **files) == []
    domain = rsseg.open(rsseg.resolve(run_of(data, files)))
    sets = statements.weak_labels_of(domain.settings, domain._catalog)
    found = possible(sets.class_sets("t6", reader.Window(0, 0, SIDE, SIDE)))
    assert np.argwhere(found[1]).tolist() == [[r, c] for r in (1, 2) for c in (3, 4, 5)]
    assert np.argwhere(~found[0]).tolist() == [[2, 4]]


def test_scribbles_are_no_table_and_an_empty_folder_says_so(folder):
    assert problems(folder, scribbles="points.csv") == [
        f"{folder / 'points.csv'}: scribbles are a folder of masks or a file of shapes, such as "
        "GeoPackage; a .csv can hold boxes and points."
    ]
    (folder / "empty").mkdir()
    assert problems(folder, scribbles="empty") == [
        f"{folder / 'empty'} holds no raster. Give one mask per scene, named like it."
    ]
    assert problems(folder, scribbles="gone.gpkg") == [
        f"weak labels gone.gpkg are neither in the current folder nor in {folder}."
    ]


def test_weak_labels_of_no_unlabeled_case_are_warned_of(folder):
    saved(folder / "boxes.gpkg", ("water", on_map(0, shapely.box(3, 3, 9, 9))))
    (folder / "tags.csv").write_text("case,class\nt0,land\n")
    found = rsseg.check(run_of(folder, {"tags": "tags.csv", "boxes": "boxes.gpkg"}))
    assert found.problems == ()
    assert found.warnings[-1] == (
        "domain.weak_labels says nothing of any unlabeled scene in tags (tags.csv), boxes "
        "(boxes.gpkg), so that changes nothing."
    )
