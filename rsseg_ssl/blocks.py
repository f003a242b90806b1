"""Which scenes are neighbors, so that no split learns from next door to its test."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import rasterio.warp
import shapely
from pydantic import Field
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from common.settings import NonNegative, PositiveReal, Settings
from rsseg_ssl.cases import METRES_PER_DEGREE, Grid


class Touching(Settings):
    """Scenes that touch, overlap, or lie within ``gap_m`` of each other are one block."""

    name: Literal["touching"] = "touching"
    gap_m: NonNegative = 0.0


class Squares(Settings):
    """Scenes whose middle lies in one square of ``size_m`` are one block."""

    name: Literal["squares"] = "squares"
    size_m: PositiveReal


class Single(Settings):
    """Every scene is a block of its own: splits may then lie side by side, which is reported."""

    name: Literal["single"] = "single"


AnyBlocks = Annotated[Touching | Squares | Single, Field(discriminator="name")]


@dataclass(frozen=True, slots=True)
class Footprint:
    """Where a scene lies, on a plane for all scenes that keeps small distances true to scale."""

    box: shapely.Polygon
    metres_per_unit: float
    pixel_m: float
    middle_xy_m: tuple[float, float]  # on a grid of metres that is the same for all scenes


@dataclass(frozen=True, slots=True)
class Leak:
    """How near two splits come."""

    splits: tuple[str, str]
    touching: tuple[tuple[str, str], ...]  # pairs of scenes that touch or overlap
    gap_m: float  # the smallest distance; infinite where it is unknown


def footprints(grids: Mapping[str, Grid]) -> dict[str, Footprint]:
    """The place of every scene that has a CRS."""
    placed = {name: grid for name, grid in grids.items() if grid.crs is not None}
    systems = {grid.crs.to_wkt() for grid in placed.values() if grid.crs is not None}
    one_plane = len(systems) == 1 and not next(iter(placed.values())).crs.is_geographic  # type: ignore[union-attr]
    locate = _on_plane if one_plane else _on_globe
    return {name: locate(grid) for name, grid in placed.items()}


def assign(places: Mapping[str, Footprint], rule: Touching | Squares | Single) -> dict[str, str]:
    """The block of each scene, named after its first scene.

    A scene that belongs to no block (it has no CRS) is not in ``places``; it is its own.
    """
    names = sorted(places)
    if isinstance(rule, Single):
        return {name: name for name in names}
    if isinstance(rule, Squares):
        keys = [_square(places[name], rule.size_m) for name in names]
    else:
        keys = _connected([places[name] for name in names], rule.gap_m)
    first: dict[tuple[int, ...], str] = {}
    for name, key in zip(names, keys, strict=True):
        first.setdefault(key, name)
    return {name: first[key] for name, key in zip(names, keys, strict=True)}


def leaks(places: Mapping[str, Footprint], splits: Mapping[str, Sequence[str]]) -> list[Leak]:
    """For each two splits: pairs of scenes that touch, and the smallest gap in metres."""
    kept = {split: [n for n in names if n in places] for split, names in splits.items()}
    kept = {split: names for split, names in kept.items() if names}
    names = [*kept]
    return [
        _between(places, (one, other), (kept[one], kept[other]))
        for i, one in enumerate(names)
        for other in names[i + 1 :]
    ]


def _between(
    places: Mapping[str, Footprint], splits: tuple[str, str], members: tuple[list[str], list[str]]
) -> Leak:
    mine, theirs = ([places[name] for name in group] for group in members)
    pairs = [(members[0][i], members[1][j]) for i, j in _near(mine, theirs, gap_m=0.0)]
    tree = shapely.STRtree([place.box for place in theirs])
    nearest = tree.query_nearest([place.box for place in mine], all_matches=False)
    gaps = [gap_m(mine[i], theirs[j]) for i, j in nearest.T]
    smallest = 0.0 if pairs else min(gaps)
    return Leak(splits=splits, touching=tuple(sorted(pairs)), gap_m=smallest)


def gap_m(one: Footprint, other: Footprint) -> float:
    """Distance in metres between two scenes; 0 where they touch."""
    scale = (one.metres_per_unit + other.metres_per_unit) / 2
    return float(one.box.distance(other.box)) * scale


def _near(
    mine: Sequence[Footprint], theirs: Sequence[Footprint], *, gap_m: float
) -> list[tuple[int, int]]:
    """Index pairs within ``gap_m``, or within half a pixel: corners are rounded when written."""
    tree = shapely.STRtree([place.box for place in theirs])
    reach = [(gap_m + place.pixel_m / 2) / place.metres_per_unit for place in mine]
    found = tree.query([p.box for p in mine], predicate="dwithin", distance=np.asarray(reach))
    return [(int(i), int(j)) for i, j in found.T]


def _connected(places: Sequence[Footprint], gap_m: float) -> list[tuple[int, ...]]:
    if not places:
        return []
    pairs = np.asarray(_near(places, places, gap_m=gap_m)).reshape(-1, 2)
    links = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=[len(places)] * 2)
    _, labels = connected_components(links, directed=False)
    return [(int(label),) for label in labels]


def _square(place: Footprint, size_m: float) -> tuple[int, ...]:
    x_m, y_m = place.middle_xy_m
    return math.floor(x_m / size_m), math.floor(y_m / size_m)


def _on_plane(grid: Grid) -> Footprint:
    left, bottom, right, top = grid.bounds_xyxy
    scale, _ = grid.metres_per_unit_xy
    middle = (left + right) / 2 * scale, (bottom + top) / 2 * scale
    return Footprint(shapely.box(*grid.bounds_xyxy), scale, max(grid.resolution_xy_m), middle)


def _on_globe(grid: Grid) -> Footprint:
    """On Mercator's map, where nearby scenes keep their shape, whatever CRS each has."""
    west, south, east, north = rasterio.warp.transform_bounds(
        grid.crs, "EPSG:4326", *grid.bounds_xyxy
    )
    latitude = (south + north) / 2
    shrink = math.cos(math.radians(min(abs(latitude), 89.0)))
    row_m = latitude * METRES_PER_DEGREE
    return Footprint(
        box=shapely.box(west, _mercator(south), east, _mercator(north)),
        metres_per_unit=METRES_PER_DEGREE * shrink,
        pixel_m=max(grid.resolution_xy_m),
        middle_xy_m=((west + east) / 2 * METRES_PER_DEGREE * shrink, row_m),
    )


def _mercator(latitude: float) -> float:
    """Degrees of latitude to units of one degree of longitude at the equator."""
    limited = max(-89.0, min(89.0, latitude))
    return math.degrees(math.asinh(math.tan(math.radians(limited))))
