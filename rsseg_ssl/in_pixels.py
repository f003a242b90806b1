"""Weak labels that are told in pixels: tables of boxes and points, and masks of scribbles."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import shapely

from common.adapter import file_name
from common.errors import DataError, GridMismatch
from common.splits import closest
from common.weak_labels import Said, read_said
from rsseg_ssl import reader
from rsseg_ssl.cases import Grid, grid_of
from rsseg_ssl.entries import rasters
from rsseg_ssl.hints import Drawn, Painted, Shapes
from rsseg_ssl.vectors import Legend

BOX_COLUMNS = ("row_min", "row_max", "column_min", "column_max")
POINT_COLUMNS = ("row", "column")
"""In whole pixels from 0; both ends belong to a box."""


class Survey(NamedTuple):
    """The scenes that files may speak of."""

    legend: Legend
    scenes: Collection[str]  # all names of the data
    grids: Mapping[str, Grid]  # of unlabeled scenes
    ignore: tuple[int, ...]  # values of masks where nobody looked


def read_table(path: Path, columns: Sequence[str], survey: Survey) -> dict[str, Shapes]:
    """The shapes of a ``.csv``, by the name of the unlabeled scene they lie on.

    Raises:
        DataError: Listing every line that cannot be used.
    """
    problems: list[str] = []
    kept: dict[str, list[Said]] = {}
    for said in read_said(path, survey.legend.classes, survey.scenes, columns=columns):
        if said.case in survey.grids:
            problem = _misplaced(said, columns, survey.grids[said.case].shape_yx)
            problems += [problem] if problem else []
            kept.setdefault(said.case, []).append(said)
    if problems:
        raise DataError.listing(path, problems)
    return {
        name: Shapes(
            geometries=np.array([_shape(said.numbers) for said in lines], dtype=object),
            labels=np.array([said.label for said in lines]),
            sources=tuple(said.source for said in lines),
        )
        for name, lines in kept.items()
    }


def read_masks(folder: Path, unmarked: int, survey: Survey) -> dict[str, Drawn]:
    """The masks of unlabeled scenes, by name; those of other scenes are not opened.

    Raises:
        DataError: Listing every mask that cannot be used.
    """
    legend, problems, found = survey.legend, list[str](), dict[str, Drawn]()
    names = {file_name(name): name for name in survey.scenes}
    files = rasters(folder)
    if unmarked in legend.values:
        raise DataError(
            f"domain.weak_labels.unmarked {unmarked} is also the value of class "
            f"'{legend.classes[legend.values.index(unmarked)]}'. Set it to a value that only says "
            "that nobody drew."
        )
    if not files:
        raise DataError(f"{folder} holds no raster. Give one mask per scene, named like it.")
    for path in files:
        name = names.get(path.stem)
        if name is None:
            known = closest(path.stem, [*names])
            problems.append(f"{path.name}: there is no case '{path.stem}'.{known}")
        elif name in found:
            problems.append(f"{path.name}: scene '{name}' has another one, too. Remove one.")
        elif name in survey.grids:
            try:
                found[name] = Painted(path, legend.values, _unmarked(path, name, unmarked, survey))
            except DataError as error:
                problems.append(f"{path.name}: {error}")
    if problems:
        raise DataError.listing(folder, problems)
    return found


def _misplaced(said: Said, columns: Sequence[str], shape_yx: tuple[int, int]) -> str | None:
    """Why numbers in pixels cannot be used."""
    line = said.source.rpartition(", ")[2]
    for column, number in zip(columns, said.numbers, strict=True):
        size = shape_yx[0] if column.startswith("row") else shape_yx[1]
        if not number.is_integer():
            return f"{line}: {column} is {number:g}, expected a whole number: pixels count from 0."
        if not 0 <= number < size:
            height, width = shape_yx
            return (
                f"{line}: {column} is {number:g}, outside of scene '{said.case}' of {height} rows "
                f"and {width} columns, which count from 0."
            )
    for low, high in zip(said.numbers[::2], said.numbers[1::2], strict=True):
        if len(columns) == len(BOX_COLUMNS) and low > high:
            return f"{line}: the box begins at {low:g} and ends before, at {high:g}. Swap them."
    return None


def _shape(numbers: Sequence[float]) -> shapely.Geometry:
    if len(numbers) == len(POINT_COLUMNS):
        row, column = numbers
        return shapely.Point(column + 0.5, row + 0.5)
    row_min, row_max, column_min, column_max = numbers
    return shapely.box(column_min, row_min, column_max + 1, row_max + 1)


def _unmarked(path: Path, name: str, unmarked: int, survey: Survey) -> tuple[int, ...]:
    """The values where nobody drew.

    Raises:
        GridMismatch: When the mask does not lie on the grid of its scene.
        DataError: When it is no mask.
    """
    source = reader.opened(path)
    if source.count > 1 or "float" in source.dtypes[0]:
        raise DataError(
            f"{source.count} bands of {source.dtypes[0]}, expected one of whole numbers: class "
            "values."
        )
    difference = survey.grids[name].difference(grid_of(path))
    if difference:
        raise GridMismatch(
            f"scene '{name}' and its scribbles are not on one grid: {difference}. Draw them on the "
            "pixels of the scene, or resample them (gdalwarp -r near)."
        )
    declared = source.nodata
    kept = {unmarked, *survey.ignore, *([int(declared)] if declared is not None else [])}
    return tuple(sorted(kept - {*survey.legend.values}))
