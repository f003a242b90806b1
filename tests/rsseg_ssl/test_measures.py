"""Numbers of scenes: shares from one matrix, and hectares on the ground."""

from __future__ import annotations

import logging
import math
import time

import numpy as np
import pandas as pd
import pyproj
import pytest
import rasterio
import torch
from affine import Affine
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from torch.nn.functional import one_hot

from common import evaluate, metrics
from common.batch import IGNORE
from common.domain import Task
from common.record import CASES
from rsseg_ssl import measures
from rsseg_ssl.cases import Grid
from rsseg_ssl.measures import measure_scene, pixel_areas_m2, summarize

TASK = Task(
    channels=4,
    classes=("grass", "water, open", "rest"),
    colors=((0, 200, 0), (0, 0, 255), (9, 9, 9)),
)
UTM = Affine(0.6, 0, 266115.6, 0, -0.6, 4303356.0)
DEGREES = Affine(1e-4, 0, 8.5, 0, -1e-4, 60.0)


def grid(crs: str | CRS | None, transform: Affine, *shape_yx: int) -> Grid:
    return Grid(crs and CRS.from_user_input(crs), transform, shape_yx)


def probs_of(label: torch.Tensor) -> torch.Tensor:
    return one_hot(label, len(TASK.classes)).permute(2, 0, 1).float()


