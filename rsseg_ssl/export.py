"""Label maps as GeoTIFFs that lie exactly where their scene lies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rasterio
import rasterio.windows
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.io import DatasetWriter
from torch import Tensor

from common.batch import most_probable
from common.domain import Task
from common.errors import DataError
from rsseg_ssl import reader
from rsseg_ssl.cases import SceneCase
from rsseg_ssl.reader import Window

OVERVIEW_SIDE = 512  # the coarsest overview is at most this large


class Doubt(NamedTuple):
    """What makes a label map a pseudo-label."""

    sure: Tensor  # (H, W), False where nothing is marked
    about: str  # for a tag


class _Stored(NamedTuple):
    """How values are kept: a type that holds them all, and a value that none of them has."""

    dtype: str
    nodata: int


def write_scene(
    predicted: Tensor, case: SceneCase, path: Path, *, task: Task, doubt: Doubt | None = None
) -> Path:
    """Write the most probable class of each pixel, one row of blocks at a time.

    The file is tiled and compressed, on the grid of the scene, with the mask values of its
    classes (or 0, 1, 2 ... where it has none), a color table, class names as tags, overviews
    where it is large, and nodata where the scene holds none. It appears under its name only when
    it is complete.

    Args:
        predicted: Class probabilities ``(K, H, W)``, in memory or on disk.
        case: The scene.
        path: The file to write; one that is there is replaced.
        task: Names and colors of the classes.
        doubt: Of a pseudo-label, which has nodata also where it is not sure.

    Returns:
        ``path``.

    Raises:
        DataError: When it cannot be written.
    """
    values = case.values or tuple(range(len(task.classes)))
    stored = _stored(values)
    with _whole(path) as partial:
        with rasterio.open(partial, "w", **_profile(case, stored)) as target:
            _label(target, task, values, stored)
            if doubt is not None:
                target.update_tags(about=doubt.about)
            for window in _rows(*case.grid.shape_yx, rows=target.block_shapes[0][0]):
                labels = _labels(predicted, window, values, stored)
                labels[~reader.read(case, window)[1]] = stored.nodata
                if doubt is not None:
                    sure = doubt.sure[window.top : window.top + window.height]
                    labels[~sure.numpy()] = stored.nodata
                target.write(labels, 1, window=_as_rasterio(window))
        _add_overviews(partial, max(case.grid.shape_yx), Resampling.mode)
    return path


def write_confidence(predicted: Tensor, case: SceneCase, path: Path) -> Path:
    """Write the largest probability of each pixel, in 8 bits; as :func:`write_probabilities`."""

    def largest(rows: Tensor) -> Tensor:
        return rows.amax(dim=0, keepdim=True)

    bands = _Bands(("confidence",), largest, _Stored("uint8", 255))
    return _write_shares(predicted, case, path, bands)


def write_probabilities(predicted: Tensor, case: SceneCase, path: Path, *, task: Task) -> Path:
    """Write every class's probability of each pixel, a band each, one row of blocks at a time.

    In 16 bits, with the scale in the file, and nodata where the scene holds none; else as
    :func:`write_scene`.

    Raises:
        DataError: When it cannot be written.
    """
    bands = _Bands(task.classes, lambda rows: rows, _Stored("uint16", 65535))
    return _write_shares(predicted, case, path, bands)


class _Bands(NamedTuple):
    """Shares in [0, 1]: what they are called, how they come about, and how they are kept."""

    names: Sequence[str]
    of: Callable[[Tensor], Tensor]  # probabilities (K, H, W) to (bands, H, W)
    stored: _Stored  # 1 is the largest number below its nodata


def _write_shares(predicted: Tensor, case: SceneCase, path: Path, bands: _Bands) -> Path:
    certain, profile = bands.stored.nodata - 1, _profile(case, bands.stored)
    with _whole(path) as partial:
        with rasterio.open(partial, "w", **{**profile, "count": len(bands.names)}) as target:
            target.descriptions = tuple(bands.names)
            target.scales = (1 / certain,) * len(bands.names)
            for window in _rows(*case.grid.shape_yx, rows=target.block_shapes[0][0]):
                rows = predicted[:, window.top : window.top + window.height]
                shares = (bands.of(rows.float()).clamp(0, 1) * certain).round()
                values = shares.cpu().numpy().astype(bands.stored.dtype)
                values[:, ~reader.read(case, window)[1]] = bands.stored.nodata
                target.write(values, window=_as_rasterio(window))
        _add_overviews(partial, max(case.grid.shape_yx), Resampling.average)
    return path


def _stored(values: Sequence[int]) -> _Stored:
    for dtype in ("uint8", "uint16"):
        highest = int(np.iinfo(dtype).max)
        if 0 <= min(values) <= max(values) < highest:
            return _Stored(dtype, highest)
    return _Stored("int32", int(np.iinfo("int32").min))


def _profile(case: SceneCase, stored: _Stored) -> dict[str, Any]:
    height, width = case.grid.shape_yx
    block = 512 if max(height, width) > 256 else 256
    return {
        "driver": "GTiff",
        "height": height,
        "width": width,
        "count": 1,
        "crs": case.grid.crs,
        "transform": case.grid.transform,
        "tiled": True,
        "blockxsize": block,
        "blockysize": block,
        "compress": "deflate",
        "predictor": 2,
        "bigtiff": "if_safer",
        **stored._asdict(),
    }


def _label(target: DatasetWriter, task: Task, values: Sequence[int], stored: _Stored) -> None:
    target.set_band_description(1, "class")
    names = zip(values, task.classes, strict=True)
    target.update_tags(1, **{f"class_{value}": name for value, name in names})
    if stored.dtype == "int32":
        return  # GeoTIFF has no color tables for it
    colors = {value: (*color, 255) for value, color in zip(values, task.colors, strict=True)}
    target.write_colormap(1, {**colors, stored.nodata: (0, 0, 0, 0)})


def _labels(
    predicted: Tensor, window: Window, values: Sequence[int], stored: _Stored
) -> NDArray[Any]:
    rows = predicted[:, window.top : window.top + window.height]
    index = most_probable(rows.float(), dim=0).cpu().numpy()
    return np.asarray(np.take(np.asarray(values, dtype=stored.dtype), index))


def _rows(height: int, width: int, *, rows: int) -> Iterator[Window]:
    for top in range(0, height, rows):
        yield Window(top, 0, min(rows, height - top), width)


def _as_rasterio(window: Window) -> rasterio.windows.Window:
    return rasterio.windows.Window(window.left, window.top, window.width, window.height)


def _add_overviews(path: Path, side: int, how: Resampling) -> None:
    """Coarser copies; of classes by majority, so that none appears that is not there."""
    factors: list[int] = []
    while side > OVERVIEW_SIDE * 2 ** len(factors):
        factors.append(2 ** (len(factors) + 1))
    if side > 2 * OVERVIEW_SIDE:
        with rasterio.open(path, "r+") as target:
            target.build_overviews(factors, how)


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A file beside ``path`` that takes its place once it is complete, or is removed."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with reader.anywhere():
            yield partial
        partial.replace(path)
    except (RasterioError, OSError) as error:
        raise DataError(
            f"'{path}' cannot be written: {error}. Is there room on the disk, and may you write "
            "into this folder?"
        ) from error
    finally:
        partial.unlink(missing_ok=True)
