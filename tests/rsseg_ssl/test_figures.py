"""Pictures of scenes: what they show, and that they stay small."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rasterio.crs import CRS
from torch.nn.functional import one_hot

from common.domain import Task
from rsseg_ssl import figures
from rsseg_ssl.cases import Grid, SceneCase
from rsseg_ssl.composites import band_names, composites, shrink
from rsseg_ssl.figures import draw_scene, in_words, round_length

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

TASK = Task(
    channels=4,
    classes=("grass", "house", "water"),
    colors=((120, 200, 80), (215, 48, 39), (44, 123, 182)),
)
WRONG = tuple(round(255 * part) for part in figures.WRONG)


def scene(folder: Path, pixels: np.ndarray, mask: np.ndarray | None = None, **profile) -> SceneCase:
    given = {"crs": "EPSG:32632", "transform": Affine(2, 0, 5e5, 0, -2, 6e6), "nodata": 0} | profile
    names = given.pop("names", None)
    for name, values in (("image", pixels), ("mask", mask)):
        if values is None:
            continue
        stack = values if values.ndim == 3 else values[None]
        count, height, width = stack.shape
        with rasterio.open(
            folder / f"{name}.tif",
            "w",
            driver="GTiff",
            count=count,
            height=height,
            width=width,
            dtype=stack.dtype,
            **(given if name == "image" else given | {"nodata": None}),
        ) as target:
            target.write(stack)
            for band, said in enumerate(names or () if name == "image" else (), start=1):
                target.set_band_description(band, said)
    return SceneCase(
        id="Wald & <Feld>",
        group="",
        images=(folder / "image.tif",),
        mask=None if mask is None else folder / "mask.tif",
        values=(0, 1, 2),
        ignore=(9,),
    )


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 3000, shape).astype(np.uint16)


def quarters(side: int) -> np.ndarray:
    label = np.zeros((side, side), np.uint8)
    label[: side // 2, side // 2 :] = 1
    label[side // 2 :, : side // 2] = 2
    return label


def drawn(label: np.ndarray, case: SceneCase, path: Path, task: Task = TASK) -> np.ndarray:
    classes = len(task.classes)
    probs = one_hot(torch.from_numpy(label).long(), classes).permute(2, 0, 1).float()
    assert draw_scene(probs, case, path, task=task) == path
    assert path.stat().st_size <= figures.MOST_BYTES
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB"))


def pixels_of(picture: np.ndarray, color: tuple[int, ...]) -> int:
    return int((picture == color).all(axis=-1).sum())


def test_truth_and_prediction_show_the_classes_in_their_own_colors(tmp_path):
    case = scene(tmp_path, noise(4, 100, 100), quarters(100))
    picture = drawn(quarters(100), case, tmp_path / "a.png")
    panel = pixels_of(picture, TASK.colors[1])
    assert panel > 10_000
    assert pixels_of(picture, TASK.colors[2]) == pytest.approx(panel, rel=0.05)
    assert pixels_of(picture, TASK.colors[0]) == pytest.approx(2 * panel, rel=0.05)
    assert pixels_of(picture, WRONG) < 2_000  # the legend alone


def test_errors_are_marked_where_prediction_and_truth_differ(tmp_path):
    truth = quarters(100)
    truth[50:, 50:] = 9
    case = scene(tmp_path, noise(4, 100, 100), truth)
    label = np.where(truth == 9, 1, truth)
    label[:50, :50] = 2
    picture = drawn(label, case, tmp_path / "a.png")
    quarter = pixels_of(picture, TASK.colors[0])  # of the truth
    assert pixels_of(picture, WRONG) == pytest.approx(quarter, rel=0.1)


def test_a_scene_without_truth_shows_image_and_prediction(tmp_path):
    picture = drawn(quarters(60), scene(tmp_path, noise(3, 60, 60)), tmp_path / "a.png")
    assert pixels_of(picture, WRONG) == 0
    assert pixels_of(picture, TASK.colors[1]) > 10_000


@pytest.mark.parametrize(
    ("bands", "crs"),
    [(1, "EPSG:32632"), (2, "EPSG:4326"), (3, "EPSG:2263"), (4, None), (13, "EPSG:32632")],
)
def test_any_number_of_bands_and_any_crs_makes_a_picture(tmp_path, bands, crs):
    transform = Affine(1e-4, 0, 8, 0, -1e-4, 60) if crs == "EPSG:4326" else Affine.identity()
    pixels = noise(bands, 40, 30)
    pixels[:, 30:] = 0
    case = scene(tmp_path, pixels, quarters(40)[:, :30], crs=crs, transform=transform)
    picture = drawn(quarters(40)[:, :30], case, tmp_path / "a.png")
    assert picture.std() > 10


@pytest.mark.parametrize("shape_yx", [(1, 1), (3, 200), (900, 10), (700, 1300)])
def test_tiny_wide_high_and_large_scenes_make_a_picture(tmp_path, shape_yx):
    case = scene(tmp_path, noise(2, *shape_yx), np.zeros(shape_yx, np.uint8))
    picture = drawn(np.zeros(shape_yx, np.uint8), case, tmp_path / "a.png")
    assert picture.shape[0] < 4000


def test_a_scene_without_any_data_makes_a_picture(tmp_path):
    pixels = np.zeros((2, 50, 50), np.float32)
    case = scene(tmp_path, pixels, quarters(50))
    picture = drawn(quarters(50), case, tmp_path / "a.png")
    assert pixels_of(picture, TASK.colors[1]) < 2_000


def test_thirty_classes_keep_their_colors(tmp_path):
    rng = np.random.default_rng(1)
    colors = tuple(tuple(int(part) for part in rng.integers(0, 250, 3)) for _ in range(30))
    task = Task(channels=3, classes=tuple(f"class {i}" for i in range(30)), colors=colors)
    label = np.repeat(np.arange(30), 4)[:, None].repeat(120, 1).astype(np.uint8)
    picture = drawn(label, scene(tmp_path, noise(3, 120, 120)), tmp_path / "a.png", task)
    assert min(pixels_of(picture, color) for color in colors) > 300


def test_a_small_picture_holds_the_means_of_valid_pixels(tmp_path):
    pixels = noise(2, 130, 75)
    pixels[:, 40:50, 20:70] = 0
    small = shrink(scene(tmp_path, pixels), 40)
    assert small.step == 4
    assert small.bands.shape == (2, 33, 19)
    known = np.where((pixels > 0).all(axis=0), pixels.astype(float), np.nan)
    assert small.bands[0, 0, 0] == pytest.approx(known[0, :4, :4].mean())
    assert small.bands[1, 32, 18] == pytest.approx(known[1, 128:, 72:].mean())
    assert small.bands[1, 12, 10] == pytest.approx(np.nanmean(known[1, 48:52, 40:44]))
    assert np.isnan(small.bands[:, 11, 10]).all()
    assert np.array_equal(small.valid, np.isfinite(small.bands[0]))


def test_bands_are_found_by_name_and_near_infrared_is_shown_too(tmp_path):
    names = ["B2", "B3", "B4", "B8"]
    pixels = np.zeros((4, 8, 8), np.uint16) + np.arange(64, dtype=np.uint16).reshape(8, 8) + 1
    pixels[2] = pixels[2, ::-1]
    case = scene(tmp_path, pixels, names=names)
    assert band_names(case) == names
    image, false = composites(shrink(case, 100), band_names(case))
    assert (image.title, false.title) == ("Image", "Near-infrared")
    assert image.rgb[0, 0, 0] > 0.8 > 0.2 > image.rgb[0, 0, 2]
    assert false.rgb[0, 0, 1] > 0.8 > 0.2 > false.rgb[0, 0, 0]


def test_radar_is_shown_as_both_bands_and_their_difference(tmp_path):
    case = scene(tmp_path, noise(2, 9, 9), names=["VV", "VH"])
    (only,) = composites(shrink(case, 100), band_names(case))
    assert only.title == "VV, VH, VV - VH"


def test_a_few_extreme_pixels_do_not_darken_an_image(tmp_path):
    pixels = noise(3, 50, 50)
    pixels[:, 0, 0] = 65_000
    (only,) = composites(shrink(scene(tmp_path, pixels), 100), [None] * 3)
    assert only.rgb.mean() == pytest.approx(0.5, abs=0.05)


@given(st.floats(1e-3, 1e7))
def test_scale_bars_have_round_lengths_that_fit(about):
    length = round_length(about)
    assert length <= about * (1 + 1e-6)
    assert length > about / 2.51
    digits = f"{length:.3e}"
    assert digits[0] in "125"
    assert set(digits[1:5]) <= {".", "0"}


def test_lengths_are_written_in_metres_kilometres_or_pixels():
    where = Grid(CRS.from_epsg(32632), Affine.identity(), (1, 1))
    assert in_words(50.0, where) == "50 m"
    assert in_words(2000.0, where) == "2 km"
    assert in_words(50.0, Grid(None, Affine.identity(), (1, 1))) == "50 pixels"


def test_real_tiles_make_pictures(data, tmp_path):
    folder = data / "naip_landcover"
    name = sorted((folder / "images").glob("*.tif"))[0].name
    task = Task(4, tuple("abcdef"), tuple((40 * i, 255 - 40 * i, 99) for i in range(6)))
    case = SceneCase(
        id=name,
        group="",
        images=(folder / "images" / name,),
        mask=folder / "masks" / name,
        values=tuple(range(6)),
    )
    truth = case.truth
    assert truth is not None
    picture = drawn(truth.numpy(), case, tmp_path / "a.png", task)
    assert pixels_of(picture, WRONG) < 2_000
    assert picture.shape[1] == 1800
