"""Looking at one case: every fact that a later step could stumble over, read once."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from common.errors import DataError
from common.settings import Settings
from medseg_ssl.cases import (
    VolumeCase,
    describe_difference,
    read_array,
    read_geometry,
    read_label,
    same_grid,
    two_places,
)
from medseg_ssl.h5 import unsaid
from medseg_ssl.preprocess import ras
from medseg_ssl.store import stamps

VERSION = 3
"""Counts up when a look sees more, so that no old one is read."""

MOST_VALUES = 1000
"""A label with more distinct values is no label."""

Triple = tuple[float, float, float]


class Look(Settings):
    """What one case is like; ``problems`` and ``warnings`` are whole sentences."""

    shape: tuple[int, int, int] = (0, 0, 0)  # to the right, the front, the top
    spacing_mm: Triple = (0.0, 0.0, 0.0)  # likewise
    orientation: str = ""
    channels: int = 0
    dtype: str = ""
    low: float = 0.0
    high: float = 0.0
    zeros: float = 0.0  # share of the voxels that are exactly 0, in the channel that has most
    foreground: tuple[float, float] | None = None  # its 0.5 and 99.5 percentiles, all channels
    label_voxels: dict[int, int] | None = None  # label value -> voxels; None without a label
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def look_at(cases: Sequence[VolumeCase], cache: Path) -> list[Look]:
    """Each case looked at, on several threads; an unchanged file is not read again.

    Looks are kept in ``cache``; where it cannot be written, nothing is kept.
    """
    with ThreadPoolExecutor(min(8, 2 * (os.cpu_count() or 1))) as pool:
        return list(pool.map(lambda case: _remembered(case, cache.expanduser()), cases))


def look(case: VolumeCase) -> Look:
    """Read image and label of ``case`` and tell what they are like. Raises nothing for data."""
    try:
        geometry = case.geometry
        arrays = [read_array(path) for path in case.images]
    except DataError as error:
        return Look(problems=(f"case '{case.id}': {error}",))
    problems, warnings = [], []
    for path, array in zip(case.images, arrays, strict=True):
        told = [said for said in (two_places(path), unsaid(path)) if said]
        warnings += [f"case '{case.id}': {said}" for said in told]
        problems += [f"case '{case.id}': {fault}" for fault in _image_faults(path, array)]
    voxels, foreground = None, None
    if case.label is not None:
        try:
            label, remarks = _label(case.label, case)
            warnings += [f"case '{case.id}': {remark}" for remark in remarks]
            values, counts = np.unique(label, return_counts=True)
            voxels = {int(v): int(n) for v, n in zip(values, counts, strict=True)}
            foreground = _percentiles(arrays, label)
        except DataError as error:
            problems.append(f"case '{case.id}': {error}")
    shape, spacing_mm = ras(geometry)
    finite = [array[np.isfinite(array)] for array in arrays]
    return Look(
        shape=shape,
        spacing_mm=spacing_mm,
        orientation=geometry.orientation,
        channels=geometry.channels,
        dtype=str(np.result_type(*arrays)),
        low=min((float(array.min()) for array in finite if array.size), default=0.0),
        high=max((float(array.max()) for array in finite if array.size), default=0.0),
        zeros=max(float((array == 0).mean()) for array in arrays),
        foreground=foreground,
        label_voxels=voxels,
        problems=tuple(problems),
        warnings=tuple(warnings),
    )


def _image_faults(path: Path, array: np.ndarray) -> list[str]:
    broken = int(array.size - np.isfinite(array).sum())
    if broken:
        return [
            f"{path} holds {broken} NaN or infinite voxels. Replace them (0 is usual outside the "
            "body), or remove the case."
        ]
    flat = array.reshape(*array.shape[:3], -1)
    constant = [c for c in range(flat.shape[-1]) if flat[..., c].min() == flat[..., c].max()]
    return [
        f"{path}: every voxel of channel {channel} is {flat[0, 0, 0, channel]:g}, so there is "
        "nothing to see. Export it again, or remove the case."
        for channel in constant
    ]


def _label(path: Path, case: VolumeCase) -> tuple[np.ndarray, list[str]]:
    """The integer label of a case, and remarks on it.

    Raises:
        DataError: When it is unusable.
    """
    label, geometry = read_label(path), read_geometry([path])
    if not same_grid(case.geometry, geometry):
        difference = describe_difference(case.images[0], case.geometry, path, geometry)
        raise DataError(
            f"{difference} They must share one grid: resample the label (nearest), or remove the "
            "case."
        )
    if label.dtype.kind != "f":
        values = np.unique(label)
        remarks = []
    else:
        if not np.isfinite(label).all() or (label != np.rint(label)).any():
            raise DataError(
                f"label {path} holds values that are no whole numbers, such as "
                f"{_example(label):g}. Labels must not be interpolated: export it again, or "
                "resample it with nearest."
            )
        values = np.unique(label)
        remarks = [f"label {path} is stored as {label.dtype}; its values are whole and are used."]
    if len(values) > MOST_VALUES:
        raise DataError(
            f"label {path} holds {len(values)} different values: that is an image, not a label. "
            "Check that image and label are not swapped."
        )
    return label.astype(np.int64), remarks


def _example(label: np.ndarray) -> float:
    return float(label[~np.isfinite(label) | (label != np.rint(label))][0])


def _percentiles(arrays: Sequence[np.ndarray], label: np.ndarray) -> tuple[float, float] | None:
    inside = label > 0
    found = [array[inside] for array in arrays if array.shape[:3] == label.shape]
    values = np.concatenate([each.ravel() for each in found]) if found else np.empty(0)
    if values.size == 0 or not np.isfinite(values).all():
        return None
    low, high = np.percentile(values, [0.5, 99.5])
    return float(low), float(high)


def _remembered(case: VolumeCase, cache: Path) -> Look:
    try:
        files = stamps([*case.images, *([case.label] if case.label else [])])
    except OSError:
        return look(case)  # says which file is missing
    digest = hashlib.sha256(json.dumps([VERSION, case.id, files]).encode()).hexdigest()[:24]
    path = cache / "looks" / f"{digest}.json"
    with contextlib.suppress(OSError, ValueError):
        return Look.model_validate_json(path.read_text(encoding="utf-8"))
    seen = look(case)
    temporary = path.with_name(f".{digest}.{uuid.uuid4().hex}")
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(seen.model_dump_json(), encoding="utf-8")
        temporary.replace(path)
    return seen
