"""A starter config, chosen from the data: every value with its reason beside it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from common import drafting
from common.adapter import Wish
from common.drafting import flow, names, quoted
from common.environment import memory_gib
from common.errors import DataError
from common.splits import Known
from medseg_ssl.augment import AXES, Axis
from medseg_ssl.inspection import Survey, median_spacing_mm, problems_of, survey
from medseg_ssl.legend import Region
from medseg_ssl.lots import Drawn, draw

LEVELS = 3  # how often the default network may halve a patch
VOXELS_PER_GIB = 96**3 // 8  # of a patch, in a training step of the default network
LEAST_GIB, MOST_GIB = 1.0, 24.0  # that a patch is chosen for
MOST_GIB_OF_CPU = 8.0  # in place of the latter: there time runs out before memory does
EMPTY = 0.2  # of the voxels exactly 0, as a skull-stripped brain has
APART = 3.0  # slices so many times farther apart than their pixels are images of their own
THICK = 2.0  # an axis this much coarser than the finest is not halved with it

OPPOSITES: tuple[tuple[Axis, tuple[str, ...]], ...] = (
    ("left_right", ("left", "right", "l", "r", "lh", "rh")),
    ("back_front", ("anterior", "posterior", "front", "back")),
    ("down_up", ("superior", "inferior", "upper", "lower")),
)
"""Words in class names that only make sense where an axis is not flipped."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What the data decides."""

    shape: tuple[float, float, float]
    spacing_mm: tuple[float, float, float]
    strides: tuple[tuple[int, int, int], ...]
    patch: tuple[int, int, int]
    across: int | None  # the axis that slices are apart along, where they are images of their own
    window_hu: tuple[float, float] | None  # None: the images are no CT
    stripped: bool  # much of the images is exactly 0
    classes: tuple[tuple[str, int], ...]
    channels: tuple[str, ...]
    regions: tuple[Region, ...]  # unions of classes to measure
    told_apart: tuple[Axis, ...]  # axes that class names tell apart


def draft(data: Path, wish: Wish) -> str:
    """The text of a complete YAML file, ready to train.

    Raises:
        DataError: Naming every problem of the data, or a wish that it cannot fulfil.
    """
    found = survey(data)
    problems = problems_of(found)
    if problems:
        raise DataError.listing(data, problems)
    known = [Known(case.id, case.group, case.label is not None) for case in found.catalog.cases]
    given = dict(found.catalog.splits)
    if found.catalog.order and isinstance(wish.labeled, int):
        given["labeled"] = found.catalog.order[: wish.labeled]
    drawn = draw(known, wish, given=given)
    plan = _plan(found, kept={*drawn.labeled})
    parts = (
        _head(data, found, plan),
        _splits(drawn, wish, found),
        _views(plan),
        _training(plan, drawn),
    )
    return "\n".join(parts)


def _plan(found: Survey, *, kept: set[str]) -> Plan:
    looks = [look for look in found.looks.values() if look.channels]
    spacing_mm = median_spacing_mm(looks)
    extents = [np.array(look.shape) * look.spacing_mm / spacing_mm for look in looks]
    x, y, z = (float(side) for side in np.median(extents, axis=0))
    across = _across(spacing_mm) if found.catalog.across is None else found.catalog.across
    strides = _strides((x, y, z), spacing_mm, across)
    patch = _patch((x, y, z), strides, across)
    classes = found.catalog.classes or _named({v for k in looks for v in k.label_voxels or {}})
    return Plan(
        shape=(x, y, z),
        spacing_mm=spacing_mm,
        strides=strides,
        patch=patch,
        across=across,
        window_hu=_window(found, kept),
        stripped=float(np.median([look.zeros for look in looks])) >= EMPTY,
        classes=classes,
        channels=found.catalog.channels or _channels(looks[0].channels),
        regions=found.catalog.regions,
        told_apart=_told_apart([name for name, _ in classes]),
    )


