"""What is drawn on scenes, pixel by pixel, against naive loops."""

from __future__ import annotations

import math
import pickle
from itertools import product

import geopandas as gpd
import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS

from common.weak_labels import ClassSets, possible
from rsseg_ssl.cases import Grid, point
from rsseg_ssl.hints import Boxes, Painted, Points, Shapes, Strokes
from rsseg_ssl.in_pixels import Survey
from rsseg_ssl.reader import Window
from rsseg_ssl.vectors import Legend
from rsseg_ssl.weak_labels import SceneHints, SceneWeakLabelFiles, WeakLabels, read_hints
from tests.rsseg_ssl.scenes import save

LEGEND = Legend(("land", "water", "roof"), (0, 10, 20))
HEIGHT, WIDTH = 17, 21
METRE = 1 / 111_195
PLACES = {
    "north up": ("EPSG:32632", Affine(2, 0, 500_000, 0, -2, 5_400_000)),
    "turned": (
        "EPSG:32632",
        Affine.translation(500_000, 5_400_000) @ Affine.rotation(33) @ Affine.scale(2, -3),
    ),
    "south up": ("EPSG:32632", Affine(2, 0, 500_000, 0, 2, 5_400_000)),
    "degrees": ("EPSG:4326", Affine(2 * METRE, 0, 9, 0, -2 * METRE, 48.75)),
    "degrees, turned": (
        "EPSG:4326",
        Affine.translation(9, 48.75) @ Affine.rotation(-20) @ Affine.scale(3 * METRE, -2 * METRE),
    ),
}


def grid_at(place: str) -> Grid:
    crs, transform = PLACES[place]
    return Grid(CRS.from_user_input(crs), transform, (HEIGHT, WIDTH))


def shapes(*drawn: tuple[int, shapely.Geometry]) -> Shapes:
    labels, geometries = zip(*drawn, strict=True)
    sources = tuple(f"f, feature {number}" for number in range(1, len(drawn) + 1))
    return Shapes(np.array(geometries, dtype=object), np.array(labels), sources)


def said(**drawn) -> WeakLabels:
    return WeakLabels(3, {"a": SceneHints(drawn=drawn)}, tell_pixels_apart=True)


