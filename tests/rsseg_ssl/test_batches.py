"""Windows: cut, turned and normalized as a function of their generator alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.batch import IGNORE
from common.sampling import generator
from rsseg_ssl.augment import Weak
from rsseg_ssl.batches import Cutting, LabeledPool, Memory, UnlabeledPool, cut, normalize
from rsseg_ssl.catalog import without_truth
from rsseg_ssl.reader import Window
from rsseg_ssl.settings import Statistics
from rsseg_ssl.weak_labels import WeakLabels
from tests.rsseg_ssl.scenes import noise, save, scene

NOTHING = WeakLabels(num_classes=2)
PLAIN = Statistics(mean=(0.0, 0.0), std=(1.0, 1.0))


def cutting(tile: int = 16, *, tries: int = 8, symmetries: int = 1, zoom: float = 1.0) -> Cutting:
    return Cutting(tile, tries, Weak(symmetries=symmetries, zoom=zoom), PLAIN)


def coordinates(folder, *, side: int = 40, name: str = "a", **more):
    """A scene whose bands say where a pixel is, and whose mask is 1 in the lower half."""
    rows, columns = np.mgrid[:side, :side].astype(np.uint16)
    mask = (rows >= side // 2).astype(np.uint8)
    return scene(
        save(folder / f"{name}.tif", np.stack([rows, columns]), **more),
        mask=save(folder / f"{name}_mask.tif", mask[None]),
    )


@pytest.mark.parametrize("limit_mb", [0, 100])
@pytest.mark.parametrize("symmetries", [1, 8])
@pytest.mark.parametrize("zoom", [1.0, 1.5])
def test_image_and_target_stay_together(tmp_path, limit_mb, symmetries, zoom):
    case = coordinates(tmp_path)
    how = cutting(symmetries=symmetries, zoom=zoom)
    pool = LabeledPool([case], how, Memory(limit_mb))
    for seed in range(20):
        image, target = pool.draw(0, generator(seed))
        assert image.shape == (2, 16, 16)
        assert image.dtype == torch.float32
        assert target.dtype == torch.int64
        torch.testing.assert_close(target, (image[0] >= 20).long())


def test_a_window_is_a_function_of_its_generator_and_not_of_the_memory(tmp_path):
    case = coordinates(tmp_path)
    pools = [LabeledPool([case], cutting(symmetries=8), Memory(mb)) for mb in (0, 0, 100)]
    for seed in range(5):
        one, two, three = (pool.draw(1, generator(seed)).image for pool in pools)
        assert one.equal(two)
        assert one.equal(three)


def test_a_large_scene_gives_as_many_items_as_tiles_and_a_small_one_gives_one(tmp_path):
    scenes = [coordinates(tmp_path, side=side, name=f"s{side}") for side in (8, 16, 40)]
    assert len(LabeledPool(scenes, cutting(), Memory(0))) == 1 + 1 + 7
    pool = UnlabeledPool([without_truth(each) for each in scenes], cutting(), Memory(0), NOTHING)
    assert len(pool) == 9


def test_a_scene_smaller_than_a_tile_is_padded_with_nothing(tmp_path):
    case = coordinates(tmp_path, side=10)
    image, target = LabeledPool([case], cutting(), Memory(10)).draw(0, generator(0))
    assert (target != IGNORE).sum() == 100
    assert (image[:, target == IGNORE] == 0).all()
    seen, valid, _ = UnlabeledPool([case], cutting(), Memory(10), NOTHING).draw(0, generator(0))
    assert valid.sum() == 100
    assert (seen[:, ~valid] == 0).all()


def test_pixels_without_data_teach_nothing(tmp_path):
    pixels = noise(bands=2)
    pixels[:, :5] = 0
    case = scene(
        save(tmp_path / "a.tif", pixels, nodata=0),
        mask=save(tmp_path / "m.tif", np.ones((1, 16, 16), np.uint8)),
    )
    image, target = LabeledPool([case], cutting(), Memory(10)).draw(0, generator(0))
    assert (target[:5] == IGNORE).all()
    assert (target[5:] == 1).all()
    assert (image[:, :5] == 0).all()


def test_windows_are_redrawn_until_one_shows_something_annotated(tmp_path):
    mask = np.full((1, 64, 64), 9, np.uint8)
    mask[:, 40:, 40:] = 1
    case = scene(
        save(tmp_path / "a.tif", noise(bands=2, side=64)),
        mask=save(tmp_path / "m.tif", mask),
        ignore=(9,),
    )
    shares = []
    for tries in (1, 32):
        pool = LabeledPool([case], cutting(tries=tries), Memory(10))
        targets = [pool.draw(0, generator(seed)).target for seed in range(40)]
        shares.append(np.mean([bool((target != IGNORE).any()) for target in targets]))
    assert shares[0] < 0.8
    assert shares[1] == 1.0


def test_an_empty_scene_and_an_ignored_mask_give_finite_windows(tmp_path):
    empty = scene(
        save(tmp_path / "a.tif", np.full((2, 16, 16), np.nan, np.float32)),
        mask=save(tmp_path / "m.tif", np.full((1, 16, 16), 9, np.uint8)),
        ignore=(9,),
    )
    image, target = LabeledPool([empty], cutting(), Memory(10)).draw(0, generator(0))
    assert (image == 0).all()
    assert (target == IGNORE).all()
    image, valid, _ = UnlabeledPool([empty], cutting(), Memory(10), NOTHING).draw(0, generator(0))
    assert (image == 0).all()
    assert not valid.any()


def test_a_pool_of_nothing_still_has_the_right_shape(tmp_path):
    pool = UnlabeledPool([], cutting(), Memory(0), NOTHING)
    assert len(pool) == 0
    assert pool.nothing().image.shape == (0, 2, 16, 16)
    assert pool.nothing().valid.shape == (0, 16, 16)


def test_memory_keeps_stored_types_and_never_more_than_its_limit(tmp_path):
    cases = [coordinates(tmp_path, side=256, name=f"s{i}") for i in range(3)]
    memory = Memory(1)  # two bands of two bytes and a validity: 320 KiB each
    for case in cases:
        pixels, _ = memory.pixels(case, case.whole)
        assert pixels.dtype == np.uint16
    assert 0 <= memory.left_bytes < 2**20 - 3 * 256 * 256 * 5 + 1
    small = Memory(0)
    small.pixels(cases[0], cases[0].whole)
    assert small.left_bytes == 0


@settings(max_examples=50, deadline=None)
@given(st.integers(-9, 9), st.integers(-9, 9), st.integers(1, 14), st.integers(1, 14))
def test_a_cut_is_a_slice_of_the_padded_array(top, left, height, width):
    pixels = np.arange(2 * 6 * 7).reshape(2, 6, 7)
    window = Window(max(top, 1 - height), max(left, 1 - width), height, width)
    if window.top >= 6 or window.left >= 7:
        return
    padded = np.pad(pixels, ((0, 0), (20, 20), (20, 20)), constant_values=-1)
    rows = slice(20 + window.top, 20 + window.top + height)
    columns = slice(20 + window.left, 20 + window.left + width)
    np.testing.assert_array_equal(cut(pixels, window, fill=-1), padded[:, rows, columns])


def test_normalizing_matches_the_formula_and_zeroes_what_is_not_valid():
    raw = torch.tensor([[[[1.0, torch.nan]], [[5.0, 7.0]]]])
    valid = torch.tensor([[[True, False]]])
    out = normalize(raw, valid, Statistics(mean=(3.0, 1.0), std=(2.0, 4.0)))
    assert out.tolist() == [[[[-1.0, 0.0]], [[1.0, 0.0]]]]
