"""Our scenes as a torchgeo data set: its samplers, splitters, transforms and ``&`` work with them.

Pixels come from :mod:`rsseg_ssl.reader`, so near-infrared flagged as alpha stays data, neighbors
that merely touch are not paired, and handles are never shared over a fork.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import geopandas as gpd
import numpy as np
import pandas as pd
import rasterio
import rasterio.errors
import rasterio.warp
import shapely
import torch
from numpy.typing import NDArray
from rasterio.crs import CRS
from torchgeo.datasets import GeoDataset, UnionDataset

from common.batch import IGNORE
from common.errors import DataError
from rsseg_ssl import reader
from rsseg_ssl.cases import Grid, Scene, SceneCase, named, read_target
from rsseg_ssl.reader import Window

Sample = dict[str, Any]
LEAST_OVERLAP_PIXELS = 0.5


class Patch(NamedTuple):
    """A rectangle of the query, as arrays."""

    image: NDArray[np.float32]  # (C, h, w), 0 without data
    valid: NDArray[np.bool_]  # (h, w)
    mask: NDArray[np.uint8]  # (h, w), IGNORE where nobody looked


class SceneDataset(GeoDataset):  # type: ignore[misc]
    """Scenes of one CRS; a sample is a rectangle of the Earth, whichever scenes it covers.

    A sample holds ``image`` (float32 ``(C, H, W)`` as stored, 0 without data), ``valid``
    (``(H, W)``), ``mask`` (class indices ``(H, W)``, IGNORE where nobody looked; absent where no
    scene has one), ``transform``, ``crs`` and ``bounds``. Pixels that are asked for on another
    grid are those nearest to it.

    Args:
        scenes: With a CRS, the first of which is that of the data set until another is set.
        transforms: Applied to each sample.

    Raises:
        DataError: When there is no scene, or one has no CRS.
    """

    def __init__(
        self,
        scenes: Sequence[Scene],
        *,
        transforms: Callable[[Sample], Sample] | None = None,
    ) -> None:
        grids = [scene.grid for scene in scenes]
        nowhere = [s.id for s, grid in zip(scenes, grids, strict=True) if grid.crs is None]
        if not scenes or nowhere:
            raise DataError(
                f"torchgeo combines scenes by place, but {nowhere or 'none'} of {len(scenes)} has "
                "no CRS. Assign one: gdal_edit.py -a_srs EPSG:..."
            )
        self.scenes, self.transforms = tuple(scenes), transforms
        self.paths = [str(path) for scene in scenes for path in scene.images]
        self._own_crs = CRS.from_user_input(grids[0].crs)
        self._boxes = np.array([_outline(grid, self._own_crs) for grid in grids])
        self._res = grids[0].resolution_xy
        always = pd.IntervalIndex.from_arrays(
            [pd.Timestamp.min] * len(scenes),
            [pd.Timestamp.max] * len(scenes),
            closed="both",
            name="datetime",
        )
        self.index = gpd.GeoDataFrame(
            {"filepath": [str(scene.images[0]) for scene in scenes]},
            index=always,
            geometry=[*self._boxes],
            crs=self._own_crs.to_wkt(),
        )

    def __getitem__(self, query: Any) -> Sample:  # noqa: ANN401
        """The rectangle ``[xmin:xmax:xres, ymin:ymax:yres, tmin:tmax]``.

        Raises:
            IndexError: When no scene of the index covers any of it.
        """
        x, y, t = _completed(query, self.bounds)
        crs = CRS.from_user_input(self.index.crs) if self.index.crs else self._own_crs
        scenes = self._covering(x, y, t, crs)
        if not scenes:
            raise IndexError(f"query: {query} not found in index with bounds: {self.bounds}")
        transform, shape_yx = _raster(x, y)
        xs, ys = _centers(transform, shape_yx)
        patch = _first_valid(_nearest(scene, xs, ys, crs) for scene in scenes)
        sample: Sample = {
            "image": torch.from_numpy(patch.image),
            "valid": torch.from_numpy(patch.valid),
            "bounds": (x, y, t),
            "transform": transform,
            "crs": self.crs,
        }
        if any(isinstance(scene, SceneCase) and scene.mask for scene in self.scenes):
            sample["mask"] = torch.from_numpy(patch.mask).long()
        return sample if self.transforms is None else self.transforms(sample)

    def __or__(self, other: GeoDataset) -> UnionDataset:
        """Both data sets; where both are ours and overlap, the first that holds data is seen."""
        if isinstance(other, SceneDataset):
            return UnionDataset(self, other, collate_fn=_overlaid)
        return UnionDataset(self, other)

    def _covering(self, x: slice, y: slice, t: slice, crs: CRS) -> list[Scene]:
        """The scenes under those parts of the index that the query meets."""
        rows = self.index[self.index.index.overlaps(pd.Interval(t.start, t.stop, closed="both"))]
        margin_x, margin_y = x.step * LEAST_OVERLAP_PIXELS, y.step * LEAST_OVERLAP_PIXELS
        inner = shapely.box(
            min(x.start + margin_x, (x.start + x.stop) / 2),
            min(y.start + margin_y, (y.start + y.stop) / 2),
            max(x.stop - margin_x, (x.start + x.stop) / 2),
            max(y.stop - margin_y, (y.start + y.stop) / 2),
        )
        met = [part for part in rows.geometry if part.intersects(inner)]
        if not met:
            return []
        boxes = self._boxes
        if crs != self._own_crs:
            own = gpd.GeoSeries([*boxes], crs=self._own_crs.to_wkt())
            boxes = own.to_crs(crs.to_wkt()).to_numpy()
        part = shapely.union_all(met)
        overlap = shapely.intersects(boxes, inner) & (
            shapely.area(shapely.intersection(boxes, part)) > x.step * y.step / 4
        )
        return [scene for scene, here in zip(self.scenes, overlap, strict=True) if here]


def _nearest(scene: Scene, xs: NDArray[Any], ys: NDArray[Any], crs: CRS) -> Patch:
    """The pixels of ``scene`` nearest to points of ``crs``."""
    grid = scene.grid
    if grid.crs != crs:
        flat = rasterio.warp.transform(crs, grid.crs, xs.ravel(), ys.ravel())
        xs, ys = (np.asarray(each).reshape(xs.shape) for each in flat)
    back = ~grid.transform
    columns = back.a * xs + back.b * ys + back.c
    rows = back.d * xs + back.e * ys + back.f
    rows, columns = np.floor(rows).astype(int), np.floor(columns).astype(int)
    top, left = int(rows.min()), int(columns.min())
    window = Window(top, left, int(rows.max()) - top + 1, int(columns.max()) - left + 1)
    here = rows - top, columns - left
    pixels, valid = reader.read(scene, window)
    valid = valid[here]
    image = np.where(valid, pixels[:, *here].astype(np.float32), 0)
    mask = np.full(valid.shape, IGNORE, dtype=np.uint8)
    if isinstance(scene, SceneCase) and scene.mask:
        mask = np.where(valid, read_target(scene, window)[here], IGNORE).astype(np.uint8)
    return Patch(image, valid, mask)


def _first_valid(patches: Iterable[Patch]) -> Patch:
    """Each pixel from the first patch that holds data there."""
    image, valid, mask = next(iterator := iter(patches))
    for more in iterator:
        image = np.where(valid, image, more.image)
        mask = np.where(valid, mask, more.mask)
        valid = valid | more.valid
    return Patch(image, valid, mask)


def _overlaid(samples: Iterable[Mapping[str, Any]]) -> Sample:
    """Samples of one rectangle from several data sets as one."""
    first, *others = samples
    merged = dict(first)
    for other in others:
        seen = merged["valid"]
        merged["image"] = torch.where(seen, merged["image"], other["image"])
        if "mask" in merged and "mask" in other:
            merged["mask"] = torch.where(seen, merged["mask"], other["mask"])
        merged["valid"] = seen | other["valid"]
    return merged


def _completed(query: Any, bounds: tuple[slice, ...]) -> tuple[slice, slice, slice]:  # noqa: ANN401
    """A slice in x, y and time each, missing parts taken from ``bounds``."""
    given = query if isinstance(query, tuple) else (query,)
    given += (slice(None),) * (3 - len(given))
    x, y, t = (
        slice(
            whole.start if each.start is None else each.start,
            whole.stop if each.stop is None else each.stop,
            whole.step if each.step is None else each.step,
        )
        for each, whole in zip(given, bounds, strict=True)
    )
    return x, y, t


def _raster(x: slice, y: slice) -> tuple[rasterio.Affine, tuple[int, int]]:
    """The pixel grid of a query, north up: its transform and its height and width."""
    width = max(1, round((x.stop - x.start) / x.step))
    height = max(1, round((y.stop - y.start) / y.step))
    return rasterio.Affine(x.step, 0, x.start, 0, -y.step, y.stop), (height, width)


def _centers(
    transform: rasterio.Affine, shape_yx: tuple[int, int]
) -> tuple[NDArray[Any], NDArray[Any]]:
    rows, columns = np.meshgrid(*(np.arange(n) + 0.5 for n in shape_yx), indexing="ij")
    return transform.c + columns * transform.a, transform.f + rows * transform.e


def _outline(grid: Grid, crs: CRS) -> shapely.Polygon:
    if grid.crs == crs:
        return shapely.box(*grid.bounds_xyxy)
    try:
        bounds = rasterio.warp.transform_bounds(grid.crs, crs, *grid.bounds_xyxy)
    except rasterio.errors.RasterioError as error:
        raise DataError(
            f"a scene in {named(grid.crs)} cannot be placed in {named(crs)}: {error}. Bring all "
            "scenes to one CRS with gdalwarp -t_srs."
        ) from error
    return shapely.box(*bounds)
