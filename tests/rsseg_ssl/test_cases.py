"""Where scenes lie, and what was annotated in them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from affine import Affine

from common.batch import IGNORE
from common.errors import DataError
from rsseg_ssl.cases import Grid, Scene, grid_of
from rsseg_ssl.catalog import without_truth
from tests.rsseg_ssl.scenes import halves, noise, north_up, save, scene

FEET = "EPSG:2225"  # California zone 1, US survey feet


def grid(tmp_path, **more) -> Grid:
    return grid_of(save(tmp_path / "grid.tif", noise(), **more))


def test_truth_maps_values_to_classes_and_ignores_what_nobody_saw(tmp_path):
    pixels = noise()
    pixels[:, 0] = 0
    mask = halves(values=(10, 40))
    mask[:, 5] = 99
    case = scene(
        save(tmp_path / "a.tif", pixels, nodata=0),
        mask=save(tmp_path / "m.tif", mask),
        values=(40, 10),
        ignore=(99,),
    )
    expected = np.where(mask[0] == 40, 0, 1)
    expected[[0, 5]] = IGNORE
    assert case.truth.dtype == torch.int64
    np.testing.assert_array_equal(case.truth.numpy(), expected)


def test_nodata_of_the_mask_is_ignored_unless_it_is_a_class(tmp_path):
    path = save(tmp_path / "a.tif", noise())
    mask = save(tmp_path / "m.tif", halves(), nodata=0)
    assert set(scene(path, mask=mask, values=(1, 2)).truth.unique().tolist()) == {0, IGNORE}
    assert set(scene(path, mask=mask, values=(0, 1)).truth.unique().tolist()) == {0, 1}


def test_a_mask_value_that_is_no_class_is_an_error_with_a_remedy(tmp_path):
    case = scene(
        save(tmp_path / "a.tif", noise()), mask=save(tmp_path / "m.tif", halves(values=(0, 7)))
    )
    with pytest.raises(
        DataError, match=r"scene 'a': the mask '.*m.tif' holds 7, .*classes of this run \(0, 1\)"
    ):
        _ = case.truth


def test_a_scene_without_mask_has_no_truth(tmp_path):
    assert scene(save(tmp_path / "a.tif", noise())).truth is None


def test_an_unlabeled_scene_has_no_path_to_a_mask(tmp_path):
    case = scene(save(tmp_path / "a.tif", noise()), mask=tmp_path / "m.tif")
    bare = without_truth(case)
    assert type(bare) is Scene
    assert "mask" not in {field.name for field in dataclasses.fields(bare)}
    assert str(case.mask) not in repr(bare)


def test_grids_that_differ_by_rounding_are_one(tmp_path):
    one, other = grid(tmp_path), grid(tmp_path, transform=north_up(4e-7 / 16))
    assert one.difference(other) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"transform": north_up(0.25 / 16)}, "shifted by up to 0.25 pixels"),
        ({"transform": north_up(size=2.02)}, "shifted by up to 0.16 pixels"),
        ({"crs": "EPSG:32633"}, "EPSG:32632 against EPSG:32633"),
        ({"crs": None}, "EPSG:32632 against no CRS"),
    ],
)
def test_grids_that_differ_say_how(tmp_path, change, words):
    assert grid(tmp_path).difference(grid(tmp_path, **change)) == words


def test_grids_of_different_size_say_so(tmp_path):
    small = grid_of(save(tmp_path / "small.tif", noise(side=8)))
    assert grid(tmp_path).difference(small) == "16 x 16 pixels against 8 x 8"


def test_resolution_is_in_metres_whatever_the_unit(tmp_path):
    assert grid(tmp_path).resolution_xy_m == (2.0, 2.0)
    feet = grid(tmp_path, crs=FEET)
    assert feet.resolution_xy_m == pytest.approx((0.6096, 0.6096), rel=1e-4)
    degrees = grid(tmp_path, crs="EPSG:4326", transform=Affine(0.001, 0, 10, 0, -0.001, 60.008))
    assert degrees.resolution_xy_m == pytest.approx((55.6, 111.2), rel=1e-3)


def test_a_turned_grid_knows_its_bounds_and_pixel_size(tmp_path):
    cos, sin = 2 * np.cos(np.deg2rad(30)), 2 * np.sin(np.deg2rad(30))
    turned = grid(tmp_path, transform=Affine(cos, -sin, 500_000, -sin, -cos, 5_400_000))
    assert turned.resolution_xy == pytest.approx((2.0, 2.0))
    left, bottom, right, top = turned.bounds_xyxy
    span = 16 * (cos + sin)
    assert (right - left, top - bottom) == pytest.approx((span, span))


def test_image_and_mask_of_real_chips_share_their_grid(data):
    chips = data / "sen1floods11_sample"
    for path in sorted((chips / "images").glob("*.tif")):
        assert grid_of(path).difference(grid_of(chips / "masks" / path.name)) is None
