"""Drawing lots: which scenes keep their label, and which blocks are held out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.adapter import Wish
from common.errors import DataError
from common.sampling import generator
from common.splits import Names, OneOf, all_annotated, fold, read_names
from rsseg_ssl.entries import scene_name

ENOUGH_PIXELS = 50
"""A scene shows a class where at least so many pixels have it, if any scene does."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An annotated scene: where it belongs, and what it shows."""

    name: str
    block: str
    pixels: Mapping[int, int]  # class value -> annotated, valid pixels


@dataclass(frozen=True, slots=True)
class Drawn:
    """The scene names of each split; everything else is unlabeled."""

    labeled: Names
    validation: Names
    test: Names


def draw(candidates: Sequence[Candidate], wish: Wish, *, given: Mapping[str, Names]) -> Drawn:
    """Divide annotated scenes as ``wish`` says, every block on one side.

    Splits that a manifest gives are kept. The labeled scenes show every class, as far as scenes
    and their number allow; those of a smaller wish are among those of a larger one.

    Raises:
        DataError: When there are not enough annotated scenes, or a named one is not there.
    """
    fixed = dict(given)
    if isinstance(wish.labeled, Path):
        annotated = {each.name: each for each in candidates}
        listed = tuple(scene_name(line, annotated) for line in read_names(wish.labeled))
        fixed["labeled"] = all_annotated(listed, [*annotated], source=wish.labeled)
    block_of = {each.name: each.block for each in candidates}
    taken = {name for names in fixed.values() for name in names}
    free = _outside(candidates, taken, block_of)
    test = fixed.get("test")
    if test is None:
        test = _tested(free, wish, count=len(candidates))
    free = _outside(free, test, block_of)
    validation = fixed.get("validation")
    if validation is None:
        validation = _blocks(free, wish.validation, seed=(wish.seed, 1))
    free = _outside(free, validation, block_of)
    wanted = wish.labeled if isinstance(wish.labeled, int) and "labeled" not in fixed else None
    labeled = fixed.get("labeled", _showing_every_class(free, wish.seed))[:wanted]
    if len(labeled) < max(1, wanted or 0):
        raise DataError(
            f"{max(1, wanted or 0)} labeled scenes were asked for, but after the blocks of test "
            f"and validation {len(free)} annotated scenes are left. Ask for fewer, or hold out "
            "less."
        )
    return Drawn(*(tuple(sorted(names)) for names in (labeled, validation, test)))


def _tested(free: Sequence[Candidate], wish: Wish, *, count: int) -> Names:
    """The test scenes, where ``count`` are annotated in all."""
    if not isinstance(wish.test, OneOf):
        return _blocks(free, round(wish.test * count), seed=(wish.seed, 0))
    held = fold(Counter(each.block for each in free), wish.test, seed=wish.seed)
    return tuple(each.name for each in free if each.block in held)


def _outside(
    candidates: Sequence[Candidate], names: Iterable[str], block_of: Mapping[str, str]
) -> list[Candidate]:
    """The candidates of other blocks than those of ``names``."""
    held = {block_of[name] for name in names if name in block_of}
    return [each for each in candidates if each.block not in held]


def _blocks(candidates: Iterable[Candidate], count: int, *, seed: tuple[int, int]) -> Names:
    """Whole blocks in random order, about ``count`` scenes in all."""
    members: dict[str, list[str]] = {}
    for each in sorted(candidates, key=lambda each: each.name):
        members.setdefault(each.block, []).append(each.name)
    blocks, chosen = [*members.values()], list[str]()
    if len(blocks) < 2:
        return ()
    for index in generator(*seed).permutation(len(blocks)):
        block = blocks[int(index)]
        missing = count - len(chosen)
        if missing > 0 and len(block) <= 1.5 * missing:
            chosen += block
    if count and not chosen:
        chosen = min(blocks, key=len)
    return tuple(chosen)


def _showing_every_class(candidates: Sequence[Candidate], seed: int) -> Names:
    """All names: first scenes that together show every class, rarest first; then at random."""
    by_name = sorted(candidates, key=lambda each: each.name)
    order = [by_name[int(i)] for i in generator(seed, 2).permutation(len(by_name))]
    totals: Counter[int] = Counter()
    for each in order:
        totals.update(each.pixels)
    first: dict[str, Candidate] = {}
    for value, _ in reversed(totals.most_common()):
        most = max(each.pixels.get(value, 0) for each in order)
        enough = min(ENOUGH_PIXELS, most)
        if not any(each.pixels.get(value, 0) >= enough for each in first.values()):
            found = next(each for each in order if each.pixels.get(value, 0) >= enough)
            first[found.name] = found
    rest = (each.name for each in order if each.name not in first)
    return (*first, *rest)
