"""Windows around rare classes: each class as likely as any other, no window out of bounds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.batch import IGNORE
from common.sampling import generator
from rsseg_ssl.augment import Weak
from rsseg_ssl.batches import Cutting, LabeledPool, Memory, cut
from rsseg_ssl.places import BLOCK, Places, places
from rsseg_ssl.reader import Window
from rsseg_ssl.settings import Statistics
from tests.rsseg_ssl.scenes import save, scene


def counted(target: np.ndarray, classes: int) -> Places:
    return places(lambda window: cut(target, window, fill=IGNORE), target.shape, classes)


targets = st.tuples(
    st.integers(1, 3 * BLOCK), st.integers(1, 3 * BLOCK), st.integers(0, 10_000)
).map(
    lambda drawn: (
        np.random.default_rng(drawn[2])
        .choice([0, 1, 2, IGNORE], size=drawn[:2], p=[0.9, 0.001, 0.0, 0.099])
        .astype(np.uint8)
    )
)


@given(target=targets)
@settings(max_examples=30, deadline=None)
def test_every_pixel_is_counted_in_its_block(target):
    counts = counted(target, 3).counts
    for label in range(3):
        for row in range(counts.shape[1]):
            for column in range(counts.shape[2]):
                block = target[row * BLOCK : (row + 1) * BLOCK, column * BLOCK :][:, :BLOCK]
                assert counts[label, row, column] == (block == label).sum()
    assert counts.sum() == (target != IGNORE).sum()


@given(target=targets, side=st.integers(1, 2 * BLOCK), seed=st.integers(0, 1000))
@settings(max_examples=50, deadline=None)
def test_a_window_lies_inside_or_around_a_scene_that_is_smaller(target, side, seed):
    found = counted(target, 3).around(Window(0, 0, side, side), generator(seed))
    assert (found.height, found.width) == (side, side)
    for start, extent in zip((found.top, found.left), target.shape, strict=True):
        if extent >= side:
            assert 0 <= start <= extent - side
        else:
            assert extent - side <= start <= 0


def test_a_scene_without_annotation_moves_no_window():
    nowhere = counted(np.full((100, 100), IGNORE, dtype=np.uint8), 3)
    window = Window(7, 9, 16, 16)
    assert nowhere.around(window, generator(0)) == window


def test_each_class_that_is_there_is_as_likely_as_any_other():
    target = np.zeros((4 * BLOCK, 4 * BLOCK), dtype=np.uint8)
    target[3 * BLOCK + 5, 2 * BLOCK + 7] = 1  # a single pixel; class 2 is nowhere
    there = counted(target, 3)
    side = 2 * BLOCK  # from the middle of any place of a block, its pixel is in the window
    hits = 0
    for seed in range(400):
        window = there.around(Window(0, 0, side, side), generator(seed))
        hits += int((cut(target, window, fill=IGNORE) == 1).any())
    by_chance = np.mean(
        [
            (cut(target, Window(top, left, side, side), fill=0) == 1).any()
            for top in range(2 * BLOCK + 1)
            for left in range(2 * BLOCK + 1)
        ]
    )
    expected = 0.5 + 0.5 * by_chance  # half of the windows are around it
    assert hits / 400 == pytest.approx(expected, abs=0.12)
    assert hits / 400 > 0.5


@pytest.mark.parametrize("limit_mb", [0, 100])
def test_labeled_windows_show_a_rare_class_far_more_often_than_by_chance(tmp_path, limit_mb):
    mask = np.zeros((1, 320, 320), dtype=np.uint8)
    mask[0, 300:304, 10:14] = 1
    case = scene(
        save(tmp_path / "a.tif", np.zeros((2, 320, 320), dtype=np.uint8)),
        mask=save(tmp_path / "m.tif", mask),
    )
    plain = Statistics(mean=(0.0, 0.0), std=(1.0, 1.0))

    def shown(class_share: float) -> float:
        cutting = Cutting(96, 8, Weak(symmetries=1), plain, class_share)
        pool = LabeledPool([case], cutting, Memory(limit_mb))
        drawn = [pool.draw(0, generator(seed)).target for seed in range(60)]
        return float(np.mean([bool((each == 1).any()) for each in drawn]))

    assert shown(1.0) > 0.35 > 0.2 > shown(0.0)