def _strides(
    shape: Sequence[float], spacing_mm: Sequence[float], across: int | None = None
) -> tuple[tuple[int, int, int], ...]:
    """Halve an axis where it is not much coarser than the finest, and long enough."""
    left, spacing = np.array(shape, dtype=float), np.array(spacing_mm, dtype=float)
    strides = []
    for _ in range(LEVELS):
        apart = np.arange(3) == across  # the axis that slices are never halved along
        fine = ~apart & (spacing <= THICK * spacing.min()) & (np.ceil(left / 2) >= 4)
        stride = np.where(fine, 2, 1)
        strides.append((int(stride[0]), int(stride[1]), int(stride[2])))
        left, spacing = left / stride, spacing * stride
    return tuple(strides)


def _across(spacing_mm: Sequence[float]) -> int | None:
    """The axis along which slices lie far apart, if one does."""
    fine, middle, coarse = np.argsort(spacing_mm)
    far = spacing_mm[coarse] >= APART * spacing_mm[middle]
    return int(coarse) if far and spacing_mm[middle] < APART * spacing_mm[fine] else None


def _patch(
    shape: Sequence[float], strides: Sequence[Sequence[int]], across: int | None = None
) -> tuple[int, int, int]:
    """The median shape, up to a multiple of what the network needs, and small enough."""
    multiple = np.prod(np.array(strides), axis=0)
    sides = np.maximum(np.ceil(np.array(shape) / multiple), 2) * multiple
    if across is not None:
        sides[across] = 1
    while sides.prod() > most_voxels():
        longest = int(np.argmax(sides * (sides > 2 * multiple)))
        sides[longest] -= multiple[longest]
    return int(sides[0]), int(sides[1]), int(sides[2])


def most_voxels() -> int:
    """Of a patch, as far as the memory of the device at hand goes."""
    most, known = MOST_GIB if torch.cuda.is_available() else MOST_GIB_OF_CPU, memory_gib()
    gib = most if math.isnan(known) else min(max(known, LEAST_GIB), most)
    return int(gib * VOXELS_PER_GIB)


def _window(found: Survey, kept: set[str]) -> tuple[float, float] | None:
    """For CT the range of the tissue that ``kept`` cases label; CT is said so, or has air."""
    looks = [look for look in found.looks.values() if look.channels]
    said = any(re.fullmatch(r"ct\b.*", name.lower()) for name in found.catalog.channels)
    if not said and np.median([look.low for look in looks]) > -500:
        return None
    labeled = [look for name, look in found.looks.items() if name in kept]
    ranges = [look.foreground for look in labeled if look.foreground is not None]
    if not ranges:
        return -1000.0, 1000.0
    low, high = np.median(ranges, axis=0)
    return float(np.floor(low)), float(max(np.ceil(high), np.floor(low) + 1))


def _named(values: set[int]) -> tuple[tuple[str, int], ...]:
    names = {0: "background"}
    return tuple((names.get(value, f"class_{value}"), value) for value in sorted({0, *values}))


def _channels(count: int) -> tuple[str, ...]:
    return ("image",) if count == 1 else tuple(f"image_{index}" for index in range(count))


def _told_apart(classes: Sequence[str]) -> tuple[Axis, ...]:
    words = {word for name in classes for word in re.split(r"[^a-z]+", name.lower())}
    return tuple(axis for axis, opposites in OPPOSITES if words & set(opposites))


def _head(data: Path, found: Survey, plan: Plan) -> str:
    classes = "\n".join(
        f"    - {{name: {quoted(name)}, value: {value}}}" for name, value in plan.classes
    )
    ignore = f"  ignore_value: {found.catalog.ignore}\n" if found.catalog.ignore is not None else ""
    return f"""\
# Written from {len(found.catalog.cases)} cases of {data}. Every value may be changed;
# `medseg-ssl check THIS_FILE` says whether the result still holds together.
seed: 0  # decides first weights, patches and views

domain:
  data: {quoted(str(data))}
  channels: {flow(plan.channels)}
  classes:  # index 0 is the background; a color [r, g, b] may be given to each
{classes}
{ignore}"""


