"""Windows of rasters as they are stored, and which of their pixels hold data.

A pixel holds data unless a band of it is declared nodata, is NaN or infinite, is a fill value
that the user named, or the file's own mask denies it. A band that merely *claims* to be alpha
is read as data: near-infrared bands are often flagged so [1]. Bands are read one window at a
time and never through ``rasterio.merge``, which takes such a band for transparency.

[1] NAIP's fourth band, https://github.com/microsoft/PlanetaryComputer/issues/82.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import rasterio
import rasterio.windows
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader

from common.errors import DataError

NUM_HANDLES = 128
"""Files that one thread keeps open."""

LOCAL = {"GDAL_DISABLE_READDIR_ON_OPEN": "TRUE", "GDAL_NUM_THREADS": "1", "GDAL_CACHEMAX": 64}
REMOTE = {**LOCAL, "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "VSI_CACHE": "TRUE"}


class Window(NamedTuple):
    """A rectangle of pixels; it may reach beyond the raster."""

    top: int
    left: int
    height: int
    width: int


class Raster(Protocol):
    """What it takes to read the bands of a scene."""

    @property
    def images(self) -> tuple[Path, ...]:
        """One file, or several that share a grid and whose bands follow each other."""

    @property
    def bands(self) -> tuple[int, ...] | None:
        """The bands to read, counted from 1 through all files; None reads all."""

    @property
    def nodata(self) -> tuple[float, ...] | None:
        """Fill values of every band, in place of those that the files declare; None trusts them."""

    @property
    def alpha_band(self) -> int | None:
        """The band, counted from 1, whose zeros hide a pixel; None trusts no alpha flag."""


def read(raster: Raster, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Pixels in their stored type, and where they hold data.

    Returns:
        Bands ``(C, height, width)``, 0 beyond the edge, otherwise as stored (fill values too);
        and ``(height, width)``, False wherever the module's docstring says so and beyond the edge.

    Raises:
        DataError: Naming the file that cannot be read.
    """
    pixels: dict[tuple[Path, int], NDArray[Any]] = {}
    valid = np.ones((window.height, window.width), dtype=bool)
    bands = _bands(raster)
    for path in dict.fromkeys(path for path, _ in bands):
        indexes = [index for file, index in bands if file == path]
        values, inside, holds_data = _read_file(raster, path, indexes, window)
        pixels |= {(path, index): band for index, band in zip(indexes, values, strict=True)}
        valid &= inside & holds_data
    if raster.alpha_band is not None:
        path, index = _band(raster, raster.alpha_band)
        alpha, _ = read_plain(path, window, [index])
        valid &= alpha[0] != 0
    return np.stack([pixels[band] for band in bands]), valid


