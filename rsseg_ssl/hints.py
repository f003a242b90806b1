"""From what is drawn on a scene to the classes that each of its pixels can have, by window."""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import rasterize

from common.batch import IGNORE
from common.errors import DataError
from common.splits import listed
from common.weak_labels import Hint, all_but, only
from rsseg_ssl import reader
from rsseg_ssl.cases import Grid
from rsseg_ssl.reader import Window

HAIR_PIXELS = 1e-4
"""Shapes are moved by as little, so that none runs along the border of a pixel: which pixels it
then touches would hang on rounding, and on the window that is asked for."""

ASLANT = np.array([0.75488, 0.56984])

GRAZED_PIXELS = 0.49
"""A box of a neighbor that reaches no further into a scene says nothing of it."""

ShapeArray: TypeAlias = NDArray[np.object_]
Where: TypeAlias = NDArray[np.int64]
"""Positions of some shapes among others."""


@dataclass(frozen=True, eq=False)
class Shapes:
    """Drawn on one scene, in its pixels: x is the column, y the row, whole numbers are borders."""

    geometries: ShapeArray  # of shapely
    labels: NDArray[np.int64]  # class indices
    sources: tuple[str, ...]  # "boxes.gpkg, feature 3"

    def __len__(self) -> int:
        return len(self.labels)

    def meeting(self, window: Window, margin_yx: tuple[float, float] = (0, 0)) -> dict[int, Where]:
        """Positions of the shapes that meet ``window`` and a margin around it, by class index."""
        rows, columns = margin_yx
        area = shapely.box(
            window.left - columns,
            window.top - rows,
            window.left + window.width + columns,
            window.top + window.height + rows,
        )
        found = np.sort(self._tree.query(area, predicate="intersects"))
        labels = self.labels[found]
        return {label: found[labels == label] for label in np.unique(labels).tolist()}

    def named(self, positions: Where) -> str:
        """Where these shapes come from."""
        return listed([self.sources[each] for each in positions.tolist()], most=3)

    @functools.cached_property
    def _tree(self) -> shapely.STRtree:
        return shapely.STRtree(self.geometries)


class Drawn(ABC):
    """What one file says of one scene."""

    @property
    @abstractmethod
    def classes(self) -> frozenset[int]:
        """The class indices that it speaks of; none where it says nothing."""

    @abstractmethod
    def hints(self, window: Window) -> Iterator[Hint]:
        """What it says of the pixels of a window that lies inside of the scene."""


class Boxes(Drawn):
    """A class is nowhere outside of its boxes. A pixel that a box reaches into is inside."""

    def __init__(self, shapes: Shapes, shape_yx: tuple[int, int], num_classes: int) -> None:
        height, width = shape_yx
        inner = shapely.box(
            GRAZED_PIXELS, GRAZED_PIXELS, width - GRAZED_PIXELS, height - GRAZED_PIXELS
        )
        reaching = shapely.intersects(shapes.geometries, inner)
        self._classes = frozenset(shapes.labels[reaching].tolist())
        self.shapes = Shapes(_shrunk(shapes.geometries), shapes.labels, shapes.sources)
        self.num_classes = num_classes

    @property
    def classes(self) -> frozenset[int]:
        return self._classes

    def hints(self, window: Window) -> Iterator[Hint]:
        met = self.shapes.meeting(window)
        for label in sorted(self.classes):
            here = met.get(label, np.zeros(0, dtype=int))
            outside = ~_burned(self.shapes.geometries[here], window, all_touched=True)
            yield Hint(outside, all_but(label, self.num_classes), self.source(label))

    def source(self, label: int) -> str:
        """Where its boxes come from."""
        return self.shapes.named(np.flatnonzero(self.shapes.labels == label))


