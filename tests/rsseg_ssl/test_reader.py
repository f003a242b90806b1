"""Pixels as stored, and which of them hold data."""

from __future__ import annotations

import os

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.enums import ColorInterp

from common.errors import DataError
from rsseg_ssl import reader
from rsseg_ssl.reader import Window
from tests.rsseg_ssl.scenes import noise, save, scene

WHOLE = Window(0, 0, 16, 16)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    return save(tmp_path_factory.mktemp("stored") / "a.tif", noise(dtype="uint16"))


@settings(max_examples=60, deadline=None)
@given(
    top=st.integers(-20, 20),
    left=st.integers(-20, 20),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
)
def test_any_window_equals_a_cut_of_the_padded_raster(stored, top, left, height, width):
    pixels, valid = reader.read(scene(stored), Window(top, left, height, width))
    padded = np.pad(noise(dtype="uint16"), ((0, 0), (64, 64), (64, 64)))
    inside = np.pad(np.ones((16, 16), bool), 64)
    rows, columns = slice(64 + top, 64 + top + height), slice(64 + left, 64 + left + width)
    assert pixels.dtype == np.uint16
    np.testing.assert_array_equal(pixels, padded[:, rows, columns])
    np.testing.assert_array_equal(valid, inside[rows, columns])


def test_a_near_infrared_band_flagged_alpha_is_data(tmp_path):
    pixels = noise(bands=4)
    pixels[3, :5] = 0
    path = save(tmp_path / "a.tif", pixels)
    with rasterio.open(path, "r+") as target:
        target.colorinterp = (
            ColorInterp.red,
            ColorInterp.green,
            ColorInterp.blue,
            ColorInterp.alpha,
        )
    assert reader.claims_alpha(reader.opened(path))
    read, valid = reader.read(scene(path), WHOLE)
    np.testing.assert_array_equal(read, pixels)
    assert valid.all()


def test_an_alpha_band_that_the_user_names_hides_pixels_and_is_no_data(tmp_path):
    pixels = noise(bands=4)
    pixels[3, :5] = 0
    read, valid = reader.read(scene(save(tmp_path / "a.tif", pixels), alpha_band=4), WHOLE)
    np.testing.assert_array_equal(read, pixels[:3])
    assert not valid[:5].any()
    assert valid[5:].all()


@pytest.mark.parametrize("fill", [0, 7])
def test_declared_nodata_in_any_band_hides_the_pixel(tmp_path, fill):
    pixels = noise()
    pixels[:] = np.where(pixels == 7, 8, pixels)
    pixels[1, 3, 4] = fill
    _, valid = reader.read(scene(save(tmp_path / "a.tif", pixels, nodata=fill)), WHOLE)
    assert not valid[3, 4]
    assert valid.sum() == 255


def test_fill_values_of_the_user_replace_the_declared_ones(tmp_path):
    pixels = noise()
    pixels[:] = np.where(pixels == 9, 8, pixels)
    pixels[:, 0, 0], pixels[:, 1, 1] = 0, 9
    path = save(tmp_path / "a.tif", pixels, nodata=0)
    _, valid = reader.read(scene(path, nodata=(9,)), WHOLE)
    assert valid[0, 0]
    assert not valid[1, 1]
    assert reader.read(scene(path, nodata=()), WHOLE)[1].all()


def test_nan_and_infinity_hide_a_pixel_without_being_declared(tmp_path):
    pixels = noise(dtype="float32")
    pixels[0, 2, 2], pixels[2, 5, 5] = np.nan, -np.inf
    _, valid = reader.read(scene(save(tmp_path / "a.tif", pixels)), WHOLE)
    assert valid.sum() == 254
    assert not valid[2, 2]
    assert not valid[5, 5]


def test_a_float32_fill_written_as_text_is_recognized(tmp_path):
    pixels = noise(dtype="float32")
    pixels[:, 0] = np.float32(-3.4e38)
    _, valid = reader.read(scene(save(tmp_path / "a.tif", pixels), nodata=(-3.4e38,)), WHOLE)
    assert not valid[0].any()
    assert valid[1:].all()


@pytest.mark.parametrize("internal", [True, False])
def test_the_mask_of_the_file_itself_hides_pixels(tmp_path, internal):
    path = save(tmp_path / "a.tif", noise())
    hidden = np.zeros((16, 16), bool)
    hidden[:4, 7:] = True
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal), rasterio.open(path, "r+") as target:
        target.write_mask(~hidden)
    _, valid = reader.read(scene(path), Window(-2, 3, 20, 20))
    expected = np.zeros((20, 20), bool)
    expected[2:18, :13] = ~hidden[:, 3:]
    np.testing.assert_array_equal(valid, expected)


def test_bands_of_several_files_follow_each_other_in_the_order_asked_for(tmp_path):
    pixels = noise(bands=5)
    one = save(tmp_path / "a.tif", pixels[:2])
    two = save(tmp_path / "b.tif", pixels[2:])
    whole, _ = reader.read(scene(one, images=(one, two)), WHOLE)
    np.testing.assert_array_equal(whole, pixels)
    some, _ = reader.read(scene(one, images=(one, two), bands=(5, 1, 4)), WHOLE)
    np.testing.assert_array_equal(some, pixels[[4, 0, 3]])


def test_a_band_that_is_not_there_is_named(tmp_path):
    path = save(tmp_path / "a.tif", noise())
    with pytest.raises(DataError, match=r"band 4 was asked for, but a.tif holds 3"):
        reader.read(scene(path, bands=(1, 4)), WHOLE)


def test_a_file_that_is_cut_off_is_named(tmp_path):
    path = save(tmp_path / "a.tif", noise(side=256))
    path.write_bytes(path.read_bytes()[:60_000])
    with pytest.raises(DataError, match=r"a\.tif' (is damaged|cannot be opened)"):
        reader.read(scene(path), Window(0, 0, 256, 256))


def test_a_file_that_is_no_raster_is_named(tmp_path):
    (tmp_path / "a.tif").write_text("hello")
    with pytest.raises(DataError, match=r"a\.tif' cannot be opened.*GeoTIFF"):
        reader.read(scene(tmp_path / "a.tif"), WHOLE)


def test_handles_are_bounded_and_not_carried_over_a_fork(tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "NUM_HANDLES", 2)
    paths = [save(tmp_path / f"{i}.tif", noise(i)) for i in range(4)]
    first = reader.opened(paths[0])
    for path in paths:
        reader.opened(path)
    assert first.closed
    held = reader.opened(paths[3])
    assert reader.opened(paths[3]) is held
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert reader.opened(paths[3]) is not held
    assert not held.closed


def test_a_file_that_is_written_anew_is_read_anew(tmp_path):
    path = save(tmp_path / "a.tif", noise(0))
    reader.read(scene(path), WHOLE)
    save(path, noise(1))
    np.testing.assert_array_equal(reader.read(scene(path), WHOLE)[0], noise(1))


def test_the_near_infrared_of_real_tiles_is_never_taken_for_alpha(data):
    for path in sorted((data / "naip_landcover" / "images").glob("*.tif"))[:20]:
        with rasterio.open(path) as source:
            expected = source.read()
        read, valid = reader.read(scene(path), Window(0, 0, 256, 256))
        np.testing.assert_array_equal(read, expected)
        assert valid.all()
