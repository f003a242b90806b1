"""What one look at every pixel of a file tells; looked once, remembered on disk."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from common.errors import DataError
from common.settings import Settings
from rsseg_ssl import reader
from rsseg_ssl.cases import Scene, SceneCase, grid_of, named, read_values
from rsseg_ssl.reader import Window
from rsseg_ssl.settings import Statistics

logger = logging.getLogger("seg_ssl")

STRIP_PIXELS = 2**21
SUSPECTS = (-9999.0, -99999.0, -32768.0, -3.4028234663852886e38, 65535.0)
VERSION = 1
"""Counts up when the same file would give another record."""


class Moments(Settings):
    """Count, mean and sum of squared deviations of each band: what merges exactly."""

    count: int = 0
    mean: tuple[float, ...] = ()
    squares: tuple[float, ...] = ()

    def merged(self, other: Moments) -> Moments:
        """Both together [1].

        [1] Chan et al., Updating formulae and a pairwise algorithm for computing sample
        variances, 1979.
        """
        if not self.count or not other.count:
            return self if self.count else other
        total = self.count + other.count
        mine, theirs = np.array(self.mean), np.array(other.mean)
        step = theirs - mine
        squares = np.array(self.squares) + np.array(other.squares)
        squares += step**2 * (self.count * other.count / total)
        mean = mine + step * (other.count / total)
        return Moments(count=total, mean=tuple(mean.tolist()), squares=tuple(squares.tolist()))


class ImageRecord(Settings):
    """One scene's bands."""

    problem: str | None = None  # why it cannot be read; then nothing below is known
    crs: str = ""
    located: bool = False
    geographic: bool = False
    shape_yx: tuple[int, int] = (0, 0)
    resolution_xy: tuple[float, float] = (0.0, 0.0)  # in units of the CRS
    resolution_xy_m: tuple[float, float] = (0.0, 0.0)
    bands: int = 0
    dtype: str = ""
    claims_alpha: bool = False
    half: int = 0  # pixels that some bands fill and others do not
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    moments: Moments = Moments()
    suspects: tuple[tuple[float, int], ...] = ()  # (fill value, pixels) that nobody declared

    @property
    def pixels(self) -> int:
        """All pixels, valid or not."""
        return self.shape_yx[0] * self.shape_yx[1]


class MaskRecord(Settings):
    """One scene's annotation."""

    problem: str | None = None
    dtype: str = ""
    bands: int = 1
    difference: str | None = None  # from the grid of the image, in words
    counts: tuple[tuple[int, int], ...] = ()  # (mask value, valid pixels that have it)


R = TypeVar("R", ImageRecord, MaskRecord)


def image_records(scenes: Iterable[Scene]) -> dict[str, ImageRecord]:
    """One record per scene, by name."""
    with _Shelf() as shelf:
        return {
            scene.id: shelf.get(
                ("image", *_identity(scene)), ImageRecord, partial(examine_image, scene)
            )
            for scene in scenes
        }


def mask_records(cases: Iterable[SceneCase]) -> dict[str, MaskRecord]:
    """One record per annotated scene, by name. Reads annotations: never give it unlabeled ones."""
    with _Shelf() as shelf:
        return {
            case.id: shelf.get(
                ("mask", *_identity(case), *_stamp([case.mask]), case.recode),
                MaskRecord,
                partial(examine_mask, case),
            )
            for case in cases
            if case.mask is not None
        }


def statistics(records: Iterable[ImageRecord]) -> Statistics | None:
    """Mean and deviation of each band over all valid pixels; None where there are none.

    A constant band gets deviation 1.
    """
    total = Moments()
    for record in records:
        total = total.merged(record.moments)
    if not total.count:
        return None
    std = np.sqrt(np.array(total.squares) / total.count)
    std = np.where(std > 1e-9 * np.maximum(1.0, np.abs(total.mean)), std, 1.0)
    return Statistics(
        mean=tuple(float(f"{value:.6g}") for value in total.mean),
        std=tuple(float(f"{value:.6g}") for value in std),
    )


def examine_image(scene: Scene) -> ImageRecord:
    """Read every pixel of a scene once, strip by strip."""
    try:
        grid = scene.grid
        for path in scene.images[1:]:
            difference = grid.difference(grid_of(path))
            if difference:
                return ImageRecord(
                    problem=f"its files '{scene.images[0].name}' and '{path.name}' do not share "
                    f"one grid: {difference}. Resample one with gdalwarp."
                )
        return ImageRecord(
            crs=named(grid.crs),
            located=grid.crs is not None,
            geographic=bool(grid.crs and grid.crs.is_geographic),
            shape_yx=grid.shape_yx,
            resolution_xy=grid.resolution_xy,
            resolution_xy_m=grid.resolution_xy_m,
            claims_alpha=any(reader.claims_alpha(reader.opened(path)) for path in scene.images),
            **_pixels(scene),
        )
    except DataError as error:
        return ImageRecord(problem=str(error))


