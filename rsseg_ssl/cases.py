"""Scenes: where their pixels lie on Earth, and what was annotated in them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from torch import Tensor

from common.batch import IGNORE
from common.errors import DataError
from rsseg_ssl import reader
from rsseg_ssl.reader import Window

METRES_PER_DEGREE = 111_195.0  # along a meridian of a sphere of 6371 km
GRID_DIFFERENCE_PIXELS = 1e-6


@dataclass(frozen=True, slots=True)
class Grid:
    """Which point on Earth a pixel is."""

    crs: CRS | None  # None: a pixel grid that lies nowhere
    transform: Affine  # (column, row) to (x, y), pixel corners
    shape_yx: tuple[int, int]

    @property
    def bounds_xyxy(self) -> tuple[float, float, float, float]:
        """Least x, least y, greatest x, greatest y, in units of the CRS."""
        height, width = self.shape_yx
        corners = [point(self.transform, x, y) for x in (0, width) for y in (0, height)]
        xs, ys = zip(*corners, strict=True)
        return min(xs), min(ys), max(xs), max(ys)

    @property
    def resolution_xy(self) -> tuple[float, float]:
        """Width and height of a pixel in units of the CRS: metres, feet or degrees."""
        t = self.transform
        return math.hypot(t.a, t.d), math.hypot(t.b, t.e)

    @property
    def metres_per_unit_xy(self) -> tuple[float, float]:
        """Metres per unit of the CRS along x and y; of degrees, at the middle of the scene.

        A grid without CRS counts in pixels, which are taken for metres.
        """
        if self.crs is None:
            return 1.0, 1.0
        if self.crs.is_geographic:
            _, bottom, _, top = self.bounds_xyxy
            shrink = math.cos(math.radians((bottom + top) / 2))
            return METRES_PER_DEGREE * shrink, METRES_PER_DEGREE
        metres = float(self.crs.linear_units_factor[1])
        return metres, metres

    @property
    def resolution_xy_m(self) -> tuple[float, float]:
        """Width and height of a pixel in metres (without CRS: in pixels)."""
        (x, y), (x_m, y_m) = self.resolution_xy, self.metres_per_unit_xy
        return x * x_m, y * y_m

    def difference(self, other: Grid) -> str | None:
        """How ``other`` differs, in words; None where both are one grid.

        Corners may differ by ``1e-6`` of a pixel: files of one grid are often written with
        transforms that agree to rounding only.
        """
        if self.shape_yx != other.shape_yx:
            return f"{_shape(self)} pixels against {_shape(other)}"
        if self.crs != other.crs:
            return f"{named(self.crs)} against {named(other.crs)}"
        shift = max(self._corner_shifts_pixels(other))
        if shift > GRID_DIFFERENCE_PIXELS:
            return f"shifted by up to {shift:.3g} pixels"
        return None

    def _corner_shifts_pixels(self, other: Grid) -> list[float]:
        height, width = self.shape_yx
        x_size, y_size = self.resolution_xy
        shifts = []
        for corner in ((0, 0), (width, 0), (0, height), (width, height)):
            (x, y), (other_x, other_y) = (
                point(self.transform, *corner),
                point(other.transform, *corner),
            )
            shifts += [abs(x - other_x) / x_size, abs(y - other_y) / y_size]
        return shifts


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A scene without annotation: there is no path to one."""

    id: str
    group: str  # the spatial block: scenes of one block are never split
    images: tuple[Path, ...]  # one file, or several of one grid whose bands follow each other
    nodata: tuple[float, ...] | None = None  # in place of what the files declare
    bands: tuple[int, ...] | None = None  # counted from 1 through all files; None: all
    alpha_band: int | None = None  # a band, counted from 1, whose zeros hide pixels

    @property
    def grid(self) -> Grid:
        """Where the scene lies; read when asked.

        Raises:
            DataError: When the file cannot be opened.
        """
        return grid_of(self.images[0])

    @property
    def whole(self) -> Window:
        """All pixels of the scene."""
        return Window(0, 0, *self.grid.shape_yx)


