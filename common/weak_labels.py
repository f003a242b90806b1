"""What a person said of an unlabeled case in less than a mask.

Tags name the classes of a case. A box says where a class is, and where it is not; a point and a
scribble say what a pixel is. Each does one thing: it rules classes out. A pseudo-label is then
made among those that are left, so where one is left, the pseudo-label is the truth.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from common.errors import DataError
from common.settings import Settings
from common.splits import closest

ClassIndex: TypeAlias = NDArray[np.uint8]  # (*S), rows of a table of class sets
ClassTable: TypeAlias = NDArray[np.bool_]  # (sets, K)

ROW = "weak labels"
"""What tables call them."""

MOST_SETS = 255
"""Different sets of classes in one case: their numbers fit a byte."""


class WeakLabelFiles(Settings):
    """Where the weak labels of unlabeled cases lie; each is optional.

    A path is relative to the current folder, or else to the data. A case that a file does not
    name is one that it says nothing of.
    """

    tags: Path | None = None  # .csv with columns case, class: all classes that a case shows
    boxes: Path | None = None  # a class is nowhere outside of its boxes, in cases that have some
    points: Path | None = None
    scribbles: Path | None = None
    unmarked: int = 255  # value of a scribble mask where nobody drew


Files = TypeVar("Files", bound=WeakLabelFiles)


class Hint(NamedTuple):
    """One thing that is said of some pixels of a case."""

    where: NDArray[np.bool_]  # (*S)
    classes: frozenset[int]  # that these pixels can have
    source: str  # who says so: "boxes.csv, line 7"


class ClassSets(NamedTuple):
    """The classes that each pixel of a case can have; few sets, shared by many pixels."""

    row: ClassIndex  # (*S), of the table
    table: ClassTable  # (sets, K); row 0 holds all classes


class Said(NamedTuple):
    """One line of a table of weak labels."""

    case: str
    label: int  # class index
    numbers: tuple[float, ...]  # the columns asked for, in their order
    source: str  # "points.csv, line 3"


def class_sets(
    case: str,
    shape: Sequence[int],
    hints: Iterable[Hint],
    *,
    num_classes: int,
    named: Callable[[tuple[int, ...]], str] = str,
) -> ClassSets:
    """What all ``hints`` leave to the pixels of a case: more hints leave no more.

    Args:
        case: Its name, for messages.
        shape: Of its grid.
        hints: What is said of it.
        num_classes: How many there are.
        named: What a person calls the pixel at an index, where that is not the index itself.

    Raises:
        DataError: When they leave nothing to a pixel, or are too many to tell apart.
    """
    index = np.zeros(shape, dtype=np.uint8)
    sets = [frozenset(range(num_classes))]
    for hint in hints:
        here = index[hint.where]
        change = np.arange(MOST_SETS + 1, dtype=np.uint8)
        for row in np.unique(here).tolist():
            left = sets[row] & hint.classes
            if not left:
                place = np.argwhere(hint.where & (index == row))[0].tolist()
                raise DataError(
                    f"case '{case}': {hint.source} leaves no class possible at "
                    f"{named(tuple(place))}, where other weak labels have ruled out the rest. "
                    "Correct one of them."
                )
            if left not in sets:
                if len(sets) == MOST_SETS:
                    raise DataError(
                        f"case '{case}': its boxes overlap in more than {MOST_SETS} ways. Give "
                        "fewer, or draw them as a mask."
                    )
                sets.append(left)
            change[row] = sets.index(left)
        index[hint.where] = change[here]
    table = np.array([[k in each for k in range(num_classes)] for each in sets], dtype=bool)
    return ClassSets(index, table)


def possible(sets: ClassSets) -> NDArray[np.bool_]:
    """Whether each pixel can have each class, ``(K, *S)``."""
    return np.ascontiguousarray(np.moveaxis(sets.table[sets.row], -1, 0))


def everywhere(classes: Collection[int], num_classes: int, *, dims: int) -> NDArray[np.bool_]:
    """``classes`` at every pixel alike, ``(K, 1, ...)``: a case of which only tags are known."""
    flags = np.array([each in classes for each in range(num_classes)])
    return flags.reshape(num_classes, *[1] * dims)


def only(label: int) -> frozenset[int]:
    """The pixel has this class."""
    return frozenset([label])


def all_but(label: int, num_classes: int) -> frozenset[int]:
    """The pixel has another class than this."""
    return frozenset(range(num_classes)) - {label}


def tagged(path: Path, classes: Sequence[str], cases: Collection[str]) -> dict[str, frozenset[int]]:
    """The class indices that each named case shows.

    Raises:
        DataError: Listing every line that cannot be used.
    """
    tags: dict[str, frozenset[int]] = {}
    for said in read_said(path, classes, cases, columns=()):
        tags[said.case] = tags.get(said.case, frozenset()) | only(said.label)
    return tags


def read_said(
    path: Path, classes: Sequence[str], cases: Collection[str], *, columns: Sequence[str]
) -> list[Said]:
    """The lines of a ``.csv`` table with the columns ``case``, ``class`` and ``columns``.

    Args:
        path: The table.
        classes: Names of the classes; the position is the class index.
        cases: Names of all cases of the data.
        columns: Further ones to read, each of finite numbers.

    Raises:
        DataError: Listing every line that cannot be used, and what is wrong with it.
    """
    found: list[Said] = []
    problems: list[str] = []
    for line, row in _rows(path, ("case", "class", *columns)):
        try:
            numbers = [_number(row[column], column) for column in columns]
            case = _known(row["case"], "case", cases)
            label = [*classes].index(_known(row["class"], "class", classes))
        except ValueError as error:
            problems.append(f"line {line}: {error}")
            continue
        found.append(Said(case, label, tuple(numbers), f"{path.name}, line {line}"))
    if problems:
        raise DataError.listing(path, problems)
    return found


def located(path: Path, data: Path) -> Path:
    """``path`` from the current folder, or else from the data; absolute.

    Raises:
        DataError: When it is in neither place.
    """
    folder = data if data.is_dir() else data.parent
    for place in (path.expanduser(), folder.expanduser() / path):
        if place.exists():
            return place.absolute()
    raise DataError(f"weak labels {path} are neither in the current folder nor in {folder}.")


def all_located(files: Files | None, data: Path) -> Files | None:
    """``files``, where there are some, with absolute paths.

    Raises:
        DataError: When one of them is absent.
    """
    if files is None:
        return None
    given = {"tags": files.tags, "boxes": files.boxes, "points": files.points}
    given |= {"scribbles": files.scribbles}
    found = {kind: located(path, data) for kind, path in given.items() if path}
    return files.model_copy(update=found)


def counted(cases: Mapping[str, int], unlabeled: int) -> str:
    """How many of the unlabeled cases have a weak label of which kind, in words."""
    told = ", ".join(f"{kind} of {count}" for kind, count in cases.items())
    return f"{told} of {unlabeled} unlabeled cases"


def apart(error: DataError, path: Path) -> list[str]:
    """The problems of one file, each for itself."""
    first, *rest = str(error).splitlines()
    return [f"{path.name}, {each.strip()}" for each in rest] or [first]


def header(path: Path) -> tuple[str, ...]:
    """The column names of a ``.csv`` table.

    Raises:
        DataError: When it cannot be read.
    """
    return tuple(_text(path, lambda lines: next(csv.reader(lines), [])))


def _rows(path: Path, wanted: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    def read(lines: Iterable[str]) -> list[tuple[int, dict[str, str]]]:
        reader = csv.DictReader(lines)
        missing = [name for name in wanted if name not in (reader.fieldnames or ())]
        if missing:
            raise DataError(
                f"{path} has no column {', '.join(missing)}: expected {', '.join(wanted)} in its "
                "first line."
            )
        return [
            (reader.line_num, {name: (row[name] or "").strip() for name in wanted})
            for row in reader
        ]

    yield from _text(path, read)


def _text(path: Path, read: Callable[[Iterable[str]], list]) -> list:  # type: ignore[type-arg]
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            return read(lines)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a table: {error}.") from None


def _known(name: str, what: str, known: Collection[str]) -> str:
    if name not in known:
        raise ValueError(f"there is no {what} '{name}'.{closest(name, [*known])}")
    return name


def _number(text: str, column: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{column} is '{text}', expected a number.")
    return number