def _splits(drawn: Drawn, wish: Wish, found: Survey) -> str:
    patients = (
        "All cases of one patient are on one side."
        if found.catalog.knows_patients
        else "Nothing says which cases are of one patient: see to it that none is on two sides."
    )
    rest = flow(drawn.unlabeled) if drawn.unlabeled != "rest" else "rest"
    listed = found.catalog.order or not found.catalog.layout.startswith("manifest")
    said = "As the lists say" if listed else "As the manifest says"
    origin = said if found.catalog.splits else f"Drawn with seed {wish.seed}"
    return f"""\
  # {origin}.
  # {patients}
  splits:
    labeled: {names(drawn.labeled)}
    # rest: all cases named nowhere here; their labels, if they have any, are never read
    unlabeled: {rest}
    # chooses the best checkpoint; empty: the last one is the best
    validation: {names(drawn.validation)}
    # nothing is ever chosen on these
    test: {names(drawn.test)}
"""


def _views(plan: Plan) -> str:
    shape = " x ".join(f"{side:.0f}" for side in plan.shape)
    flips = [axis for axis in AXES if axis not in plan.told_apart]
    why = (
        f"not {' and '.join(plan.told_apart)}: class names tell its ends apart"
        if plan.told_apart
        else "no class name tells one end of an axis from the other"
    )
    normalize = "{name: zscore}  # MRI has no units: each volume to mean 0 and deviation 1"
    if plan.stripped:
        normalize = (
            "{name: zscore_nonzero}  # MRI has no units, and much of a volume is 0: not that"
        )
    if plan.window_hu is not None:
        low, high = plan.window_hu
        normalize = f"{{name: window, window_hu: [{low:g}, {high:g}]}}  # CT: the labeled tissue"
    regions = "".join(f"      {quoted(name)}: {flow(parts)}\n" for name, parts in plan.regions)
    measures = f"  measures:\n    regions:  # measured as well\n{regions}" if regions else ""
    strong = (
        "  # What MRI scanners do to images, besides the default changes; off until it is a line:\n"
        "  # strong: {bias_field: {share: 0.3}, gibbs: {share: 0.2}, rician: {share: 0.2}}\n"
        if plan.window_hu is None
        else ""
    )
    turns: object = 10
    size = f"voxels; the median volume has {shape}"
    if math.prod(plan.patch) < 0.8 * math.prod(plan.shape):
        size += ", more than a training step should hold here"
    if plan.across is not None:
        turns = flow([10 if axis == plan.across else 0 for axis in range(3)])
        size = f"one slice: they lie far apart; the median volume has {shape}"
    return f"""\
  spacing_mm: {flow(plan.spacing_mm)}  # right, front, top: the median
  normalize: {normalize}
  patch: {flow(plan.patch)}  # {size}
  foreground_share: 0.5  # of the labeled patches are centered on some class
  weak:  # geometry, the same for image and label
    # {why}
    flip_axes: {flow(flips)}
    affine_share: 0.3
    rotation_degrees: {turns}
    scale: 0.1
{strong}{measures}"""


def _training(plan: Plan, drawn: Drawn) -> str:
    strides = ""
    if any(stride != (2, 2, 2) for stride in plan.strides):
        listed = ", ".join(flow(stride) for stride in plan.strides)
        strides = f"\n    strides: [{listed}]  # thick or few slices are not halved"
    batch, kernel, inference = 2, "", ""
    if plan.across is not None:
        sides = flow([1 if axis == plan.across else 3 for axis in range(3)])
        kernel = f"\n    kernel: {sides}  # slices do not see each other: a network in 2D"
        batch, inference = 8, "\n  inference: {windows_per_batch: 16}"
    training = drafting.training(
        unlabeled_loss="cross_entropy_dice",
        learning_rate="2.0e-3",
        has_unlabeled=drawn.has_unlabeled,
        validates=bool(drawn.validation),
    )
    return f"""\
  network:
    name: unet{strides}{kernel}
  batch: {{labeled: {batch}, unlabeled: {batch if drawn.has_unlabeled else 0}}}{inference}

{training}"""
