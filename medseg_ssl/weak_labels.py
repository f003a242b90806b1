"""What a person said of unlabeled volumes, read from files: tags, boxes, points and scribbles."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from common.adapter import file_name
from common.batch import IGNORE
from common.errors import DataError, GridMismatch
from common.settings import NonNegative, Settings
from common.splits import closest, listed
from common.weak_labels import (
    Said,
    WeakLabelFiles,
    apart,
    counted,
    header,
    located,
    read_said,
    tagged,
)
from medseg_ssl.cases import (
    Geometry,
    describe_difference,
    read_geometry,
    read_label,
    same_grid,
)
from medseg_ssl.files import KNOWN, is_volume, stem
from medseg_ssl.h5 import label_in

Triple: TypeAlias = tuple[float, float, float]
Unit: TypeAlias = Literal["mm", "voxel"]

POINT_COLUMNS: Mapping[Unit, tuple[str, ...]] = {
    "mm": ("x_mm", "y_mm", "z_mm"),
    "voxel": ("i", "j", "k"),
}
"""How a point may be told: in the scanner (right, front, top positive), or by its voxel."""

BOX_COLUMNS: Mapping[Unit, tuple[str, ...]] = {
    "mm": ("x_min_mm", "x_max_mm", "y_min_mm", "y_max_mm", "z_min_mm", "z_max_mm"),
    "voxel": ("i_min", "i_max", "j_min", "j_max", "k_min", "k_max"),
}
"""Likewise; both ends belong to the box."""


class VolumeWeakLabelFiles(WeakLabelFiles):
    """Where the weak labels of unlabeled volumes lie.

    Tables tell places in mm (``x_mm``, right-anterior-superior positive) or by voxels of the
    image file (``i``), as their header says. Scribbles are a folder with one NIfTI file per case.
    """

    point_radius_mm: NonNegative = 0.0  # around a point; 0: the one voxel it lies in


class Box(Settings):
    """Where a class may be."""

    label: int  # class index
    low: Triple
    high: Triple
    unit: Unit
    source: str  # "boxes.csv, line 7"


class Point(Settings):
    """What one place is."""

    label: int  # class index
    at: Triple
    unit: Unit
    source: str


class Scribble(Settings):
    """A mask on the grid of the image, mostly unmarked."""

    path: Path
    values: tuple[int, ...]  # of each class; the position is the class index
    unmarked: int

    @property
    def source(self) -> str:
        """Its folder and name."""
        return f"{self.path.parent.name}/{self.path.name}"


class VolumeHints(Settings):
    """All that is said of one case."""

    tags: tuple[int, ...] = ()  # class indices, all that the case shows; none: nobody said
    boxes: tuple[Box, ...] = ()
    points: tuple[Point, ...] = ()
    point_radius_mm: NonNegative = 0.0
    scribble: Scribble | None = None

    @property
    def is_spatial(self) -> bool:
        """Whether it tells one voxel from another."""
        return bool(self.boxes or self.points or self.scribble)

    @functools.cached_property
    def digest(self) -> str:
        """Different for different hints."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


class VolumeLegend(NamedTuple):
    """What the words and values in the files stand for."""

    classes: Sequence[str]  # names; the position is the class index
    values: Sequence[int]  # of each class, in masks
    cases: Collection[str]  # all names of the data


class Reading(NamedTuple):
    """What all files say, and what in them cannot be used."""

    by_case: dict[str, VolumeHints]
    problems: list[str]


def read_hints(files: VolumeWeakLabelFiles, data: Path, legend: VolumeLegend) -> Reading:
    """What ``files`` say of each case; opens no volume."""
    problems: list[str] = []
    tags: dict[str, frozenset[int]] = {}
    boxes: dict[str, list[Box]] = {}
    points: dict[str, list[Point]] = {}
    scribbles: dict[str, Scribble] = {}
    if path := _found(files.tags, data, problems):
        try:
            tags = tagged(path, legend.classes, legend.cases)
        except DataError as error:
            problems += apart(error, path)
    if path := _found(files.boxes, data, problems):
        for said, unit in _lines(path, BOX_COLUMNS, legend, problems):
            low, high = said.numbers[::2], said.numbers[1::2]
            problems += _wrong_sides(said, low, high)
            box = Box(label=said.label, low=low, high=high, unit=unit, source=said.source)
            boxes.setdefault(said.case, []).append(box)
    if path := _found(files.points, data, problems):
        for said, unit in _lines(path, POINT_COLUMNS, legend, problems):
            point = Point(label=said.label, at=said.numbers, unit=unit, source=said.source)
            points.setdefault(said.case, []).append(point)
    if path := _found(files.scribbles, data, problems):
        scribbles = _scribbles(path, files.unmarked, legend, problems)
    by_case = {
        case: VolumeHints(
            tags=tuple(sorted(tags.get(case, ()))),
            boxes=tuple(boxes.get(case, ())),
            points=tuple(points.get(case, ())),
            point_radius_mm=files.point_radius_mm if case in points else 0.0,
            scribble=scribbles.get(case),
        )
        for case in sorted({*tags, *boxes, *points, *scribbles})
    }
    return Reading(by_case, problems)