def read_plain(
    path: Path, window: Window, indexes: list[int] | None = None
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Bands of one file as stored, 0 beyond the edge, and which pixels lie inside.

    The type is one that holds all bands, where they differ.

    Raises:
        DataError: Naming the file that cannot be read.
    """
    source = opened(path)
    rows = slice(max(window.top, 0), min(window.top + window.height, source.height))
    columns = slice(max(window.left, 0), min(window.left + window.width, source.width))
    count = len(indexes) if indexes is not None else source.count
    values = np.zeros((count, window.height, window.width), dtype=np.result_type(*source.dtypes))
    inside = np.zeros((window.height, window.width), dtype=bool)
    if rows.start < rows.stop and columns.start < columns.stop:
        here = _shifted(rows, window.top), _shifted(columns, window.left)
        values[(slice(None), *here)] = _checked(path, source, indexes, rows, columns)
        inside[here] = True
    return values, inside


def opened(path: Path) -> DatasetReader:
    """An open file, held by this thread of this process alone.

    Handles share a file offset after a fork, so they are never carried over one.

    Raises:
        DataError: When GDAL cannot open it.
    """
    held, stamp = _handles(), _stamp(path)
    if path in held and held[path].stamp == stamp:
        held.move_to_end(path)
        return held[path].source
    options = REMOTE if str(path).startswith(("/vsi", "http", "s3:")) else LOCAL
    try:
        with rasterio.Env(**options), anywhere():
            held[path] = _Handle(stamp, rasterio.open(path, sharing=False))
    except (RasterioError, OSError) as error:
        raise DataError(
            f"'{path}' cannot be opened: {error}. Give a raster that GDAL reads, such as GeoTIFF."
        ) from error
    while len(held) > NUM_HANDLES:
        held.popitem(last=False)[1].source.close()
    return held[path].source


@contextmanager
def anywhere() -> Iterator[None]:
    """Open and write rasters that lie nowhere, such as photographs, without a warning for each."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


def forget(path: Path) -> None:
    """Close ``path`` now, so that it can be moved or written over on any system."""
    handle = _handles().pop(path, None)
    if handle is not None:
        handle.source.close()


def claims_alpha(source: DatasetReader) -> bool:
    """Whether a band is flagged alpha and therefore claims to hide pixels."""
    return ColorInterp.alpha in source.colorinterp


def num_bands(images: tuple[Path, ...]) -> int:
    """How many bands the files hold together."""
    return sum(opened(path).count for path in images)


class _Handle(NamedTuple):
    stamp: tuple[int, int] | None  # of the file, when it was opened
    source: DatasetReader


class _Held(threading.local):
    """Open files of one thread, least recently used first."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.files: OrderedDict[Path, _Handle] = OrderedDict()
        self.inherited: list[OrderedDict[Path, _Handle]] = []


_HELD = _Held()


def _handles() -> OrderedDict[Path, _Handle]:
    if os.getpid() != _HELD.process:
        # Those of the parent stay untouched: closing them here could move its file offsets.
        _HELD.inherited.append(_HELD.files)
        _HELD.process, _HELD.files = os.getpid(), OrderedDict()
    return _HELD.files


def _stamp(path: Path) -> tuple[int, int] | None:
    """Changes when a file is written anew; None where there is no local file."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size


def _read_file(
    raster: Raster, path: Path, indexes: list[int], window: Window
) -> tuple[NDArray[Any], NDArray[np.bool_], NDArray[np.bool_]]:
    values, inside = read_plain(path, window, indexes)
    source = opened(path)
    holds_data = np.ones_like(inside)
    if np.issubdtype(values.dtype, np.floating):
        holds_data &= np.isfinite(values).all(axis=0)
    for band, index in zip(values, indexes, strict=True):
        declared = source.nodatavals[index - 1]
        fills = raster.nodata if raster.nodata is not None else (declared,)
        for fill in fills:
            if fill is not None and not np.isnan(fill):
                holds_data &= band != _as_stored(fill, band.dtype)
    if _has_own_mask(source):
        holds_data[inside] &= _own_mask(path, source, window)
    return values, inside, holds_data


def _as_stored(fill: float, dtype: np.dtype[Any]) -> Any:  # noqa: ANN401
    """``fill`` as the file would hold it: -3.4e38 is another number in float32 than in text."""
    return np.asarray(fill).astype(dtype) if np.issubdtype(dtype, np.floating) else fill


def _has_own_mask(source: DatasetReader) -> bool:
    flags = source.mask_flag_enums[0]
    return MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags


def _own_mask(path: Path, source: DatasetReader, window: Window) -> NDArray[np.bool_]:
    """The mask stored with the file, for the pixels inside, flattened."""
    rows = slice(max(window.top, 0), min(window.top + window.height, source.height))
    columns = slice(max(window.left, 0), min(window.left + window.width, source.width))
    try:
        mask = source.read_masks(1, window=rasterio.windows.Window.from_slices(rows, columns))
    except RasterioError as error:
        raise _unreadable(path, error) from error
    return np.asarray(mask != 0).ravel()


def _checked(
    path: Path, source: DatasetReader, indexes: list[int] | None, rows: slice, columns: slice
) -> NDArray[Any]:
    try:
        return np.asarray(
            source.read(indexes, window=rasterio.windows.Window.from_slices(rows, columns))
        )
    except RasterioError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(
        f"'{path}' is damaged: {error}. Its pixels cannot be read; copy or download it again."
    )


def _shifted(part: slice, start: int) -> slice:
    return slice(part.start - start, part.stop - start)


def _bands(raster: Raster) -> list[tuple[Path, int]]:
    """The file of each band to read, and its number there, in the order asked for."""
    if raster.bands is not None:
        return [_band(raster, band) for band in raster.bands]
    every = [(path, index) for path in raster.images for index in opened(path).indexes]
    if raster.alpha_band is not None:
        every.remove(_band(raster, raster.alpha_band))
    return every


def _band(raster: Raster, band: int) -> tuple[Path, int]:
    """The file of a band counted through all files, and its number there."""
    before = 0
    for path in raster.images:
        count = opened(path).count
        if before < band <= before + count:
            return path, band - before
        before += count
    names = ", ".join(path.name for path in raster.images)
    raise DataError(
        f"band {band} was asked for, but {names} holds {before}. Bands count from 1; "
        "correct domain.bands, or give the file those of the others (gray photographs: RGB)."
    )