def maps(seed: int, *shape_yx: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    predicted, truth = torch.randint(3, (2, *shape_yx), generator=generator)
    truth[torch.rand(shape_yx, generator=generator) < 0.1] = IGNORE
    return predicted, truth, torch.rand(shape_yx, generator=generator) < 0.8


def values(found: list) -> dict[tuple[str, str], float]:
    assert len({(each.metric, each.label) for each in found}) == len(found)
    return {(each.metric, each.label): each.value for each in found}


def test_every_number_follows_from_the_pixels_that_hold_data_and_were_annotated():
    predicted, truth, valid = maps(0, 30, 40)
    found = values(
        measure_scene(
            probs_of(predicted), truth, valid=valid, grid=grid("EPSG:26917", UTM, 30, 40), task=TASK
        )
    )
    known = (truth != IGNORE) & valid
    counts = metrics.confusion(predicted[known], truth[known], 3)
    assert found["miou", ""] == pytest.approx(metrics.miou(counts))
    assert found["kappa", ""] == pytest.approx(metrics.kappa(counts))
    for index, name in enumerate(TASK.classes):
        hits = (predicted == index) & (truth == index) & known
        assert found["iou", name] == pytest.approx(float(metrics.iou(counts)[index]))
        recall = float(hits.sum() / ((truth == index) & known).sum())
        assert found["producers_accuracy", name] == pytest.approx(recall)
        precision = float(hits.sum() / ((predicted == index) & known).sum())
        assert found["users_accuracy", name] == pytest.approx(precision)
        assert found[f"pixels_as_{name}", name] == int(hits.sum())
        square_metres = 0.36 * int(((predicted == index) & known).sum())
        assert found["area_ha", name] == pytest.approx(square_metres / 1e4)
        square_metres = 0.36 * int(((truth == index) & known).sum())
        assert found["area_truth_ha", name] == pytest.approx(square_metres / 1e4)


def test_truth_measured_against_itself_is_perfect():
    _, truth, valid = maps(1, 20, 20)
    predicted = probs_of(torch.where(truth == IGNORE, 0, truth))
    where = grid("EPSG:4326", DEGREES, 20, 20)
    found = values(measure_scene(predicted, truth, valid=valid, grid=where, task=TASK))
    assert all(found[name, ""] == 1 for name in ("miou", "fwiou", "kappa", "pixel_accuracy"))
    assert all(found["f1", name] == 1 for name in TASK.classes)
    assert all(
        found["area_ha", c] == pytest.approx(found["area_truth_ha", c]) for c in TASK.classes
    )


def test_blocks_do_not_change_a_number(monkeypatch):
    predicted, truth, valid = maps(2, 33, 21)
    where = grid("EPSG:4326", DEGREES, 33, 21)
    probs = probs_of(predicted)
    whole = values(measure_scene(probs, truth, valid=valid, grid=where, task=TASK))
    monkeypatch.setattr(measures, "BLOCK_ELEMENTS", 3 * 21 * 5)
    assert values(
        measure_scene(probs.half(), truth, valid=valid, grid=where, task=TASK)
    ) == pytest.approx(whole)


def test_a_scene_without_annotated_data_measures_nothing_and_breaks_nothing():
    predicted, truth, valid = maps(3, 8, 8)
    where = grid("EPSG:26917", UTM, 8, 8)
    for args in ((torch.full_like(truth, IGNORE), valid), (truth, torch.zeros_like(valid))):
        found = values(
            measure_scene(probs_of(predicted), args[0], valid=args[1], grid=where, task=TASK)
        )
        assert math.isnan(found["miou", ""])
        assert found["area_ha", "rest"] == 0
        assert found["pixels_as_rest", "rest"] == 0


def test_without_crs_areas_are_left_out_and_the_log_says_so_once(caplog):
    predicted, truth, valid = maps(4, 8, 8)
    measures._warn_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            found = measure_scene(
                probs_of(predicted), truth, valid=valid, grid=grid(None, UTM, 8, 8), task=TASK
            )
    assert not [each for each in found if "area" in each.metric]
    assert caplog.text.count("have no CRS, so areas on the ground cannot be measured") == 1


def test_a_crs_in_feet_and_a_turned_grid_have_their_true_areas():
    feet = pixel_areas_m2(grid("EPSG:2263", Affine(10, 0, 0, 0, -10, 0), 3, 3))
    assert torch.allclose(feet, torch.full((3,), 100 * (1200 / 3937) ** 2, dtype=torch.float64))
    turned = Affine(1.2, 1.6, 0, 1.6, -1.2, 0)
    assert torch.allclose(
        pixel_areas_m2(grid("EPSG:32632", turned, 2, 2)), torch.tensor([4.0, 4.0]).double()
    )


@settings(deadline=None, max_examples=25)
@given(st.floats(-85, 85), st.floats(1e-5, 0.2), st.integers(1, 40))
def test_geodesic_rows_add_up_to_the_area_of_the_whole_column(top, size, height):
    assume(top - size * height >= -90)  # no row lies beyond the pole
    where = grid("EPSG:4326", Affine(size, 0, 10, 0, -size, top), height, 1)
    corners = [(0, row) for row in range(height + 1)] + [(1, row) for row in range(height, -1, -1)]
    xs, ys = zip(*((10 + size * x, top - size * y) for x, y in corners), strict=True)
    area, _ = pyproj.Geod(ellps="WGS84").polygon_area_perimeter(xs, ys)
    assert float(pixel_areas_m2(where).sum()) == pytest.approx(abs(area), rel=1e-5)


def test_a_degree_is_smaller_toward_the_pole_and_high_scenes_are_interpolated():
    areas = pixel_areas_m2(grid("EPSG:4326", Affine(1e-3, 0, 0, 0, -1e-3, 80), 40_000, 10))
    assert (areas.diff() > 0).all()
    for row in (0, 12_345, 39_999):
        lats = [80 - row * 1e-3, 80 - (row + 1) * 1e-3]
        area, _ = pyproj.Geod(ellps="WGS84").polygon_area_perimeter(
            [0, 1e-3, 1e-3, 0], [lats[0], lats[0], lats[1], lats[1]]
        )
        assert float(areas[row]) == pytest.approx(abs(area), rel=1e-5)


@settings(deadline=None, max_examples=15)
@given(st.lists(st.integers(0, 1000), min_size=1, max_size=4))
def test_a_set_of_scenes_is_measured_as_one_scene(seeds):
    where = grid("EPSG:26917", UTM, 12, 10)
    scenes = [maps(seed, 12, 10) for seed in seeds]
    cases = pd.concat(
        pd.DataFrame(
            [(str(i), "", "test", *each) for each in _measured(scene, where)],
            columns=list(CASES),
        )
        for i, scene in enumerate(scenes)
    )
    summary = summarize(evaluate.table(cases))
    predicted, truth, valid = (torch.cat(parts) for parts in zip(*scenes, strict=True))
    whole = grid("EPSG:26917", UTM, 12 * len(scenes), 10)
    expected = values(_measured((predicted, truth, valid), whole))
    assert summary[measures.HEADLINE] == pytest.approx(expected["miou", ""])
    expected = {key: value for key, value in expected.items() if "pixels_as" not in key[0]}
    assert {*summary.index} == {*expected}
    for key, value in expected.items():
        assert summary[key] == pytest.approx(value, nan_ok=True)


def _measured(scene, where):
    predicted, truth, valid = scene
    return measure_scene(probs_of(predicted), truth, valid=valid, grid=where, task=TASK)


def test_a_set_with_a_scene_that_lies_nowhere_has_no_area():
    cases = pd.concat(
        pd.DataFrame(
            [(str(i), "", "test", *each) for each in _measured(maps(i, 9, 9), where)],
            columns=list(CASES),
        )
        for i, where in enumerate([grid("EPSG:26917", UTM, 9, 9), grid(None, UTM, 9, 9)])
    )
    summary = summarize(evaluate.table(cases))
    assert math.isnan(summary["area_ha", "rest"])
    assert summary["miou", ""] > 0


def test_every_metric_is_defined_in_the_rules():
    text = " ".join(measures.RULES).lower()
    for word in ("iou", "f1", "fwiou", "miou", "kappa", "pixel accuracy", "hectares", "producer"):
        assert word in text


def test_a_scene_of_512_pixels_is_measured_in_milliseconds():
    predicted, truth, valid = maps(0, 512, 512)
    probs, where = probs_of(predicted), grid("EPSG:4326", DEGREES, 512, 512)
    best = math.inf
    for _ in range(3):
        start = time.perf_counter()
        measure_scene(probs, truth, valid=valid, grid=where, task=TASK)
        best = min(best, time.perf_counter() - start)
    assert best < 0.25  # about 30 ms on an idle core


def test_sentinel_chips_in_degrees_have_hectares_of_the_ellipsoid(data):
    path = data / "sen1floods11_sample" / "masks" / "Spain_7370579.tif"
    with rasterio.open(path) as source:
        truth = torch.from_numpy(source.read(1)).long()
        where = Grid(source.crs, source.transform, source.shape)
        bounds = source.bounds
    task = Task(channels=2, classes=("dry", "water"), colors=((0, 0, 0), (0, 0, 255)))
    truth[truth == -1] = IGNORE
    predicted = one_hot(torch.where(truth == IGNORE, 0, truth), 2).permute(2, 0, 1).float()
    found = values(measure_scene(predicted, truth, valid=truth >= 0, grid=where, task=task))
    geod = pyproj.Geod(ellps="WGS84")
    xs = [bounds.left, bounds.right, bounds.right, bounds.left]
    ys = [bounds.top, bounds.top, bounds.bottom, bounds.bottom]
    area, _ = geod.polygon_area_perimeter(xs, ys)
    share = float((truth != IGNORE).float().mean())
    measured = found["area_ha", "dry"] + found["area_ha", "water"]
    assert measured == pytest.approx(abs(area) / 1e4 * share, rel=2e-3)
    assert np.isclose(found["miou", ""], 1)


def test_a_thousand_draws_of_a_bootstrap_take_seconds():
    where = grid("EPSG:26917", UTM, 9, 9)
    one = pd.DataFrame(
        [("0", "", "test", *each) for each in _measured(maps(0, 9, 9), where)], columns=list(CASES)
    )
    table = evaluate.table(one)
    table = pd.concat([table] * 100)
    start = time.perf_counter()
    for _ in range(20):
        summarize(table)
    assert time.perf_counter() - start < 20 * 0.02  # about 1 ms each on an idle core