def in_words(by_case: Mapping[str, VolumeHints], unlabeled: Sequence[str]) -> str:
    """How many of the unlabeled cases have which hints."""
    hints = [by_case[name] for name in unlabeled if name in by_case]
    counts = {
        "tags": sum(bool(each.tags) for each in hints),
        "boxes": sum(bool(each.boxes) for each in hints),
        "points": sum(bool(each.points) for each in hints),
        "scribbles": sum(each.scribble is not None for each in hints),
    }
    return counted(counts, len(unlabeled))


def read_scribble(scribble: Scribble, image: Path, geometry: Geometry) -> np.ndarray:
    """Class indices ``(X, Y, Z)`` on the grid of ``image``, uint8; IGNORE where nobody drew.

    Raises:
        DataError: When it cannot be read, or holds a value that is no class.
        GridMismatch: When it lies on another grid than its image.
    """
    path = scribble.path
    drawn, own = read_label(path), read_geometry([path])
    if not same_grid(geometry, own):
        difference = describe_difference(image, geometry, path, own)
        raise GridMismatch(
            f"{difference} They must share one grid: resample the scribbles (nearest), or remove "
            f"{scribble.source}."
        )
    index = np.full(drawn.shape, IGNORE, dtype=np.uint8)
    known = drawn == scribble.unmarked
    for label, value in enumerate(scribble.values):
        index[drawn == value] = label
        known |= drawn == value
    strange = [f"{value:g}" for value in np.unique(drawn[~known])]
    if strange:
        raise DataError(
            f"scribbles {path} hold the values {', '.join(strange[:8])}, which are none of the "
            f"classes {list(scribble.values)} and not {scribble.unmarked}, where nobody drew. "
            "Correct them, or set domain.weak_labels.unmarked."
        )
    return index


def _found(path: Path | None, data: Path, problems: list[str]) -> Path | None:
    if path is None:
        return None
    try:
        return located(path, data)
    except DataError as error:
        problems.append(str(error))
        return None


def _lines(
    path: Path,
    columns: Mapping[Unit, tuple[str, ...]],
    legend: VolumeLegend,
    problems: list[str],
) -> list[tuple[Said, Unit]]:
    """The usable lines of a table of places, and their unit, which its header tells."""
    try:
        unit = _unit(path, columns)
        lines = read_said(path, legend.classes, legend.cases, columns=columns[unit])
    except DataError as error:
        problems += apart(error, path)
        return []
    if unit == "voxel":
        for said in lines:
            problems += [
                f"{said.source}: {column} is {number:g}, expected a whole number: the index of a "
                "voxel."
                for column, number in zip(columns[unit], said.numbers, strict=True)
                if not number.is_integer()
            ]
    return [(said, unit) for said in lines]


def _unit(path: Path, columns: Mapping[Unit, tuple[str, ...]]) -> Unit:
    names = {*header(path)}
    begun = [unit for unit, wanted in columns.items() if names & {*wanted}]
    if len(begun) == 1:
        return begun[0]
    choice = " or ".join(", ".join(wanted) for wanted in columns.values())
    remedy = "Keep one of both." if begun else "Add them."
    amount = "both kinds of" if begun else "no"
    raise DataError(f"{path} has {amount} columns that tell a place: expected {choice}. {remedy}")


def _wrong_sides(said: Said, low: Sequence[float], high: Sequence[float]) -> list[str]:
    return [
        f"{said.source}: the box ends along its {axis} axis at {end:g}, before it begins at "
        f"{begin:g}. Swap them."
        for axis, begin, end in zip(("first", "second", "third"), low, high, strict=True)
        if end < begin
    ]


def _scribbles(
    folder: Path, unmarked: int, legend: VolumeLegend, problems: list[str]
) -> dict[str, Scribble]:
    if not folder.is_dir():
        problems.append(
            f"{folder} is no folder: scribbles are one volume per case, named like the case."
        )
        return {}
    by_stem = {file_name(case): case for case in legend.cases}
    found: dict[str, Scribble] = {}
    for path in sorted(each for each in folder.iterdir() if not each.name.startswith(".")):
        case = by_stem.get(stem(path))
        if not is_volume(path):
            problems.append(f"{path} is no volume: expected {KNOWN}. Move it elsewhere.")
        elif case is None:
            problems.append(f"{path}: there is no case '{stem(path)}'.{_near(path, by_stem)}")
        elif case in found:
            problems.append(f"{path}: case '{case}' has {found[case].path.name}, too. Remove one.")
        else:
            found[case] = Scribble(
                path=label_in(path), values=tuple(legend.values), unmarked=unmarked
            )
    return found


def _near(path: Path, known: Collection[str]) -> str:
    return closest(stem(path), [*known])


def sources(each: Sequence[Box | Point]) -> str:
    """Where it is said: ``points.csv, line 3; points.csv, line 8``."""
    return listed([one.source for one in each])