@dataclass(frozen=True, kw_only=True)
class SceneCase(Scene):
    """A scene with, or without, an annotation."""

    mask: Path | None = None
    values: tuple[int, ...] = ()  # the value of each class in the mask file
    ignore: tuple[int, ...] = ()  # mask values that mean "nobody looked"
    recode: tuple[tuple[int, int], ...] = ()  # (stored, meant) values; unlisted: nobody looked

    @property
    def files(self) -> tuple[Path, ...]:
        """One for all bands, or one for each; none of those in an archive (/vsi...)."""
        return tuple(path for path in self.images if path.exists())

    @property
    def truth(self) -> Tensor | None:
        """Class indices ``(H, W)``; IGNORE where nobody looked or the scene holds no data.

        Raises:
            DataError: When the mask holds values that are neither a class nor to be ignored.
        """
        if self.mask is None:
            return None
        target = read_target(self, self.whole)
        _, valid = reader.read(self, self.whole)
        target[~valid] = IGNORE
        return torch.from_numpy(target).long()


def read_target(case: SceneCase, window: Window) -> NDArray[np.uint8]:
    """Class indices ``(height, width)`` of a window of the mask; IGNORE beyond the edge.

    Raises:
        DataError: When there is no mask, or its values are no classes.
    """
    if case.mask is None:
        raise DataError(f"scene '{case.id}' has no mask. Add one, or list it as unlabeled.")
    values, inside = read_values(case.mask, window, case.recode)
    declared = reader.opened(case.mask).nodata
    ignored = [*case.ignore, *([declared] if declared is not None else [])]
    target = np.full(inside.shape, IGNORE, dtype=np.uint8)
    known = ~inside | np.isin(values, ignored)
    for index, value in enumerate(case.values):
        here = inside & (values == value)
        target[here] = index
        known |= here
    if not known.all():
        strange = np.unique(values[~known])
        raise DataError(
            f"scene '{case.id}': the mask '{case.mask}' holds {_values(strange)}, which are no "
            f"classes of this run ({', '.join(map(str, case.values))}). Add them to "
            "domain.classes or to domain.ignore."
        )
    return target


def read_values(
    mask: Path, window: Window, recode: tuple[tuple[int, int], ...]
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Mask values ``(height, width)`` as they are meant, and which pixels lie inside.

    Args:
        mask: The file; of a palette, its indices are read and never its colors.
        window: Where.
        recode: Pairs of a stored value and what it means, where that differs: then every other
            value becomes IGNORE. Empty: values mean themselves.
    """
    stored, inside = reader.read_plain(mask, window, [1])
    if not recode:
        return stored[0], inside
    meant = np.full_like(stored[0], IGNORE)
    for before, after in recode:
        meant[stored[0] == before] = after
    return meant, inside


def point(transform: Affine, column: float, row: float) -> tuple[float, float]:
    """Where a column and a row lie. The library's operator for it is ``*`` or ``@`` by version."""
    t = transform
    return t.a * column + t.b * row + t.c, t.d * column + t.e * row + t.f


def grid_of(path: Path) -> Grid:
    """The grid of a file.

    Raises:
        DataError: When the file cannot be opened.
    """
    source = reader.opened(path)
    return Grid(crs=source.crs or None, transform=source.transform, shape_yx=source.shape)


def named(crs: CRS | None) -> str:
    """A CRS as people say it: ``EPSG:32632``."""
    return "no CRS" if crs is None else str(crs.to_string()).split("[")[0][:40]


def _shape(grid: Grid) -> str:
    height, width = grid.shape_yx
    return f"{width} x {height}"


def _values(strange: NDArray[np.generic]) -> str:
    shown = ", ".join(str(value) for value in strange[:5].tolist())
    return f"{shown} and {len(strange) - 5} more values" if len(strange) > 5 else shown