def examine_mask(case: SceneCase) -> MaskRecord:
    """Read every pixel of an annotation once, strip by strip."""
    assert case.mask is not None
    try:
        source = reader.opened(case.mask)
        facts: dict[str, Any] = {
            "dtype": source.dtypes[0],
            "bands": source.count,
            "difference": case.grid.difference(grid_of(case.mask)),
        }
        if source.count > 1 or facts["difference"] or "float" in source.dtypes[0]:
            return MaskRecord(**facts)
        counts: Counter[int] = Counter()
        for window in strips(case):
            stored, _ = read_values(case.mask, window, case.recode)
            _, valid = reader.read(case, window)
            values, numbers = np.unique(stored[valid], return_counts=True)
            counts.update(dict(zip(values.tolist(), numbers.tolist(), strict=True)))
        return MaskRecord(**facts, counts=tuple(sorted(counts.items())))
    except DataError as error:
        return MaskRecord(problem=str(error))


def strips(scene: Scene) -> Iterator[Window]:
    """Windows of whole rows that cover a scene, each of some million pixels."""
    height, width = scene.grid.shape_yx
    rows = max(1, STRIP_PIXELS // max(width, 1))
    for top in range(0, height, rows):
        yield Window(top, 0, min(rows, height - top), width)


def _pixels(scene: Scene) -> dict[str, Any]:
    moments, half, suspects = Moments(), 0, Counter[float]()
    lows: list[NDArray[Any]] = []
    highs: list[NDArray[Any]] = []
    dtype, bands = "", 0
    for window in strips(scene):
        values, valid = reader.read(scene, window)
        dtype, bands = str(values.dtype), len(values)
        half += _half(scene, values, valid)
        seen = values[:, valid].astype(np.float64)
        if seen.size:
            lows.append(seen.min(axis=1))
            highs.append(seen.max(axis=1))
            moments = moments.merged(_moments(seen))
            suspects.update(_suspects(seen))
    return {
        "dtype": dtype,
        "bands": bands,
        "half": half,
        "low": tuple(np.min(lows, axis=0).tolist()) if lows else (),
        "high": tuple(np.max(highs, axis=0).tolist()) if highs else (),
        "moments": moments,
        "suspects": tuple(sorted(suspects.items())),
    }


def _moments(seen: NDArray[np.float64]) -> Moments:
    mean = seen.mean(axis=1)
    squares = ((seen - mean[:, None]) ** 2).sum(axis=1)
    return Moments(count=seen.shape[1], mean=tuple(mean.tolist()), squares=tuple(squares.tolist()))


def _suspects(seen: NDArray[np.float64]) -> dict[float, int]:
    """Values that look like fill, and how many pixels hold one in any band (0: in all)."""
    low, high = seen.min(), seen.max()
    counts = {
        value: int((seen == value).any(axis=0).sum()) for value in SUSPECTS if value in (low, high)
    }
    if len(seen) > 1:
        counts[0.0] = int((seen == 0).all(axis=0).sum())
    return {value: count for value, count in counts.items() if count}


def _half(scene: Scene, values: NDArray[Any], valid: NDArray[np.bool_]) -> int:
    if valid.all():
        return 0
    declared = [fill for path in scene.images for fill in reader.opened(path).nodatavals]
    fills = scene.nodata if scene.nodata is not None else declared
    hidden = values[:, ~valid]
    missing = np.isin(hidden, [fill for fill in fills if fill is not None])
    if np.issubdtype(values.dtype, np.floating):
        missing |= ~np.isfinite(hidden)
    return int((missing.any(axis=0) & ~missing.all(axis=0)).sum())


def _identity(scene: Scene) -> tuple[object, ...]:
    return (*_stamp(scene.images), scene.bands, scene.nodata, scene.alpha_band, VERSION)


def _stamp(paths: Iterable[Path | None]) -> list[object]:
    """Changes when a file changes."""
    stamps: list[object] = []
    for path in paths:
        try:
            stat = path.stat() if path else None
        except OSError:
            stat = None
        stamps.append((str(path and path.absolute()), stat and (stat.st_size, stat.st_mtime_ns)))
    return stamps


class _Shelf:
    """Records on disk under the user's cache folder: losing it costs time, nothing else."""

    def __enter__(self) -> _Shelf:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        self.path = Path(base) / "seg-ssl" / "rasters.json"
        try:
            self.held: dict[str, Any] = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            self.held = {}
        self.grown = False
        return self

    def get(self, identity: tuple[object, ...], kind: type[R], look: Callable[[], R]) -> R:
        key = hashlib.sha256(repr(identity).encode()).hexdigest()[:32]
        try:
            return kind.model_validate(self.held[key])
        except (KeyError, ValidationError):
            record = look()
        self.held[key] = record.model_dump(mode="json")
        self.grown = True
        return record

    def __exit__(self, *error: object) -> None:
        if not self.grown:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            temporary = self.path.with_suffix(f".{os.getpid()}")
            temporary.write_text(json.dumps(self.held), encoding="utf-8")
            temporary.replace(self.path)
        except OSError as failure:
            logger.info("what was seen in the data could not be remembered: %s.", failure)
