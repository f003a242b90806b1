"""Who trains with a label, who without, and who judges."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from common.errors import ConfigError, DataError
from common.settings import Settings

FOLDS = 3
"""Tells the draws of folds from others of the same seed."""

SPLITS = ("labeled", "unlabeled", "validation", "test")
Names = tuple[str, ...]


class Splits(Settings):
    """Case names, spelled out or in a text file with one name per line.

    In a text file, empty lines and lines that begin with ``#`` say nothing.
    """

    labeled: Names | Path
    unlabeled: Literal["rest"] | Names | Path = "rest"  # rest: all cases named nowhere else
    validation: Names | Path = ()  # chooses the best checkpoint
    test: Names | Path = ()  # looked at once, at the end


@dataclass(frozen=True, slots=True)
class Known:
    """What a split must know of a case."""

    name: str
    group: str  # the patient or the spatial block
    annotated: bool


@dataclass(frozen=True, slots=True)
class Resolved:
    """Names in place of files and of ``rest``, and what is wrong with them."""

    splits: Splits
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def names(self, split: str) -> Names:
        """The case names of one split."""
        return names_of(self.splits, split)


class OneOf(NamedTuple):
    """One of several parts, counted from 1."""

    number: int = 1
    of: int = 1

    @classmethod
    def read(cls, text: str, option: str) -> OneOf:
        """Of ``"2/4"``.

        Args:
            text: As it was typed.
            option: Where; for the error.

        Raises:
            ConfigError: When it is something else.
        """
        match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
        if match and 1 <= int(match[1]) <= int(match[2]):
            return cls(int(match[1]), int(match[2]))
        raise ConfigError(f"{option} {text}: give one of several parts, such as 2/4.")


def fold(size_of: Mapping[str, int], one: OneOf, *, seed: int) -> set[str]:
    """The groups in one of several folds, which hold about equally many cases.

    Every group is in one fold. The largest are dealt first, equally large ones in random order,
    each to the fold that has fewest cases so far.

    Args:
        size_of: How many cases each group has.
        one: Which fold, of how many.
        seed: Of the order.

    Raises:
        DataError: When there are more folds than groups.
    """
    if len(size_of) < one.of:
        raise DataError(
            f"{one.of} folds cannot be made of {len(size_of)} patients or blocks with a label. Ask "
            "for fewer."
        )
    names = sorted(size_of)
    shuffled = [
        names[int(index)] for index in np.random.default_rng((seed, FOLDS)).permutation(len(names))
    ]
    held, cases = [set[str]() for _ in range(one.of)], [0] * one.of
    for name in sorted(shuffled, key=lambda name: -size_of[name]):
        least = cases.index(min(cases))
        held[least].add(name)
        cases[least] += size_of[name]
    return held[one.number - 1]


def names_of(splits: Splits, split: str) -> Names:
    """The case names of one split of resolved ``splits``."""
    found = getattr(splits, split)
    assert isinstance(found, tuple), "resolve the splits first"
    return found


def resolve(splits: Splits, known: Sequence[Known]) -> Resolved:
    """Replace files by their names and ``rest`` by the cases that are named nowhere else.

    A case stays out of ``rest``, with a warning, where validation or test holds another case
    of its group: what is judged must not be trained on.
    """
    problems: list[str] = []
    named = {split: _read(splits, split, problems) for split in SPLITS}
    problems += _wrong_names(named, [case.name for case in known])
    warnings: list[str] = []
    if splits.unlabeled == "rest":
        named["unlabeled"] = _rest(named, known, warnings)
    problems += _overlaps(named)
    problems += _leaks(named, {case.name: case.group for case in known})
    problems += _without_label(named, known)
    return Resolved(Splits(**named), tuple(problems), tuple(warnings))


def read_names(path: Path) -> Names:
    """The names in a text file, one per line.

    Raises:
        DataError: When the file cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as a list of case names: {error}.") from None
    stripped = (line.strip() for line in lines)
    return tuple(line for line in stripped if line and not line.startswith("#"))


