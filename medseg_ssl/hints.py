"""From what is said of a volume to the classes that each of its voxels can have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.batch import IGNORE
from common.errors import DataError
from common.weak_labels import ClassSets, Hint, all_but, class_sets, only
from medseg_ssl.cases import Geometry, UnlabeledVolume, read_geometry
from medseg_ssl.preprocess import Recipe, grid_of, nearest
from medseg_ssl.weak_labels import Box, Point, Unit, VolumeHints, read_scribble, sources

TOUCH = 1.001
"""Of half a voxel: as near as this, a box reaches into it."""

AXES = "Axes that are right-anterior-superior positive are expected; some programs turn x and y."


@dataclass(frozen=True)
class WeakLabels:
    """What is said of the unlabeled volumes of a run."""

    classes: tuple[str, ...]
    by_case: Mapping[str, VolumeHints] = field(default_factory=dict)
    tell_voxels_apart: bool = False  # in some case of the run, so patches carry a flag per voxel

    def of(self, volume: UnlabeledVolume) -> VolumeHints:
        """All that is said of one of them, perhaps nothing."""
        return self.by_case.get(volume.id, VolumeHints())

    def of_all(
        self, volumes: Sequence[UnlabeledVolume]
    ) -> Iterator[tuple[UnlabeledVolume, VolumeHints, tuple[str, ...]]]:
        """What is said of single voxels of ``volumes``, and the names of the classes."""
        for volume in volumes:
            if self.of(volume).is_spatial:
                yield volume, self.of(volume), self.classes


class Place(NamedTuple):
    """The grid of a file, and the preprocessed one that training sees."""

    file: Geometry
    grid: Geometry

    def to(self, unit: Unit) -> np.ndarray:
        """Index of the preprocessed grid to ``unit``, ``(4, 4)``."""
        back = np.linalg.inv(self.file.affine) if unit == "voxel" else np.eye(4)
        return np.asarray(back @ self.grid.affine)

    def reach(self, unit: Unit) -> np.ndarray:
        """Half a voxel of the coarser of both grids along the axes of ``unit``, ``(3,)``."""
        own = self.file.affine if unit == "mm" else np.eye(4)
        both = [np.abs(each[:3, :3]).sum(axis=1) for each in (own, self.to(unit))]
        return np.asarray(np.maximum(*both) / 2)

    def named(self, index: tuple[int, ...]) -> str:
        """A voxel of the preprocessed grid, in words that its user can look up."""
        at = moved(self.to("voxel"), np.array(index))
        voxel = np.clip(np.rint(at), 0, np.array(self.file.shape) - 1).astype(int)
        mm = moved(self.grid.affine, np.array(index))
        return f"voxel {tuple(voxel.tolist())}, ({', '.join(f'{each:.1f}' for each in mm)}) mm"


def place_of(images: Sequence[Path], recipe: Recipe) -> Place:
    """Where a case lies, from its header alone."""
    file = read_geometry(images)
    return Place(file, grid_of(file, recipe))


def faults(hints: VolumeHints, place: Place, classes: Sequence[str]) -> list[str]:
    """What is said of places outside of the image, or of classes that the tags leave out."""
    problems = []
    for point in hints.points:
        if not _holds(place, point):
            problems.append(
                f"{point.source}: the point ({_written(point.at)}) {_named(point.unit)} lies "
                f"outside of the image, {_extent(place, point.unit)}"
            )
    for box in hints.boxes:
        if not _reaches(place, box):
            problems.append(
                f"{box.source}: the box from ({_written(box.low)}) to ({_written(box.high)}) "
                f"{_named(box.unit)} lies outside of the image, {_extent(place, box.unit)}"
            )
        if hints.tags and box.label not in (0, *hints.tags):
            problems.append(
                f"{box.source}: a box of '{classes[box.label]}', which the tags of the case do not "
                "name. Add the tag, or remove the box."
            )
    return problems


def sets_of(
    volume: UnlabeledVolume, hints: VolumeHints, recipe: Recipe, classes: Sequence[str]
) -> ClassSets:
    """The classes that each voxel can have, on the preprocessed grid of ``volume``.

    A voxel is inside of a box that it reaches into. A point marks the voxel nearest to it, and all
    with their center in the radius. Scribbles are resampled as labels are: nearest.

    Raises:
        DataError: When a hint cannot be used, or hints contradict each other.
    """
    place = place_of(volume.images, recipe)
    problems = faults(hints, place, classes)
    if problems:
        raise DataError.listing(f"case '{volume.id}'", problems)
    return class_sets(
        volume.id,
        place.grid.shape,
        _hints(volume, hints, place, recipe, num_classes=len(classes)),
        num_classes=len(classes),
        named=place.named,
    )


def tag_classes(hints: VolumeHints, num_classes: int) -> frozenset[int]:
    """The classes that tags leave to a case: the background is everywhere possible."""
    return frozenset({0, *hints.tags} if hints.tags else range(num_classes))


def moved(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """``points (..., 3)`` through a ``(4, 4)`` map."""
    return np.asarray(points @ matrix[:3, :3].T + matrix[:3, 3])


def _hints(
    volume: UnlabeledVolume,
    hints: VolumeHints,
    place: Place,
    recipe: Recipe,
    *,
    num_classes: int,
) -> Iterator[Hint]:
    """One at a time: each is as large as the volume."""
    if hints.tags:
        everywhere = np.broadcast_to(np.True_, place.grid.shape)
        yield Hint(everywhere, tag_classes(hints, num_classes), "its tags")
    for label in sorted({box.label for box in hints.boxes}):
        own = [box for box in hints.boxes if box.label == label]
        yield Hint(~inside(own, place), all_but(label, num_classes), sources(own))
    if hints.scribble is not None:
        drawn = read_scribble(hints.scribble, volume.images[0], place.file)
        resampled = nearest(drawn, place.file, recipe)
        for label in np.unique(resampled[resampled != IGNORE]).tolist():
            yield Hint(resampled == label, only(label), hints.scribble.source)
    for label in sorted({point.label for point in hints.points}):
        dots = [point for point in hints.points if point.label == label]
        where = around(dots, place, hints.point_radius_mm)
        yield Hint(where, only(label), sources(dots))


def inside(boxes: Sequence[Box], place: Place) -> np.ndarray:
    """Whether each voxel of the preprocessed grid reaches into one of ``boxes``."""
    where = np.zeros(place.grid.shape, dtype=bool)
    for box in boxes:
        matrix, reach = place.to(box.unit), place.reach(box.unit) * TOUCH
        low, high = np.array(box.low) - reach, np.array(box.high) + reach
        corners = np.array(np.meshgrid(*zip(low, high, strict=True))).reshape(3, -1).T
        window = _window(moved(np.linalg.inv(matrix), corners), place.grid.shape)
        hit: np.ndarray | bool = True
        for axis, at in enumerate(_coordinates(matrix, window)):
            hit = hit & (low[axis] <= at) & (at <= high[axis])
        where[window] |= hit
    return where


def around(points: Sequence[Point], place: Place, radius_mm: float) -> np.ndarray:
    """Whether each voxel is nearest to one of ``points``, or within ``radius_mm`` of it."""
    where = np.zeros(place.grid.shape, dtype=bool)
    back = np.linalg.inv(place.grid.affine)
    steps = radius_mm * np.linalg.norm(back[:3, :3], axis=1)  # voxels to the rim of the ball
    for point in points:
        mm = np.array(point.at)
        if point.unit == "voxel":
            mm = moved(place.file.affine, mm)
        middle = moved(back, mm)
        window = _window(np.array([middle - steps, middle + steps]), place.grid.shape)
        axes = zip(_coordinates(place.grid.affine, window), mm, strict=True)
        where[window] |= sum((at - center) ** 2 for at, center in axes) <= radius_mm**2
        where[tuple(np.clip(np.rint(middle), 0, np.array(where.shape) - 1).astype(int))] = True
    return where


def _window(corners: np.ndarray, shape: Sequence[int]) -> tuple[slice, ...]:
    """The part of a grid that holds all ``corners``."""
    low = np.clip(np.floor(corners.min(axis=0)), 0, shape).astype(int)
    high = np.clip(np.ceil(corners.max(axis=0)) + 1, low, shape).astype(int)
    return tuple(slice(start, stop) for start, stop in zip(low, high, strict=True))


def _coordinates(matrix: np.ndarray, window: tuple[slice, ...]) -> Iterator[np.ndarray]:
    """For each axis that ``matrix`` leads to, where the voxels of ``window`` lie along it."""
    i, j, k = np.ogrid[window]
    for along_i, along_j, along_k, first in matrix[:3]:
        yield along_i * i + along_j * j + along_k * k + first


def _holds(place: Place, point: Point) -> bool:
    at = np.array(point.at)
    if point.unit == "mm":
        at = moved(np.linalg.inv(place.file.affine), at)
    margin = TOUCH / 2  # of a voxel around its center
    return bool(((at >= -margin) & (at <= np.array(place.file.shape) - 1 + margin)).all())


def _reaches(place: Place, box: Box) -> bool:
    """A box of voxels lies in the image as a whole; one in mm may reach beyond its edge."""
    if box.unit == "voxel":
        return min(box.low) >= 0 and all(np.array(box.high) < place.file.shape)
    return bool(inside([box], place).any())


def _extent(place: Place, unit: Unit) -> str:
    if unit == "voxel":
        return f"whose last voxel is ({', '.join(str(side - 1) for side in place.file.shape)})."
    ends = [(0, side - 1) for side in place.file.shape]
    corners = moved(place.file.affine, np.array(np.meshgrid(*ends)).reshape(3, -1).T)
    low, high = _written(corners.min(axis=0)), _written(corners.max(axis=0))
    return f"which reaches from ({low}) to ({high}) mm. {AXES}"


def _written(numbers: Sequence[float] | np.ndarray) -> str:
    return ", ".join(f"{number:.4g}" for number in numbers)


def _named(unit: Unit) -> str:
    return "mm" if unit == "mm" else "voxels"
