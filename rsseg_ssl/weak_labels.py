"""What a person said of unlabeled scenes, read from files: tags, boxes, points and scribbles."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from common.errors import DataError
from common.settings import NonNegative
from common.splits import listed
from common.weak_labels import (
    ClassSets,
    Hint,
    WeakLabelFiles,
    apart,
    class_sets,
    counted,
    located,
    tagged,
)
from rsseg_ssl.cases import Grid
from rsseg_ssl.hints import Boxes, Drawn, Points, Shapes, Strokes, reach_yx
from rsseg_ssl.in_pixels import BOX_COLUMNS, POINT_COLUMNS, Survey, read_masks, read_table
from rsseg_ssl.reader import Window
from rsseg_ssl.vectors import read_features

Kind: TypeAlias = Literal["tags", "boxes", "points", "scribbles"]
KINDS: tuple[Kind, ...] = ("tags", "boxes", "points", "scribbles")

AREAS = ("Polygon", "MultiPolygon")
DOTS = ("Point", "MultiPoint")
LINES = ("LineString", "MultiLineString")


class SceneWeakLabelFiles(WeakLabelFiles):
    """Where the weak labels of unlabeled scenes lie.

    Boxes, points and scribbles may be a file of shapes that GDAL reads, of any CRS: each applies to
    every unlabeled scene that it meets. Boxes and points may also be a ``.csv`` in pixels, and
    scribbles a folder of masks that are named like the scenes.
    """

    class_column: str = "class"  # attribute of shapes: the name or the mask value of their class
    point_radius_m: NonNegative = 0.0  # around a point; 0: the one pixel it lies in


@dataclass(frozen=True)
class SceneHints:
    """All that is said of one scene."""

    tags: frozenset[int] = frozenset()  # all class indices that it shows; none: nobody said
    drawn: Mapping[Kind, Drawn] | None = None  # by boxes, points, scribbles; those that speak of it


@dataclass(frozen=True)
class WeakLabels:
    """What is said of the unlabeled scenes of a run."""

    num_classes: int
    by_scene: Mapping[str, SceneHints] = field(default_factory=dict)
    tell_pixels_apart: bool = False  # in some scene of the run, so windows carry a flag per pixel

    def of(self, scene: str) -> SceneHints:
        """All that is said of one of them, perhaps nothing."""
        return self.by_scene.get(scene, SceneHints())

    def tagged(self, scene: str) -> frozenset[int]:
        """The classes that tags leave to it."""
        return self.of(scene).tags or frozenset(range(self.num_classes))

    def class_sets(self, scene: str, window: Window) -> ClassSets:
        """What all hints leave to the pixels of a window that lies inside of a scene.

        Raises:
            DataError: When they contradict each other.
        """
        return class_sets(
            scene,
            (window.height, window.width),
            self._hints(scene, window),
            num_classes=self.num_classes,
            named=lambda at: f"row {at[0] + window.top}, column {at[1] + window.left}",
        )

    def _hints(self, scene: str, window: Window) -> Iterator[Hint]:
        """One at a time: each is as large as the window."""
        said = self.of(scene)
        if said.tags:
            everywhere = np.broadcast_to(np.True_, (window.height, window.width))
            yield Hint(everywhere, said.tags, "its tags")
        for drawn in (said.drawn or {}).values():
            yield from drawn.hints(window)


class Reading(NamedTuple):
    """What all files say, and what in them cannot be used."""

    by_scene: dict[str, SceneHints]
    problems: list[str]
    silent: list[str]  # files that say nothing of any unlabeled scene


def read_hints(files: SceneWeakLabelFiles, data: Path, survey: Survey) -> Reading:
    """What ``files`` say of each unlabeled scene. Problems are kept, not raised."""
    tags: dict[str, frozenset[int]] = {}
    drawn: dict[str, dict[Kind, Drawn]] = {}
    problems: list[str] = []
    silent: list[str] = []
    for kind in KINDS:
        given: Path | None = getattr(files, kind)
        if given is None:
            continue
        spoken: Collection[str] = ()
        try:
            path = located(given, data)
            if kind == "tags":
                tags = _of_unlabeled(tagged(path, survey.legend.classes, survey.scenes), survey)
                spoken = tags
            else:
                found = READERS[kind](path, files, survey)
                found = {name: each for name, each in found.items() if each.classes}
                for name, each in found.items():
                    drawn.setdefault(name, {})[kind] = each
                spoken = found
        except DataError as error:
            problems += apart(error, given)
            continue
        if not spoken:
            silent.append(f"{kind} ({given})")
    by_scene = {
        name: SceneHints(tags.get(name, frozenset()), drawn.get(name))
        for name in survey.grids
        if name in tags or name in drawn
    }
    return Reading(by_scene, problems, silent)


def in_words(by_scene: Mapping[str, SceneHints], unlabeled: int) -> str:
    """How many of the unlabeled scenes have which hints."""
    hints = by_scene.values()
    counts: dict[str, int] = {
        kind: sum(kind in (each.drawn or ()) for each in hints) for kind in KINDS
    }
    counts["tags"] = sum(bool(each.tags) for each in hints)
    return counted(counts, unlabeled)


def _boxes(path: Path, files: SceneWeakLabelFiles, survey: Survey) -> dict[str, Drawn]:
    classes = len(survey.legend.classes)

    def boxes(shapes: Shapes, grid: Grid) -> Drawn:
        return Boxes(shapes, grid.shape_yx, classes)

    if path.suffix.lower() == ".csv":
        return _drawn(read_table(path, BOX_COLUMNS, survey), boxes, survey)
    return _drawn(_features(path, AREAS, files, survey), boxes, survey)


def _points(path: Path, files: SceneWeakLabelFiles, survey: Survey) -> dict[str, Drawn]:
    def points(shapes: Shapes, grid: Grid) -> Drawn:
        return Points(shapes, grid, files.point_radius_m)

    if path.suffix.lower() == ".csv":
        return _drawn(read_table(path, POINT_COLUMNS, survey), points, survey)
    return _drawn(_features(path, DOTS, files, survey), points, survey)


def _scribbles(path: Path, files: SceneWeakLabelFiles, survey: Survey) -> dict[str, Drawn]:
    if path.is_dir():
        return read_masks(path, files.unmarked, survey)
    if path.suffix.lower() == ".csv":
        raise DataError(
            f"{path}: scribbles are a folder of masks or a file of shapes, such as GeoPackage; a "
            ".csv can hold boxes and points."
        )
    shapes = _features(path, (*LINES, *AREAS), files, survey)
    return _drawn(shapes, lambda each, grid: Strokes(each), survey)


READERS: Mapping[Kind, Callable[[Path, SceneWeakLabelFiles, Survey], dict[str, Drawn]]] = {
    "boxes": _boxes,
    "points": _points,
    "scribbles": _scribbles,
}


def _drawn(
    shapes: Mapping[str, Shapes], made: Callable[[Shapes, Grid], Drawn], survey: Survey
) -> dict[str, Drawn]:
    return {name: made(each, survey.grids[name]) for name, each in shapes.items() if len(each)}


def _features(
    path: Path, kinds: Sequence[str], files: SceneWeakLabelFiles, survey: Survey
) -> dict[str, Shapes]:
    """The shapes of a file that meet each unlabeled scene."""
    nowhere = [name for name, grid in survey.grids.items() if grid.crs is None]
    if nowhere:
        raise DataError(
            f"{path} holds places on Earth, but unlabeled scenes have no CRS: {listed(nowhere)}. "
            "Assign one (gdal_edit.py -a_srs EPSG:...), or give a .csv in pixels or masks."
        )
    features = read_features(path, kinds, column=files.class_column, legend=survey.legend)
    radius_m = files.point_radius_m if kinds == DOTS else 0.0
    return {
        name: features.on(grid, reach_yx(grid, radius_m)) for name, grid in survey.grids.items()
    }


def _of_unlabeled(tags: Mapping[str, frozenset[int]], survey: Survey) -> dict[str, frozenset[int]]:
    return {name: classes for name, classes in tags.items() if name in survey.grids}
