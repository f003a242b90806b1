"""Looking at one case: every fact that a later step could stumble over, read once."""

from __future__ import annotations

import contextlib
import hashlib
import json
import uuid
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.errors import DataError
from common.settings import Settings
from medseg_ssl.allowance import MEMORY_MB, OVERHEAD, THREADS, Allowance, stored_bytes
from medseg_ssl.cases import (
    VolumeCase,
    describe_difference,
    read_geometry,
    same_grid,
    stored_label,
    two_places,
)
from medseg_ssl.h5 import unsaid
from medseg_ssl.preprocess import ras
from medseg_ssl.store import stamps
from medseg_ssl.voxels import Voxels, along, read_voxels

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
    kept, allowance = cache.expanduser(), Allowance(MEMORY_MB)
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(lambda case: _remembered(case, kept, allowance), cases))


def look(case: VolumeCase) -> Look:
    """Read image and label of ``case`` and tell what they are like. Raises nothing for data."""
    try:
        geometry = case.geometry
        files = [read_voxels(path) for path in case.images]
    except DataError as error:
        return Look(problems=(f"case '{case.id}': {error}",))
    seen = [_values_of(file) for file in files]
    problems, warnings = [], []
    for path, values in zip(case.images, seen, strict=True):
        told = [said for said in (two_places(path), unsaid(path)) if said]
        warnings += [f"case '{case.id}': {said}" for said in told]
        problems += [f"case '{case.id}': {fault}" for fault in _image_faults(path, values)]
    voxels, foreground = None, None
    if case.label is not None:
        try:
            label, voxels, remarks = _label(case.label, case)
            warnings += [f"case '{case.id}': {remark}" for remark in remarks]
            foreground = _percentiles(files, label)
        except DataError as error:
            problems.append(f"case '{case.id}': {error}")
    shape, spacing_mm = ras(geometry)
    return Look(
        shape=shape,
        spacing_mm=spacing_mm,
        orientation=geometry.orientation,
        channels=geometry.channels,
        dtype=str(np.result_type(*(file.dtype for file in files))),
        low=min((float(values.low.min()) for values in seen if values.finite), default=0.0),
        high=max((float(values.high.max()) for values in seen if values.finite), default=0.0),
        zeros=max(values.zeros for values in seen),
        foreground=foreground,
        label_voxels=voxels,
        problems=tuple(problems),
        warnings=tuple(warnings),
    )


class _Values(NamedTuple):
    """What the voxels of one file are like."""

    low: np.ndarray  # of each channel, of the finite ones
    high: np.ndarray  # likewise
    finite: int
    broken: int  # NaN or infinite
    zeros: float  # share


def _values_of(file: Voxels) -> _Values:
    low, high, finite, zeros = [], [], 0, 0
    for part in file.parts():
        flat = part.reshape(-1, prod(part.shape[3:]), order="F")
        zeros += int((flat == 0).sum())
        finite += flat.size
        if flat.dtype.kind == "f":
            sound = np.isfinite(flat)
            finite -= int((~sound).sum())
            low.append(flat.min(axis=0, where=sound, initial=np.inf))
            high.append(flat.max(axis=0, where=sound, initial=-np.inf))
        else:
            low.append(flat.min(axis=0))
            high.append(flat.max(axis=0))
    size = prod(file.shape)
    extremes = np.min(low, axis=0), np.max(high, axis=0)
    return _Values(*extremes, finite=finite, broken=size - finite, zeros=zeros / size)


def _image_faults(path: Path, values: _Values) -> list[str]:
    if values.broken:
        return [
            f"{path} holds {values.broken} NaN or infinite voxels. Replace them (0 is usual "
            "outside the body), or remove the case."
        ]
    constant = np.flatnonzero(values.low == values.high)
    return [
        f"{path}: every voxel of channel {channel} is {values.low[channel]:g}, so there is "
        "nothing to see. Export it again, or remove the case."
        for channel in constant
    ]


def _label(path: Path, case: VolumeCase) -> tuple[Voxels, dict[int, int], list[str]]:
    """The label of a case, the voxels of each of its values, and remarks on it.

    Raises:
        DataError: When it is unusable.
    """
    label, geometry = stored_label(path), read_geometry([path])
    if not same_grid(case.geometry, geometry):
        difference = describe_difference(case.images[0], case.geometry, path, geometry)
        raise DataError(
            f"{difference} They must share one grid: resample the label (nearest), or remove the "
            "case."
        )
    counts: Counter[float] = Counter()
    is_float = label.dtype.kind == "f"
    for part in label.parts():
        broken = part[~np.isfinite(part) | (part != np.rint(part))] if is_float else part[:0]
        if broken.size:
            raise DataError(
                f"label {path} holds values that are no whole numbers, such as "
                f"{float(broken[0]):g}. Labels must not be interpolated: export it again, or "
                "resample it with nearest."
            )
        values, found = np.unique(part, return_counts=True)
        counts.update(dict(zip(values.tolist(), found.tolist(), strict=True)))
    if len(counts) > MOST_VALUES:
        raise DataError(
            f"label {path} holds {len(counts)} different values: that is an image, not a label. "
            "Check that image and label are not swapped."
        )
    remarks = []
    if is_float:
        remarks = [f"label {path} is stored as {label.dtype}; its values are whole and are used."]
    return label, {int(value): counts[value] for value in sorted(counts)}, remarks


def _percentiles(files: Sequence[Voxels], label: Voxels) -> tuple[float, float] | None:
    alike = [file for file in files if file.shape[:3] == label.shape]
    found = []
    for some in along(label.shape, 2):
        inside = label[:, :, some] > 0
        found += [file[:, :, some][inside].ravel() for file in alike]
    values = np.concatenate(found) if found else np.empty(0)
    if values.size == 0 or not np.isfinite(values).all():
        return None
    low, high = np.percentile(values, [0.5, 99.5])
    return float(low), float(high)


def _remembered(case: VolumeCase, cache: Path, allowance: Allowance) -> Look:
    try:
        files = stamps([*case.images, *([case.label] if case.label else [])])
    except OSError:
        return look(case)  # says which file is missing
    digest = hashlib.sha256(json.dumps([VERSION, case.id, files]).encode()).hexdigest()[:24]
    path = cache / "looks" / f"{digest}.json"
    with contextlib.suppress(OSError, ValueError):
        return Look.model_validate_json(path.read_text(encoding="utf-8"))
    with allowance.take(_needed(case)):
        seen = look(case)
    temporary = path.with_name(f".{digest}.{uuid.uuid4().hex}")
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(seen.model_dump_json(), encoding="utf-8")
        temporary.replace(path)
    return seen


def _needed(case: VolumeCase) -> int:
    """Bytes: the files as they are stored, and the voxels in the label once more."""
    files = [*case.images, *([case.label] if case.label else [])]
    with contextlib.suppress(DataError):  # the look will tell
        return OVERHEAD + 2 * stored_bytes(files)
    return OVERHEAD