def all_annotated(names: Names, annotated: Sequence[str], *, source: Path) -> Names:
    """``names``, where each is an annotated case.

    Raises:
        DataError: Naming every other one in the file ``source``.
    """
    wrong = [name for name in names if name not in annotated]
    if wrong:
        lines = [
            f"the data holds no case '{name}' with a label.{closest(name, annotated)}"
            for name in wrong
        ]
        raise DataError.listing(source, lines)
    return names


def closest(wrong: str, known: Sequence[str]) -> str:
    """``" Did you mean ...?"`` where some known name is near, else nothing."""
    close = difflib.get_close_matches(wrong, known, n=1)
    return f" Did you mean '{close[0]}'?" if close else ""


def listed(names: Sequence[str], most: int = 5) -> str:
    """Some names, and how many more there are."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _read(splits: Splits, split: str, problems: list[str]) -> Names:
    given = getattr(splits, split)
    if given == "rest":
        return ()
    if isinstance(given, tuple):
        return given
    try:
        return read_names(given)
    except DataError as error:
        problems.append(f"splits.{split}: {error}")
        return ()


def _wrong_names(named: dict[str, Names], known: Sequence[str]) -> list[str]:
    problems, exists = [], set(known)
    for split, names in named.items():
        twice = sorted(name for name, count in Counter(names).items() if count > 1)
        if twice:
            problems.append(f"splits.{split} names {listed(twice)} more than once. Name it once.")
        unknown = [name for name in dict.fromkeys(names) if name not in exists]
        if len(unknown) > 5:
            problems.append(
                f"splits.{split}: the data holds no case {listed(unknown)}."
                f"{closest(unknown[0], known)}"
            )
        else:
            problems += [
                f"splits.{split}: the data holds no case '{name}'.{closest(name, known)}"
                for name in unknown
            ]
    if not named["labeled"]:
        problems.append(
            "splits.labeled names no case: training needs at least one case with a label."
        )
    return problems


def _rest(named: dict[str, Names], known: Sequence[Known], warnings: list[str]) -> Names:
    taken = {name for names in named.values() for name in names}
    judged = {*named["validation"], *named["test"]}
    held = {case.group for case in known if case.name in judged}
    free = [case for case in known if case.name not in taken]
    barred = [case.name for case in free if case.group in held]
    if barred:
        warnings.append(
            f"left out of splits.unlabeled, because validation or test holds another case of the "
            f"same group: {listed(barred)}."
        )
    return tuple(case.name for case in free if case.group not in held)


def _overlaps(named: dict[str, Names]) -> list[str]:
    homes: dict[str, list[str]] = {}
    for split, names in named.items():
        for name in dict.fromkeys(names):
            homes.setdefault(name, []).append(split)
    return [
        f"case '{name}' is in splits {' and '.join(splits)}. Keep it in one."
        for name, splits in homes.items()
        if len(splits) > 1
    ]


def _leaks(named: dict[str, Names], group_of: dict[str, str]) -> list[str]:
    """Groups with cases on two sides of training, validation and test."""
    sides: dict[str, dict[str, str]] = {}
    for split, names in named.items():
        side = "training" if split in ("labeled", "unlabeled") else split
        for name in names:
            if name in group_of:
                sides.setdefault(group_of[name], {}).setdefault(side, name)
    problems = []
    for group, by_side in sides.items():
        if len(set(by_side.values())) > 1:
            cases = " and ".join(f"'{name}' in {side}" for side, name in by_side.items())
            problems.append(
                f"group '{group}' (one patient or block) is on two sides: {cases}. "
                "Keep all its cases on one."
            )
    return problems


def _without_label(named: dict[str, Names], known: Sequence[Known]) -> list[str]:
    bare = {case.name for case in known if not case.annotated}
    problems = []
    for split in ("labeled", "validation", "test"):
        missing = [name for name in named[split] if name in bare]
        if missing:
            problems.append(
                f"splits.{split} needs labels, but these cases have none: {listed(missing)}. "
                "Add their label files, or move them to splits.unlabeled."
            )
    return problems
