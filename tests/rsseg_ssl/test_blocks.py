"""Neighbors are found, whatever the CRS, and never split."""

from __future__ import annotations

import math

import pytest
from affine import Affine
from rasterio.crs import CRS
from rasterio.warp import transform

from rsseg_ssl.blocks import Single, Squares, Touching, assign, footprints, gap_m, leaks
from rsseg_ssl.cases import Grid, grid_of
from tests.rsseg_ssl.scenes import UTM, north_up

SIDE = 16


def tile(column: float, row: float, crs: str | None = UTM) -> Grid:
    """32 m wide."""
    return Grid(CRS.from_user_input(crs) if crs else None, north_up(column, row), (SIDE, SIDE))


def degrees(west: float, north: float, side: float = 0.001) -> Grid:
    step = side / SIDE
    return Grid(CRS.from_epsg(4326), Affine(step, 0, west, 0, -step, north), (SIDE, SIDE))


def test_tiles_that_share_an_edge_or_a_corner_are_one_block():
    places = footprints(
        {"a": tile(0, 0), "b": tile(1, 0), "c": tile(2, 1), "far": tile(4, 0), "alone": tile(9, 9)}
    )
    assert assign(places, Touching()) == {
        "a": "a", "b": "a", "c": "a", "far": "far", "alone": "alone",
    }  # fmt: skip


def test_corners_rounded_when_written_still_touch():
    places = footprints({"a": tile(0, 0), "b": tile(1 + 1e-9, 0), "c": tile(2 + 0.4 / SIDE, 0)})
    assert set(assign(places, Touching()).values()) == {"a"}


def test_a_wider_gap_joins_more():
    places = footprints({"a": tile(0, 0), "b": tile(2, 0), "c": tile(5, 0)})
    sizes = [len({*assign(places, Touching(gap_m=gap)).values()}) for gap in (0, 32, 64)]
    assert sizes == [3, 2, 1]


def test_squares_join_what_lies_in_one_square_of_a_fixed_grid():
    places = footprints({f"{c}": tile(c, 0) for c in range(12)})
    blocks = assign(places, Squares(size_m=128))
    assert len({*blocks.values()}) in (3, 4)
    some = assign({name: places[name] for name in ("3", "4", "5")}, Squares(size_m=128))
    assert (some["3"] == some["4"]) == (blocks["3"] == blocks["4"])
    assert (some["4"] == some["5"]) == (blocks["4"] == blocks["5"])


def test_single_scenes_are_blocks_of_their_own():
    places = footprints({"a": tile(0, 0), "b": tile(1, 0)})
    assert assign(places, Single()) == {"a": "a", "b": "b"}


def test_scenes_without_crs_lie_nowhere():
    assert footprints({"a": tile(0, 0, crs=None)}) == {}
    assert [*footprints({"a": tile(0, 0, crs=None), "b": tile(0, 0)})] == ["b"]
    assert assign({}, Touching()) == {}


def test_the_gap_is_in_metres_on_a_plane_and_on_the_globe():
    places = footprints({"a": tile(0, 0), "b": tile(3, 0)})
    assert gap_m(places["a"], places["b"]) == pytest.approx(64)
    globe = footprints({"a": degrees(10, 60), "b": degrees(10.002, 60), "c": degrees(10, 60.003)})
    assert gap_m(globe["a"], globe["b"]) == pytest.approx(
        0.001 * 111_195 * math.cos(math.radians(60)), rel=1e-3
    )
    assert gap_m(globe["a"], globe["c"]) == pytest.approx(0.002 * 111_195, rel=1e-3)


def test_neighbors_in_different_crs_are_found():
    utm, zone_33 = tile(0, 0), CRS.from_epsg(32633)
    _, _, right, top = utm.bounds_xyxy
    (x,), (y,) = transform(utm.crs, zone_33, [right + 5], [top])
    beside = Grid(zone_33, Affine(2, 0, x, 0, -2, y), (SIDE, SIDE))
    places = footprints({"a": utm, "b": beside, "far": tile(100, 0)})
    assert gap_m(places["a"], places["b"]) < 8
    assert assign(places, Touching(gap_m=8)) == {"a": "a", "b": "a", "far": "far"}


def test_leaks_count_touching_pairs_and_the_smallest_gap():
    places = footprints({"a": tile(0, 0), "b": tile(1, 0), "c": tile(1, 1), "d": tile(6, 0)})
    found = leaks(
        places, {"labeled": ["a"], "unlabeled": [], "validation": ["d"], "test": ["b", "c"]}
    )
    by_splits = {leak.splits: leak for leak in found}
    assert set(by_splits) == {
        ("labeled", "validation"),
        ("labeled", "test"),
        ("validation", "test"),
    }
    touching = by_splits["labeled", "test"]
    assert touching.touching == (("a", "b"), ("a", "c"))
    assert touching.gap_m == 0
    assert by_splits["labeled", "validation"].gap_m == pytest.approx(5 * 32)
    assert by_splits["validation", "test"].gap_m == pytest.approx(4 * 32)


def test_the_blocked_split_of_naip_has_no_touching_pair_and_the_known_gap(data):
    folder = data / "naip_landcover"
    splits = {
        split: (folder / "splits" / f"block_{split}.txt").read_text().split()
        for split in ("train", "val", "test")
    }
    grids = {name: grid_of(folder / "images" / name) for names in splits.values() for name in names}
    found = leaks(footprints(grids), splits)
    assert all(not leak.touching for leak in found)
    gaps = {leak.splits: leak.gap_m for leak in found}
    assert gaps["train", "test"] == pytest.approx(217, abs=1)
