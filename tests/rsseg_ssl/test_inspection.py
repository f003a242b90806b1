"""What is wrong with a data set is found before training, all at once, with remedies."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp

from rsseg_ssl import inspection, records
from rsseg_ssl.inspection import inspect_folder
from rsseg_ssl.records import Moments
from tests.rsseg_ssl.scenes import halves, mosaic, noise, north_up, save, scene


def test_a_sound_folder_has_facts_and_no_complaints(tmp_path):
    found = inspect_folder(mosaic(tmp_path))
    facts = dict(found.facts)
    assert found.problems == ()
    assert found.warnings == ()
    assert facts["scenes"] == "10"
    assert facts["bands"] == "3"
    assert facts["stored as"] == "uint8"
    assert facts["CRS"] == "EPSG:32632"
    assert facts["pixel"] == "2 x 2 m"
    assert facts["size"] == "16 x 16"
    assert facts["valid pixels"] == "100.00%"
    assert facts["annotated scenes"] == "10 of 10"
    assert facts["spatial blocks"].startswith("5 ")
    shares = [float(facts[f"class {value}"].rstrip("%")) for value in ("0 land", "1 water")]
    assert sum(shares) == pytest.approx(100, abs=0.02)


def test_all_problems_are_listed_at_once(tmp_path):
    folder = mosaic(tmp_path, blocks=5)
    images, masks = folder / "images", folder / "masks"
    big = save(images / "t0.tif", noise(side=256))
    big.write_bytes(big.read_bytes()[:50_000])
    save(masks / "t1.tif", halves(1, side=8), transform=north_up(1))
    save(masks / "t2.tif", halves(2, values=(0, 77)), transform=north_up(3))
    save(masks / "t3.tif", halves(3).astype("float32"), transform=north_up(4))
    save(masks / "t4.tif", noise(4), transform=north_up(6))
    save(images / "t5.tif", noise(5, bands=4), transform=north_up(7))
    save(images / "t6.tif", noise(6), transform=north_up(9, size=8.0))
    (masks / "t7.tif").write_text("no raster")
    shutil.copy(images / "t8.tif", images / "t8.tiff")
    text = "\n".join(inspect_folder(folder).problems)
    for words in (
        "scene 't0': ",
        "scene 't1': image and mask are not on one grid: 16 x 16 pixels against 8 x 8. Resample",
        "scene 't2': mask values 77 are no classes. Add them to classes.json",
        "scene 't3': the mask is stored as float32; class values are whole numbers. Convert it",
        "scene 't4': the mask has 3 bands, so it holds colors. Convert it",
        "most scenes have 3 bands, but these have not: t5 (4). Remove them",
        "pixels are 2 to 8 units wide. Bring all scenes to one resolution with gdalwarp -tr.",
        "scene 't7': ",
        "scene 't8' is in images/ more than once: t8.tif, t8.tiff. Keep one.",
    ):
        assert words in text, words


def test_what_works_but_should_be_known_is_a_warning(tmp_path):
    folder = mosaic(tmp_path, blocks=4)
    images = folder / "images"
    save(images / "t0.tif", noise(0), crs=None)
    save(images / "t1.tif", noise(1), crs="EPSG:32633")
    save(images / "t2.tif", np.full((3, 16, 16), 7, np.uint8), transform=north_up(3))
    save(images / "t3.tif", np.zeros((3, 16, 16), np.uint8), transform=north_up(4), nodata=0)
    filled = noise(4)
    filled[:, :4] = 0
    save(images / "t4.tif", filled, transform=north_up(6))
    half = noise(5)
    half[0, :4] = 0
    save(images / "t5.tif", half, transform=north_up(7), nodata=0)
    four = save(images / "t6.tif", noise(6, bands=3), transform=north_up(9))
    with rasterio.open(four, "r+") as target:
        target.colorinterp = (ColorInterp.gray, ColorInterp.gray, ColorInterp.alpha)
    save(folder / "masks" / "lonely.tif", halves())
    shutil.copy(images / "t7.tif", images / "copy.tif")
    text = "\n".join(inspect_folder(folder).warnings)
    for words in (
        "no CRS in 1 scene (t0), taken as pixel grids",
        "scenes have different CRSs (EPSG:32632, EPSG:32633)",
        "every band is constant in 1 scene (t2)",
        "no valid pixel in 1 scene (t3), which teaches nothing",
        "0 looks like a fill value that no file declares, in 1 scene (t4). If it is one, set",
        "some bands hold nodata where others hold data, in 1 scene (t5)",
        "a band is flagged alpha in 1 scene (t6). It is read as data",
        "masks without an image of the same name are not used (1): lonely",
        "2 scenes (copy, t7) hold the same pixels",
    ):
        assert words in text, words


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: folder / "nowhere", "is no folder and no .csv manifest"),
        (lambda folder: folder, "holds no folder 'images'"),
        (lambda folder: _with(folder, "images/readme.txt", ""), "holds no raster"),
        (lambda folder: _with(folder, "m.csv", "file\na.tif\n"), "has no column 'image'"),
        (lambda folder: _with(folder, "m.csv", "image,tile\na.tif,1\n"), "columns tile that mean"),
        (lambda folder: _with(folder, "m.csv", "image\na.tif\n"), "line 2: '"),
        (
            lambda folder: _with(folder, "m.csv", "case,image\nx,a.tif\nx,b.tif\n"),
            "line 3 names scene 'x' again",
        ),
    ],
)
def test_a_folder_that_is_no_data_set_says_what_was_expected(tmp_path, make, words):
    assert words in "\n".join(inspect_folder(make(tmp_path)).problems)


def _with(folder, name, text):
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return folder if name.startswith("images") else path


def test_a_manifest_with_one_file_per_band_is_read(tmp_path):
    rows = ["case,image,mask,block,split"]
    for i in range(3):
        pixels, place = noise(i, bands=2), north_up(3 * i)
        save(tmp_path / f"b1_{i}.tif", pixels[:1], transform=place)
        save(tmp_path / f"b2_{i}.tif", pixels[1:], transform=place)
        save(tmp_path / f"m_{i}.tif", halves(i), transform=place)
        rows.append(f"s{i},b1_{i}.tif;b2_{i}.tif,m_{i}.tif,north,test")
    (tmp_path / "m.csv").write_text("\n".join(rows))
    found = inspect_folder(tmp_path / "m.csv")
    assert found.problems == ()
    assert dict(found.facts)["bands"] == "2"
    shifted = save(tmp_path / "b2_1.tif", noise(1, bands=1), transform=north_up(3.5))
    text = "\n".join(inspect_folder(tmp_path / "m.csv").problems)
    assert f"'b1_1.tif' and '{shifted.name}' do not share one grid: shifted by up to 8 pix" in text


def test_a_classes_file_that_cannot_be_understood_is_named(tmp_path):
    folder = mosaic(tmp_path)
    (folder / "classes.json").write_text(json.dumps({"classes": [{"name": "water"}]}))
    assert (
        "classes.json' cannot be understood (KeyError: 'id')" in inspect_folder(folder).problems[0]
    )


def test_statistics_match_numpy_over_valid_pixels_of_all_scenes(tmp_path):
    arrays = [noise(i, dtype="float32") for i in range(3)]
    arrays[0][:, :3] = np.nan
    arrays[2][1] *= 50
    scenes = [scene(save(tmp_path / f"t{i}.tif", pixels)) for i, pixels in enumerate(arrays)]
    seen = np.concatenate([p[:, np.isfinite(p).all(0)] for p in arrays], axis=1).astype(float)
    found = records.statistics(records.image_records(scenes).values())
    assert found.mean == pytest.approx(seen.mean(axis=1), rel=1e-5)
    assert found.std == pytest.approx(seen.std(axis=1), rel=1e-5)


def test_statistics_do_not_depend_on_how_a_scene_is_cut_into_strips(tmp_path, monkeypatch):
    one = scene(save(tmp_path / "a.tif", noise(side=64, dtype="uint16")))
    whole = records.examine_image(one).moments
    monkeypatch.setattr(records, "STRIP_PIXELS", 200)
    strips = records.examine_image(one).moments
    assert strips.count == whole.count
    assert strips.mean == pytest.approx(whole.mean)
    assert strips.squares == pytest.approx(whole.squares)


def test_nothing_merged_with_something_is_something():
    some = Moments(count=2, mean=(1.0,), squares=(0.5,))
    assert Moments().merged(some) == some.merged(Moments()) == some


def test_a_constant_band_and_an_empty_set_have_statistics_that_do_no_harm(tmp_path):
    flat = scene(save(tmp_path / "a.tif", np.full((2, 16, 16), 9, np.uint8)))
    found = records.statistics(records.image_records([flat]).values())
    assert found.mean == (9.0, 9.0)
    assert found.std == (1.0, 1.0)
    assert records.statistics([]) is None


def test_a_file_is_looked_at_once_until_it_changes(tmp_path, monkeypatch):
    one = scene(save(tmp_path / "a.tif", noise(0)))
    looked = []
    real = records.examine_image
    monkeypatch.setattr(records, "examine_image", lambda s: looked.append(s.id) or real(s))
    first = records.image_records([one])
    assert records.image_records([one]) == first
    assert looked == ["a"]
    save(tmp_path / "a.tif", noise(1, bands=4))
    assert records.image_records([one])["a"].bands == 4
    assert looked == ["a", "a"]


def test_the_real_sample_has_an_empty_image_and_nothing_to_refuse(data):
    found = inspect_folder(data / "sen1floods11_sample")
    assert found.problems == ()
    assert any("Paraguay_34417" in warning for warning in found.warnings)
    assert dict(found.facts)["annotated scenes"] == "13 of 13"


def test_leaks_are_told_in_words_except_between_labeled_and_unlabeled():
    leaks = [
        inspection.Leak(("labeled", "unlabeled"), (("a", "b"),), 0.0),
        inspection.Leak(("labeled", "test"), (("a", "c"),), 0.0),
        inspection.Leak(("validation", "test"), (), 217.4),
    ]
    (warning,) = inspection.leak_warnings(leaks)
    assert warning.startswith("1 pairs of scenes of labeled and test touch (such as a and c)")
    assert inspection.gap_facts(leaks) == [
        ("labeled to test", "1 touching pairs, smallest gap 0 m"),
        ("validation to test", "0 touching pairs, smallest gap 217 m"),
    ]