def whole(labels: WeakLabels, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    return possible(labels.class_sets("a", Window(0, 0, height, width)))


def random_shapes(rng: np.random.Generator, grid: Grid) -> dict[str, list]:
    """Some of each kind that stay clear of each other, as shapes of the grid's CRS."""

    def placed(pixels: shapely.Geometry) -> shapely.Geometry:
        return shapely.transform(
            pixels, lambda xy: np.array([point(grid.transform, *each) for each in xy])
        )

    def blob(x: float, y: float, size: float) -> shapely.Geometry:
        return shapely.MultiPoint(rng.uniform(-size, size, (6, 2)) + np.array([x, y])).convex_hull

    pole = shapely.Point(rng.uniform(3, 6, 2))
    line = shapely.LineString(rng.uniform((11, -3), (25, 3), (3, 2)))
    return {
        "boxes": [(2, placed(blob(12, 6, 8))), (2, placed(blob(2, 14, 4)))],
        "points": [(0, placed(pole))],
        "scribbles": [(1, placed(line)), (0, placed(blob(17, 14, 3)))],
    }


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("file_crs", ["EPSG:32632", "EPSG:4326", "EPSG:3857", "EPSG:32633"])
def test_shapes_of_any_crs_mark_the_pixels_that_a_loop_over_all_pixels_finds(
    tmp_path, place, file_crs
):
    rng = np.random.default_rng([*place.encode(), *file_crs.encode()])
    grid = grid_at(place)
    drawn = random_shapes(rng, grid)
    files = {}
    for kind, features in drawn.items():
        table = gpd.GeoDataFrame(
            {"class": [LEGEND.classes[label] for label, _ in features]},
            geometry=[shape for _, shape in features],
            crs=PLACES[place][0],
        )
        files[kind] = tmp_path / f"{kind}.gpkg"
        table.to_crs(file_crs).to_file(files[kind])
    radius_m = 5.0
    read = read_hints(
        SceneWeakLabelFiles(**files, point_radius_m=radius_m),
        tmp_path,
        Survey(LEGEND, ["a"], {"a": grid}, ()),
    )
    assert read.problems == read.silent == []
    found = whole(WeakLabels(3, read.by_scene, tell_pixels_apart=True))
    np.testing.assert_array_equal(found, by_loop(grid, drawn, radius_m))
    assert 0 < found.mean() < 1


def by_loop(grid: Grid, drawn: dict[str, list], radius_m: float) -> np.ndarray:
    """Which class each pixel can have, one pixel after the other."""
    out = np.ones((3, HEIGHT, WIDTH), dtype=bool)
    for row, column in product(range(HEIGHT), range(WIDTH)):
        corners = [(column, row), (column + 1, row), (column + 1, row + 1), (column, row + 1)]
        pixel = shapely.Polygon([point(grid.transform, *each) for each in corners])
        middle = shapely.Point(point(grid.transform, column + 0.5, row + 0.5))
        inside = any(box.intersection(pixel).area > 1e-7 * pixel.area for _, box in drawn["boxes"])
        left = {0, 1, 2} if inside else {0, 1}
        for label, pole in drawn["points"]:
            if pixel.contains(pole) or metres(grid, middle, pole) <= radius_m:
                left &= {label}
        for label, shape in drawn["scribbles"]:
            if shape.geom_type == "LineString":
                here = shape.intersection(pixel).length > 1e-4 * math.sqrt(pixel.area)
            else:
                here = shape.contains(middle)
            left &= {label} if here else left
        out[:, row, column] = [label in left for label in range(3)]
    return out


def metres(grid: Grid, one: shapely.Point, other: shapely.Point) -> float:
    east, north = one.x - other.x, one.y - other.y
    if grid.crs.is_geographic:
        _, south, _, top = grid.bounds_xyxy
        east, north = east / METRE * math.cos(math.radians((south + top) / 2)), north / METRE
    return math.hypot(east, north)


numbers = st.one_of(
    st.integers(-3, 30).map(float),
    st.integers(-6, 60).map(lambda each: each / 2),
    st.floats(-3, 30, allow_nan=False, width=32),
)
corners = st.tuples(numbers, numbers)


@settings(max_examples=150, deadline=None)
@given(st.lists(corners, min_size=4, max_size=8), st.tuples(*[st.integers(0, 11)] * 4))
def test_a_window_shows_what_the_whole_scene_shows_there(places, window):
    top, left, height, width = window
    window = Window(top, left, height + 1, width + 1)
    hull = shapely.MultiPoint(places[:-1]).convex_hull.buffer(0.0)
    if hull.is_empty:
        return
    grid = grid_at("turned")
    grid = Grid(grid.crs, grid.transform, (24, 25))
    kinds = [
        Boxes(shapes((1, hull)), grid.shape_yx, 3),
        Points(shapes((1, shapely.Point(places[-1]))), grid, 7.0),
        Strokes(shapes((1, shapely.LineString(places)))),
        Strokes(shapes((1, hull))),
    ]
    for drawn in kinds:
        labels = said(boxes=drawn)
        cut = whole(labels, 24, 25)[:, top : top + height + 1, left : left + width + 1]
        np.testing.assert_array_equal(possible(labels.class_sets("a", window)), cut)


def test_a_box_that_ends_on_the_border_of_a_pixel_does_not_touch_the_next():
    box = shapely.box(3, 2, 7, 5)
    for noise in (-1e-9, 0, 1e-9):
        moved = shapely.transform(box, lambda xy, noise=noise: xy + noise)
        found = whole(said(boxes=Boxes(shapes((1, moved)), (HEIGHT, WIDTH), 3)))
        expected = np.zeros((HEIGHT, WIDTH), bool)
        expected[2:5, 3:7] = True
        np.testing.assert_array_equal(found[1], expected)
        assert found[[0, 2]].all()


def test_a_box_smaller_than_a_pixel_still_is_one():
    for size in (0.3, 1e-5):
        found = whole(said(boxes=Boxes(shapes((1, shapely.box(5.2, 4.4, 5.2 + size, 4.4 + size))),
                                       (HEIGHT, WIDTH), 3)))  # fmt: skip
        assert np.argwhere(found[1]).tolist() == [[4, 5]]


def test_the_box_of_a_neighbor_that_only_grazes_a_scene_says_nothing_there():
    grazing = shapely.box(-9, -9, 0.4, 40)
    assert Boxes(shapes((1, grazing)), (HEIGHT, WIDTH), 3).classes == frozenset()
    reaching = shapely.box(-9, -9, 0.6, 40)
    assert Boxes(shapes((1, reaching)), (HEIGHT, WIDTH), 3).classes == {1}
    both = Boxes(shapes((1, grazing), (1, shapely.box(5, 5, 7, 7))), (HEIGHT, WIDTH), 3)
    assert whole(said(boxes=both))[1, :, 0].all()


def test_a_class_without_box_is_not_narrowed_and_more_boxes_narrow_less():
    one = Boxes(shapes((1, shapely.box(1, 1, 4, 4))), (HEIGHT, WIDTH), 3)
    two = Boxes(
        shapes((1, shapely.box(1, 1, 4, 4)), (1, shapely.box(3, 3, 9, 6))), (HEIGHT, WIDTH), 3
    )
    assert whole(said(boxes=one))[[0, 2]].all()
    assert (whole(said(boxes=one))[1] <= whole(said(boxes=two))[1]).all()


def test_a_point_without_radius_is_the_pixel_it_lies_in():
    grid = grid_at("north up")
    for x, y in ((3.0, 4.0), (3.999, 4.999)):
        found = whole(said(points=Points(shapes((2, shapely.Point(x, y))), grid, 0.0)))
        assert np.argwhere(~found[0]).tolist() == [[4, 3]]


@given(st.floats(0, 30), st.floats(0, 30))
def test_a_larger_radius_marks_no_fewer_pixels(one, other):
    grid, pole = grid_at("degrees, turned"), shapes((2, shapely.Point(5.3, 6.1)))
    small, large = (
        ~whole(said(points=Points(pole, grid, radius)))[0] for radius in sorted((one, other))
    )
    assert (small <= large).all()
    assert small.any()


def test_a_mask_marks_its_pixels_and_no_others(tmp_path):
    mask = np.full((1, HEIGHT, WIDTH), 255, np.uint8)
    mask[0, 3, 4], mask[0, 5, 6], mask[0, 7, 8] = 10, 20, 99
    labels = said(
        scribbles=Painted(save(tmp_path / "a.tif", mask), LEGEND.values, unmarked=(99, 255))
    )
    found = whole(labels)
    assert np.argwhere(found.sum(axis=0) == 1).tolist() == [[3, 4], [5, 6]]
    assert found[1, 3, 4]
    assert found[2, 5, 6]
    part = labels.class_sets("a", Window(2, 3, 9, 5))
    np.testing.assert_array_equal(possible(part), found[:, 2:11, 3:8])


def test_what_is_drawn_travels_to_the_workers(tmp_path):
    drawn = {
        "boxes": Boxes(shapes((1, shapely.box(1, 1, 9, 9))), (HEIGHT, WIDTH), 3),
        "points": Points(shapes((1, shapely.Point(3, 3))), grid_at("turned"), 3.0),
        "scribbles": Strokes(shapes((2, shapely.box(4, 4, 6, 6)))),
    }
    labels = said(**drawn)
    before = whole(labels)
    for copy in (pickle.loads(pickle.dumps(said(**drawn))), pickle.loads(pickle.dumps(labels))):
        np.testing.assert_array_equal(whole(copy), before)


def test_a_scene_that_nobody_spoke_of_can_have_every_class():
    found: ClassSets = said().class_sets("b", Window(3, 3, 4, 5))
    assert possible(found).all()
    assert said().tagged("b") == {0, 1, 2}
