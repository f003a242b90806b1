"""Drawing lots: which annotated cases keep their label, and which are held out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from common.adapter import Wish
from common.errors import DataError
from common.sampling import generator
from common.splits import Known, Names, OneOf, all_annotated, fold, read_names


@dataclass(frozen=True, slots=True)
class Drawn:
    """The case names of each split."""

    labeled: Names
    validation: Names
    test: Names
    unlabeled: Literal["rest"] | Names
    has_unlabeled: bool


def draw(known: Sequence[Known], wish: Wish, *, given: Mapping[str, Names]) -> Drawn:
    """Divide the cases as ``wish`` says, all cases of one group on one side.

    Splits that a manifest gives are kept. The test cases are drawn first, so asking for more
    labeled cases leaves the test as it is, and the labeled cases of a smaller wish are among
    those of a larger one.

    Raises:
        DataError: When there are not enough annotated cases, or a named one is not there.
    """
    fixed = dict(given)
    if isinstance(wish.labeled, Path):
        fixed["labeled"] = all_annotated(
            read_names(wish.labeled),
            [case.name for case in known if case.annotated],
            source=wish.labeled,
        )
    annotated = [case for case in known if case.annotated]
    taken = {name for split, names in fixed.items() if split != "unlabeled" for name in names}
    held = {case.group for case in known if case.name in taken}
    free = _shuffled([case for case in annotated if case.group not in held], wish.seed)

    test = fixed.get("test")
    if test is None:
        test, free = _tested(free, wish, count=len(annotated))
    validation = fixed.get("validation")
    if validation is None:
        validation, free = _take(free, wish.validation)
    labeled = fixed.get("labeled")
    if labeled is None:
        labeled = tuple(case.name for case in free)
        if isinstance(wish.labeled, int):
            labeled = labeled[: wish.labeled]
    _require(labeled, wish, available=len(free))
    judged = {case.group for case in known if case.name in {*test, *validation}}
    used = {*labeled, *test, *validation}
    rest = [case for case in known if case.name not in used and case.group not in judged]
    unlabeled = fixed.get("unlabeled", "rest")
    return Drawn(
        labeled=tuple(sorted(labeled)),
        validation=tuple(sorted(validation)),
        test=tuple(sorted(test)),
        unlabeled=unlabeled if isinstance(unlabeled, tuple) else "rest",
        has_unlabeled=bool(rest) if unlabeled == "rest" else bool(unlabeled),
    )


def _require(labeled: Names, wish: Wish, *, available: int) -> None:
    wanted = wish.labeled if isinstance(wish.labeled, int) else 1
    if len(labeled) < max(wanted, 1):
        raise DataError(
            f"{max(wanted, 1)} labeled cases were asked for, but after test and validation "
            f"{available} annotated cases are left. Ask for fewer, or hold out less."
        )


def _shuffled(cases: Sequence[Known], seed: int) -> list[Known]:
    """Groups in random order, the cases of each side by side."""
    groups: dict[str, list[Known]] = {}
    for case in sorted(cases, key=lambda case: case.name):
        groups.setdefault(case.group, []).append(case)
    order = generator(seed).permutation(len(groups))
    in_order = [*groups.values()]
    return [case for index in order for case in in_order[int(index)]]


def _tested(free: list[Known], wish: Wish, *, count: int) -> tuple[Names, list[Known]]:
    """The test cases, and the cases of other groups; ``count`` are annotated in all."""
    if not isinstance(wish.test, OneOf):
        return _take(free, round(wish.test * count))
    held = fold(Counter(case.group for case in free), wish.test, seed=wish.seed)
    test = tuple(case.name for case in free if case.group in held)
    return test, [case for case in free if case.group not in held]


def _take(cases: list[Known], count: int) -> tuple[Names, list[Known]]:
    """The first ``count`` cases, the last group whole, and the other groups."""
    last = count
    while 0 < last < len(cases) and cases[last].group == cases[last - 1].group:
        last += 1
    return tuple(case.name for case in cases[:last]), cases[last:]
