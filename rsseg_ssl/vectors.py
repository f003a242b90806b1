"""Files of shapes, such as GeoPackage: features with a class, brought onto the pixels of scenes."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import geopandas as gpd
import numpy as np
import pandas as pd
import pyproj
import pyproj.exceptions
import shapely
from numpy.typing import NDArray

from common.errors import DataError
from common.splits import closest, listed
from rsseg_ssl.cases import Grid, named
from rsseg_ssl.hints import ShapeArray, Shapes

PIECES = 32
"""The outline of a scene, and what is drawn on it, bends at as many places when reprojected."""


class Legend(NamedTuple):
    """What the words and values in files of weak labels stand for."""

    classes: tuple[str, ...]  # names; the position is the class index
    values: tuple[int, ...]  # of each class, in masks


@dataclass(frozen=True, eq=False)
class Features:
    """What one file holds, in its own CRS."""

    path: Path
    crs: pyproj.CRS
    geometries: ShapeArray
    labels: NDArray[np.int64]

    def on(self, grid: Grid, margin_yx: tuple[float, float] = (0, 0)) -> Shapes:
        """Those that meet a scene or a margin around it, on its pixels.

        Args:
            grid: Of the scene; it has a CRS.
            margin_yx: In rows and columns.

        Raises:
            DataError: When one of them cannot be brought to the CRS of the scene.
        """
        assert grid.crs is not None
        crs, inverse = pyproj.CRS.from_wkt(grid.crs.to_wkt()), ~grid.transform
        outline = _outline(grid.shape_yx, margin_yx)
        around = shapely.transform(_mapped(outline, grid.transform), _between(crs, self.crs))
        area = _area(around)
        found = np.sort(self._tree.query(area, predicate="intersects"))
        here = shapely.intersection(self.geometries[found], area)
        if crs != self.crs:
            here = shapely.segmentize(here, (shapely.length(area) or 1.0) / (4 * PIECES))
            here = shapely.transform(here, _between(self.crs, crs))
            self._all_finite(here, found, grid)
        shapes = np.array([_mapped(each, inverse) for each in here], dtype=object)
        meets = shapely.intersects(shapes, outline)
        return Shapes(
            geometries=shapes[meets],
            labels=self.labels[found[meets]],
            sources=tuple(f"{self.path.name}, feature {n + 1}" for n in found[meets].tolist()),
        )

    def _all_finite(self, moved: ShapeArray, found: NDArray[np.int64], grid: Grid) -> None:
        for shape, number in zip(moved, found.tolist(), strict=True):
            if not np.isfinite(shapely.get_coordinates(shape)).all():
                raise DataError(
                    f"{self.path.name}, feature {number + 1}: cannot be brought to "
                    f"{named(grid.crs)}. Save the file in the CRS of the scenes (ogr2ogr -t_srs)."
                )

    @functools.cached_property
    def _tree(self) -> shapely.STRtree:
        return shapely.STRtree(self.geometries)


def read_features(path: Path, kinds: Sequence[str], *, column: str, legend: Legend) -> Features:
    """The features of a file that GDAL reads, whatever its CRS.

    Args:
        path: GeoPackage, GeoJSON, Shapefile, FlatGeobuf, ...
        kinds: The types of shapes that make sense: ``("Polygon", "MultiPolygon")``.
        column: The attribute with the name or the mask value of the class.
        legend: The classes.

    Raises:
        DataError: When the file cannot be used, or listing the features that cannot.
    """
    table = _table(path)
    if column not in table:
        known = [str(each) for each in table.columns if each != table.geometry.name]
        raise DataError(
            f"{path} has no attribute '{column}' that names the class; it has "
            f"{listed(known) or 'none'}.{closest(column, known)} Set "
            "domain.weak_labels.class_column."
        )
    geometries = np.array(table.geometry, dtype=object)
    problems: dict[str, list[int]] = defaultdict(list)
    labels = np.zeros(len(table), dtype=np.int64)
    for number, (said, shape) in enumerate(zip(table[column], geometries, strict=True)):
        try:
            labels[number] = _label(said, legend)
            _check_shape(shape, kinds)
        except ValueError as error:
            problems[str(error)].append(number + 1)
    if problems:
        told = [f"feature {listed([*map(str, who)])}: {what}" for what, who in problems.items()]
        raise DataError.listing(path, told)
    return Features(path, pyproj.CRS(table.crs), shapely.force_2d(geometries), labels)


def _table(path: Path) -> gpd.GeoDataFrame:
    try:
        layers = [*gpd.list_layers(path)["name"]]
        table = gpd.read_file(path, layer=layers[0]) if layers else None
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read as shapes: {error}. Give a file such as GeoPackage or "
            "GeoJSON, or a .csv in pixels."
        ) from error
    if len(layers) > 1:
        raise DataError(
            f"{path} holds {len(layers)} layers ({listed(layers)}). Save the one that is meant as "
            "a file of its own."
        )
    if not isinstance(table, gpd.GeoDataFrame):
        raise DataError(f"{path} holds no shapes. Give a file such as GeoPackage or GeoJSON.")
    if table.crs is None:
        raise DataError(
            f"{path} has no CRS, so it is unknown where its shapes lie. Assign one: ogr2ogr "
            "-a_srs EPSG:..."
        )
    return table


def _label(said: Any, legend: Legend) -> int:  # noqa: ANN401
    """The index of a class that is called by its name or its mask value."""
    if pd.isna(said) or not str(said).strip():
        raise ValueError("has no class.")
    name = str(said).strip()
    if name in legend.classes:
        return legend.classes.index(name)
    try:
        return legend.values.index(int(name) if isinstance(said, str) else said)
    except ValueError:
        raise ValueError(f"there is no class '{name}'.{closest(name, legend.classes)}") from None


def _check_shape(shape: shapely.Geometry | None, kinds: Sequence[str]) -> None:
    if shape is None or shape.is_empty:
        raise ValueError("has no shape.")
    if shape.geom_type not in kinds:
        raise ValueError(f"is a {shape.geom_type}, expected {' or '.join(kinds)}.")
    if not np.isfinite(shapely.get_coordinates(shape)).all():
        raise ValueError("has coordinates that are no numbers.")
    if not shape.is_valid:
        why = shapely.is_valid_reason(shape).split("[")[0]
        raise ValueError(f"its outline is not valid ({why}). Mend it (QGIS: Fix geometries).")


@functools.lru_cache(maxsize=64)
def _transformer(source: str, target: str) -> pyproj.Transformer:
    return pyproj.Transformer.from_crs(source, target, always_xy=True)


def _between(source: pyproj.CRS, target: pyproj.CRS) -> Any:  # noqa: ANN401
    """What moves coordinates ``(N, 2)`` from one CRS to the other; infinite where it cannot."""
    if source == target:
        return lambda xy: xy
    try:
        transformer = _transformer(source.to_wkt(), target.to_wkt())
    except pyproj.exceptions.ProjError as error:
        raise DataError(
            f"there is no way from {source.name} to {target.name}: {error}. Save the file in the "
            "CRS of the scenes."
        ) from error
    return lambda xy: np.column_stack(transformer.transform(xy[:, 0], xy[:, 1]))


def _outline(shape_yx: tuple[int, int], margin_yx: tuple[float, float]) -> shapely.Polygon:
    """Of a scene and a margin, in pixels."""
    (height, width), (rows, columns) = shape_yx, margin_yx
    whole = shapely.box(-columns, -rows, width + columns, height + rows)
    return shapely.segmentize(whole, max(height + 2 * rows, width + 2 * columns) / PIECES)


def _mapped(shape: shapely.Geometry, transform: Any) -> shapely.Geometry:  # noqa: ANN401
    """``shape`` through an affine transform."""
    t = transform
    matrix = np.array([[t.a, t.b], [t.d, t.e]])
    return shapely.transform(shape, lambda xy: xy @ matrix.T + (t.c, t.f))


def _area(outline: shapely.Polygon) -> shapely.Polygon:
    """A rectangle around all of an outline that has a place in the CRS of the file."""
    xy = shapely.get_coordinates(outline)
    xy = xy[np.isfinite(xy).all(axis=1)]
    if not len(xy):
        return shapely.Polygon()
    (left, bottom), (right, top) = xy.min(axis=0), xy.max(axis=0)
    margin = max(right - left, top - bottom) / PIECES
    return shapely.box(left - margin, bottom - margin, right + margin, top + margin)
