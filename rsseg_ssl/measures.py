"""What a scene's prediction is worth: one confusion matrix, and areas on the ground."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Iterator
from typing import cast

import numpy as np
import pandas as pd
import pyproj
import torch
from numpy.typing import NDArray
from torch import Tensor

from common import metrics
from common.batch import IGNORE, Confusion, most_probable
from common.domain import Measure, Task
from rsseg_ssl.cases import Grid

logger = logging.getLogger("seg_ssl")

HEADLINE = ("miou", "")

RULES = (
    "All shares come from one confusion matrix over the pixels that hold data and were annotated. "
    "The numbers of the whole set come from the matrices of all scenes added up, never from means "
    "over scenes.",
    "IoU and F1 of a class: in neither truth nor prediction, it does not apply and is left out of "
    "means; only predicted, it is 0.",
    "mIoU is the mean over classes, FWIoU the mean weighted by their share of the truth, mean "
    "accuracy the mean of the producer's accuracies; pixel accuracy is the share of right pixels.",
    "Producer's accuracy (recall): the share of a class's true pixels that were found. User's "
    "accuracy (precision): the share of its predicted pixels that are right.",
    "Kappa is the agreement beyond chance; it does not apply where all pixels are of one class.",
    "Areas are those of the annotated pixels, by predicted and by true class, in hectares: on the "
    "plane of a projected CRS in its own unit, on the ellipsoid where the CRS is geographic. "
    "A scene without CRS has none, and neither has a set that holds such a scene.",
)

LIMITS = (
    "Nothing is known of it on other sensors, seasons, regions or processing levels than those of "
    "the scenes it was evaluated on.",
    "Its areas are counts of predicted pixels and carry its errors: see user's and producer's "
    "accuracy before a hectare is quoted.",
)
"""What a model card says of every model of scenes."""

PIXELS_AS = "pixels_as_"
AREAS = ("area_ha", "area_truth_ha")
BLOCK_ELEMENTS = 2**24


def measure_scene(
    predicted: Tensor, truth: Tensor, *, valid: Tensor, grid: Grid, task: Task
) -> list[Measure]:
    """All numbers of one scene, counted block by block.

    Args:
        predicted: Class probabilities ``(K, H, W)``, in memory or on disk.
        truth: Class indices ``(H, W)``, IGNORE where nobody looked.
        valid: ``(H, W)``, False where the scene holds no data.
        grid: Where the pixels lie.
        task: The classes.

    Returns:
        Shares per class and of the scene, areas in hectares where there is a CRS, and the
        confusion matrix itself as ``pixels_as_<predicted class>`` of each true class.
    """
    num_classes = len(task.classes)
    area_m2 = pixel_areas_m2(grid)
    if area_m2 is None:
        _warn_once()
    counts = torch.zeros(num_classes, num_classes, dtype=torch.int64)
    areas_m2 = torch.zeros(num_classes, num_classes, dtype=torch.float64)
    for rows in _blocks(predicted):
        known = torch.where(valid[rows], truth[rows], IGNORE)
        label = most_probable(predicted[:, rows].float(), dim=0)
        counts += metrics.confusion(label, known, num_classes)
        if area_m2 is not None:
            areas_m2 += _areas(label, known, area_m2[rows], num_classes)
    areas = _hectares(areas_m2, task.classes) if area_m2 is not None else ()
    return [*_shares(counts, task.classes), *areas, *_matrix(counts, task.classes)]


def summarize(table: pd.DataFrame) -> pd.Series:
    """The data set as one scene: matrices and areas of all cases added up.

    Args:
        table: One row per case, one column per ``(metric, class)`` of :func:`measure_scene`.

    Returns:
        One value per ``(metric, class)``, :data:`HEADLINE` among them; the matrix itself stays
        with the cases.
    """
    sums = table.to_numpy(dtype=np.float64).sum(axis=0).tolist()
    keys = cast(list[tuple[str, str]], table.columns.tolist())
    totals = dict(zip(keys, sums, strict=True))
    names = dict.fromkeys(name for name, _ in totals if name.startswith(PIXELS_AS))
    classes = tuple(name.removeprefix(PIXELS_AS) for name in names)
    counts = torch.tensor([[int(totals[name, row]) for name in names] for row in classes])
    values = {(name, label): value for name, label, value in _shares(counts, classes)}
    values |= {key: total for key, total in totals.items() if key[0] in AREAS}
    index = pd.MultiIndex.from_tuples([*values], names=["metric", "class"])
    return pd.Series([*values.values()], index=index, dtype=float)


def pixel_areas_m2(grid: Grid) -> Tensor | None:
    """The area of a pixel in each row ``(H,)``, in square metres; None without CRS.

    Of a geographic CRS it is the geodesic area of the pixel in the middle of the row, on the
    ellipsoid of the CRS.
    """
    height, _ = grid.shape_yx
    if grid.crs is None:
        return None
    if grid.crs.is_geographic:
        return torch.from_numpy(_geodesic_m2(grid))
    metres = float(grid.crs.linear_units_factor[1])
    t = grid.transform
    return torch.full((height,), abs(t.a * t.e - t.b * t.d) * metres**2, dtype=torch.float64)


def _geodesic_m2(grid: Grid) -> NDArray[np.float64]:
    assert grid.crs is not None
    height, width = grid.shape_yx
    degrees = math.degrees(grid.crs.units_factor[1])
    geod = pyproj.CRS.from_user_input(grid.crs).get_geod() or pyproj.Geod(ellps="WGS84")
    # Areas change slowly from row to row: knots and lines between them are exact to 1e-8.
    knots = np.unique(np.linspace(0, height - 1, min(height, 2049)).round())
    t, left = grid.transform, width // 2
    areas = []
    for row in knots:
        corners = [(left, row), (left + 1, row), (left + 1, row + 1), (left, row + 1)]
        lons = [degrees * (t.a * x + t.b * y + t.c) for x, y in corners]
        lats = [degrees * (t.d * x + t.e * y + t.f) for x, y in corners]
        areas.append(abs(geod.polygon_area_perimeter(lons, lats)[0]))
    return np.asarray(np.interp(np.arange(height), knots, areas))


def _areas(label: Tensor, truth: Tensor, area_m2: Tensor, num_classes: int) -> Tensor:
    """Square metres ``(K, K)`` by true class (rows) and predicted class (columns)."""
    known = truth != IGNORE
    pairs = (truth * num_classes + label)[known]
    each = area_m2[:, None].expand(label.shape)[known]
    return torch.bincount(pairs, each, num_classes**2).reshape(num_classes, num_classes)


def _shares(counts: Confusion, classes: tuple[str, ...]) -> Iterator[Measure]:
    for metric, of_scene in (
        ("miou", metrics.miou),
        ("fwiou", metrics.fwiou),
        ("pixel_accuracy", metrics.pixel_accuracy),
        ("mean_accuracy", metrics.mean_accuracy),
        ("kappa", metrics.kappa),
    ):
        yield Measure(metric, "", of_scene(counts))
    for metric, of_class in (
        ("iou", metrics.iou),
        ("f1", metrics.f1),
        ("producers_accuracy", metrics.producers_accuracy),
        ("users_accuracy", metrics.users_accuracy),
    ):
        for label, value in zip(classes, of_class(counts).tolist(), strict=True):
            yield Measure(metric, label, value)


def _matrix(counts: Confusion, classes: tuple[str, ...]) -> Iterator[Measure]:
    for label, row in zip(classes, counts.tolist(), strict=True):
        for column, count in zip(classes, row, strict=True):
            yield Measure(f"{PIXELS_AS}{column}", label, float(count))


def _hectares(areas_m2: Tensor, classes: tuple[str, ...]) -> Iterator[Measure]:
    for metric, axis in zip(AREAS, (0, 1), strict=True):
        for label, area in zip(classes, areas_m2.sum(dim=axis).tolist(), strict=True):
            yield Measure(metric, label, area / 10_000)


def _blocks(predicted: Tensor) -> Iterator[slice]:
    num_classes, height, width = predicted.shape
    rows = max(1, BLOCK_ELEMENTS // max(1, num_classes * width))
    return (slice(top, min(top + rows, height)) for top in range(0, height, rows))


@functools.cache
def _warn_once() -> None:
    logger.warning(
        "some scenes have no CRS, so areas on the ground cannot be measured and are left out. "
        "If they lie on Earth, assign one: gdal_edit.py -a_srs EPSG:... scene.tif."
    )