class Points(Drawn):
    """The pixel that a point lies in, and all with their middle in a radius, are certain."""

    def __init__(self, shapes: Shapes, grid: Grid, radius_m: float) -> None:
        self.shapes, self.radius_m = shapes, radius_m
        self.metres = metres_per_pixel(grid)
        self.reach_yx = reach_yx(grid, radius_m)

    @property
    def classes(self) -> frozenset[int]:
        return frozenset(self.shapes.labels.tolist())

    def hints(self, window: Window) -> Iterator[Hint]:
        for label, here in self.shapes.meeting(window, self.reach_yx).items():
            where = np.zeros((window.height, window.width), dtype=bool)
            for x, y in shapely.get_coordinates(self.shapes.geometries[here]):
                self._mark(where, x, y, window)
            yield Hint(where, only(label), self.shapes.named(here))

    def _mark(self, where: NDArray[np.bool_], x: float, y: float, window: Window) -> None:
        """Set the pixels of ``window`` around a place of the scene."""
        rows, columns = (
            np.arange(max(start, math.floor(at - reach)), min(end, math.floor(at + reach) + 1))
            for at, reach, start, end in (
                (y, self.reach_yx[0], window.top, window.top + window.height),
                (x, self.reach_yx[1], window.left, window.left + window.width),
            )
        )
        across, down = columns + 0.5 - x, rows[:, None] + 0.5 - y
        east, north = (m[0] * across + m[1] * down for m in self.metres)
        own = (rows[:, None] == math.floor(y)) & (columns == math.floor(x))
        near = np.hypot(east, north) <= self.radius_m
        where[np.ix_(rows - window.top, columns - window.left)] |= near | own


class Strokes(Drawn):
    """Pixels that a line touches, or whose middle a polygon covers, are certain."""

    def __init__(self, shapes: Shapes) -> None:
        self.areal = shapely.get_dimensions(shapes.geometries) == 2
        moved = shapely.transform(shapes.geometries, lambda xy: xy + HAIR_PIXELS * ASLANT)
        self.shapes = Shapes(moved, shapes.labels, shapes.sources)

    @property
    def classes(self) -> frozenset[int]:
        return frozenset(self.shapes.labels.tolist())

    def hints(self, window: Window) -> Iterator[Hint]:
        for label, here in self.shapes.meeting(window).items():
            geometries, areal = self.shapes.geometries[here], self.areal[here]
            where = _burned(geometries[areal], window, all_touched=False)
            where |= _burned(geometries[~areal], window, all_touched=True)
            yield Hint(where, only(label), self.shapes.named(here))


class Painted(Drawn):
    """A mask on the grid of the scene: marked pixels are certain."""

    def __init__(self, mask: Path, values: tuple[int, ...], unmarked: tuple[int, ...]) -> None:
        self.mask, self.values, self.unmarked = mask, values, unmarked

    @property
    def classes(self) -> frozenset[int]:
        return frozenset(range(len(self.values)))

    def hints(self, window: Window) -> Iterator[Hint]:
        (values,), _ = reader.read_plain(self.mask, window, [1])
        known = np.isin(values, self.unmarked)
        marked = np.full(values.shape, IGNORE, dtype=np.uint8)
        for label, value in enumerate(self.values):
            marked[values == value] = label
        known |= marked != IGNORE
        if not known.all():
            strange = listed([str(each) for each in np.unique(values[~known]).tolist()])
            raise DataError(
                f"scribbles '{self.mask}' hold {strange}, which are no classes of this run "
                f"({', '.join(map(str, self.values))}) and not "
                f"{' or '.join(map(str, self.unmarked))}, where nobody drew. Correct them, or set "
                "domain.weak_labels.unmarked."
            )
        for label in np.unique(marked[marked != IGNORE]).tolist():
            yield Hint(marked == label, only(label), f"{self.mask.parent.name}/{self.mask.name}")


def metres_per_pixel(grid: Grid) -> NDArray[np.float64]:
    """From an offset of columns and rows to one of metres, ``(2, 2)``."""
    t, scale_xy = grid.transform, np.array(grid.metres_per_unit_xy)
    return np.asarray(np.array([[t.a, t.b], [t.d, t.e]]) * scale_xy[:, None])


def reach_yx(grid: Grid, radius_m: float) -> tuple[float, float]:
    """How many rows and columns ``radius_m`` reaches."""
    columns, rows = radius_m * np.linalg.norm(np.linalg.inv(metres_per_pixel(grid)), axis=1)
    return float(rows), float(columns)


def _burned(geometries: ShapeArray, window: Window, *, all_touched: bool) -> NDArray[np.bool_]:
    """Which pixels of ``window`` the shapes cover."""
    if not len(geometries):
        return np.zeros((window.height, window.width), dtype=bool)
    burned = rasterize(
        [*geometries],
        out_shape=(window.height, window.width),
        transform=Affine.translation(window.left, window.top),
        all_touched=all_touched,
        dtype=np.uint8,
    )
    return np.asarray(burned, dtype=bool)


def _shrunk(geometries: ShapeArray) -> ShapeArray:
    """A hair smaller, so that a box which ends on the border of a pixel does not touch the next."""
    smaller = shapely.buffer(geometries, -HAIR_PIXELS, join_style="mitre")
    return np.where(shapely.is_empty(smaller), geometries, smaller)
