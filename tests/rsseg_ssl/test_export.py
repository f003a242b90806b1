"""GeoTIFFs that lie exactly where their scene lies."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from torch import nn
from torch.nn.functional import one_hot

from common.domain import Task
from common.errors import DataError
from rsseg_ssl import export, reader
from rsseg_ssl.cases import SceneCase
from rsseg_ssl.export import write_confidence, write_probabilities, write_scene
from rsseg_ssl.inference import InferenceSettings, predict_scene

TASK = Task(
    channels=1,
    classes=("field", "Wald & Büsche", "water"),
    colors=((200, 180, 40), (10, 120, 30), (20, 40, 230)),
)
VALUES = (10, 0, 200)
UTM = Affine(0.6, 0, 266115.6, 0, -0.6000000006, 4303355.999999988)


def scene(folder: Path, pixels: np.ndarray, **profile) -> SceneCase:
    path = folder / "scene.tif"
    count, height, width = pixels.shape
    given = {"crs": "EPSG:26917", "transform": UTM, "nodata": None} | profile
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=count,
        height=height,
        width=width,
        dtype=pixels.dtype,
        **given,
    ) as target:
        target.write(pixels)
    return SceneCase(id="scene", group="scene", images=(path,))


def save(label: np.ndarray, case: SceneCase, path: Path, *, task=TASK, values=VALUES) -> Path:
    probs = one_hot(torch.from_numpy(label).long(), len(values)).permute(2, 0, 1).float()
    return write_scene(probs, dataclasses.replace(case, values=values), path, task=task)


def some_labels(*shape_yx: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 3, shape_yx)


def test_crs_transform_size_values_and_nodata_are_those_of_the_scene(tmp_path):
    pixels = np.ones((2, 300, 700), np.int16)
    pixels[1, 20:50, 600:] = -9999
    case, label = scene(tmp_path, pixels, nodata=-9999), some_labels(300, 700)
    with rasterio.open(save(label, case, tmp_path / "map.tif")) as found:
        assert found.crs == "EPSG:26917"
        assert found.transform == UTM
        assert found.shape == (300, 700)
        assert (found.dtypes, found.nodata) == (("uint8",), 255)
        stored = found.read(1)
    expected = np.asarray(VALUES)[label]
    expected[20:50, 600:] = 255
    assert np.array_equal(stored, expected)


def test_probabilities_are_bands_and_the_largest_is_the_confidence(tmp_path):
    pixels = np.ones((1, 300, 700), np.int16)
    pixels[0, 20:50, 600:] = -9999
    case = scene(tmp_path, pixels, nodata=-9999)
    probs = torch.rand(3, 300, 700, generator=torch.Generator().manual_seed(0)).softmax(dim=0)
    write_probabilities(probs, case, tmp_path / "probs.tif", task=TASK)
    write_confidence(probs, case, tmp_path / "sure.tif")

    with rasterio.open(tmp_path / "probs.tif") as found:
        assert (found.crs, found.transform, found.nodata) == ("EPSG:26917", UTM, 65535)
        assert found.descriptions == TASK.classes
        stored, scales = found.read(masked=True), found.scales
    with rasterio.open(tmp_path / "sure.tif") as found:
        assert (found.descriptions, found.nodata) == (("confidence",), 255)
        sure = found.read(1, masked=True) * found.scales[0]
    inside = ~np.ma.getmaskarray(stored)[0]
    assert inside.sum() == 300 * 700 - 30 * 100
    assert np.array_equal(np.ma.getmaskarray(sure), ~inside)
    read = stored.data * np.array(scales)[:, None, None]
    np.testing.assert_allclose(read[:, inside], probs.numpy()[:, inside], atol=0.51 / 65534)
    np.testing.assert_allclose(sure.data[inside], read.max(axis=0)[inside], atol=0.51 / 254 + 1e-5)


def test_the_map_is_tiled_compressed_colored_and_named(tmp_path):
    case = scene(tmp_path, np.ones((1, 600, 600), np.uint8))
    with rasterio.open(save(some_labels(600, 600), case, tmp_path / "map.tif")) as found:
        assert found.profile["tiled"]
        assert found.block_shapes == [(512, 512)]
        assert found.profile["compress"] == "deflate"
        assert found.tags(ns="IMAGE_STRUCTURE", bidx=0)["PREDICTOR"] == "2"
        assert found.descriptions == ("class",)
        assert found.colorinterp[0].name == "palette"
        colors = found.colormap(1)
        for value, color in zip(VALUES, TASK.colors, strict=True):
            assert colors[value] == (*color, 255)
        tags = found.tags(1)
        assert {
            f"class_{v}": n for v, n in zip(VALUES, TASK.classes, strict=True)
        }.items() <= tags.items()
        assert found.overviews(1) == []


@pytest.mark.parametrize(
    ("transform", "crs"),
    [
        (Affine(2, 0.5, 5e5, 0.5, -2, 6e6), "EPSG:32632"),
        (Affine(1e-4, 0, 8.5, 0, 1e-4, 50), "EPSG:4326"),
        (Affine(10, 0, 1e6, 0, -10, 2e5), "EPSG:2263"),
    ],
)
def test_turned_south_up_and_feet_grids_stay_as_they_are(tmp_path, transform, crs):
    case = scene(tmp_path, np.ones((1, 20, 30), np.uint8), transform=transform, crs=crs)
    path = save(some_labels(20, 30), case, tmp_path / "map.tif")
    reader.forget(case.images[0])
    with rasterio.open(path) as found, rasterio.open(case.images[0]) as source:
        assert found.transform == source.transform
        assert found.crs == source.crs


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_scene_that_lies_nowhere_stays_nowhere(tmp_path):
    case = scene(tmp_path, np.ones((1, 20, 30), np.uint8), crs=None, transform=None)
    with rasterio.open(save(some_labels(20, 30), case, tmp_path / "map.tif")) as found:
        assert found.crs is None
        assert found.transform == Affine.identity()


@pytest.mark.parametrize(
    ("values", "dtype", "nodata"),
    [
        ((0, 1, 254), "uint8", 255),
        ((0, 1, 255), "uint16", 65535),
        ((111, 112, 523), "uint16", 65535),
        ((-1, 0, 70_000), "int32", -(2**31)),
    ],
)
def test_no_class_is_mistaken_for_nodata(tmp_path, values, dtype, nodata):
    case, label = scene(tmp_path, np.ones((1, 20, 30), np.uint8)), some_labels(20, 30)
    with rasterio.open(save(label, case, tmp_path / "map.tif", values=values)) as found:
        assert (found.dtypes[0], found.nodata) == (dtype, nodata)
        assert np.array_equal(found.read(1), np.asarray(values)[label])


def test_large_maps_have_overviews_in_which_no_new_value_appears(tmp_path):
    pixels = np.ones((1, 1100, 2100), np.uint8)
    pixels[:, :100] = 0
    case, label = scene(tmp_path, pixels, nodata=0), some_labels(1100, 2100)
    label[:, 1000:] = 2
    with rasterio.open(save(label, case, tmp_path / "map.tif")) as found:
        assert found.overviews(1) == [2, 4, 8]
        coarse = found.read(1, out_shape=(1, 275, 525))
        assert {*np.unique(coarse)} <= {*VALUES, 255}
        assert (coarse[:20] == 255).all()
        assert (coarse[40:, 300:] == VALUES[2]).all()


def test_coordinates_written_into_pixels_survive_predict_write_and_read(tmp_path):
    rows, columns = np.indices((90, 131))
    pixels = np.stack([rows // 30, columns // 50]).astype(np.uint8)
    case = scene(tmp_path, pixels)

    class FromPlace(nn.Module):
        def forward(self, image):
            place = (3 * image[:, 0] + image[:, 1]).long()
            return 10.0 * one_hot(place, 9).permute(0, 3, 1, 2)

    probs = predict_scene(
        FromPlace(),
        partial(reader.read, case),
        shape_yx=case.grid.shape_yx,
        tile=32,
        classes=9,
        settings=InferenceSettings(overlap=0.5),
        normalize=lambda raw, valid: raw,
    )
    task = Task(channels=2, classes=tuple("abcdefghi"), colors=((0, 0, 0),) * 9)
    path = write_scene(probs, case, tmp_path / "map.tif", task=task)
    with rasterio.open(path) as found:
        assert np.array_equal(found.read(1), 3 * (rows // 30) + columns // 50)
        east, north = found.xy(70, 120)
        assert east == pytest.approx(266115.6 + 120.5 * 0.6)
        assert north == pytest.approx(4303356 - 70.5 * 0.6, abs=1e-3)


def test_a_file_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    case, path = scene(tmp_path, np.ones((1, 40, 40), np.uint8)), tmp_path / "map.tif"
    save(some_labels(40, 40), case, path)
    before = path.read_bytes()

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export, "_labels", full)
    with pytest.raises(DataError, match=r"'.*map\.tif' cannot be written: .*No space left"):
        save(some_labels(40, 40), case, path)
    assert path.read_bytes() == before
    assert sorted(each.name for each in tmp_path.iterdir()) == ["map.tif", "scene.tif"]
    with pytest.raises(DataError, match="cannot be written"):
        save(some_labels(40, 40), case, tmp_path / "nowhere" / "map.tif")


def test_a_naip_tile_whose_infrared_is_flagged_alpha_keeps_all_its_pixels(data, tmp_path):
    image = sorted((data / "naip_landcover" / "images").glob("*.tif"))[0]
    case = SceneCase(id=image.stem, group="", images=(image,))
    label = some_labels(256, 256)
    with rasterio.open(save(label, case, tmp_path / "map.tif")) as found:
        with rasterio.open(image) as source:
            assert found.crs == source.crs
            assert found.transform == source.transform
        assert np.array_equal(found.read(1), np.asarray(VALUES)[label])


def test_radar_chips_are_nodata_where_they_are_nan(data, tmp_path):
    folder = data / "sen1floods11_sample" / "images"
    for image in (folder / "Paraguay_34417.tif", *sorted(folder.glob("Nigeria*.tif"))):
        case = SceneCase(id=image.stem, group="", images=(image,))
        with rasterio.open(image) as source:
            nan = np.isnan(source.read()).any(axis=0)
            profile = source.profile
        path = save(some_labels(*nan.shape), case, tmp_path / "map.tif")
        with rasterio.open(path) as found:
            assert np.array_equal(found.read(1) == 255, nan)
            assert found.crs == profile["crs"]
            assert found.transform == profile["transform"]
