"""Does tidying up a prediction help? Asked of validation cases, never of test cases."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from common import evaluate
from common.adapter import Adapter
from common.batch import Pixel
from common.comparison import paired
from common.domain import Domain
from common.errors import DataError
from common.refiners import AnyRefiner, FillHoles, LargestComponent, Majority
from common.together import Asking, all_restored, answer, refined

Refiners = tuple[AnyRefiner, ...]

SEED = 0
"""Of the bootstrap."""


class Tried(NamedTuple):
    """Predictions after some refiners, against what they were before."""

    refiners: Refiners
    value: float  # the headline over the validation cases
    difference: float
    low: float  # of the 95 % interval of the difference; NaN of a single patient or block
    high: float

    @property
    def helps(self) -> bool:
        """Whether the whole interval is on the better side."""
        return self.low > 0


class Choice(NamedTuple):
    """What was tried, and what it is worth."""

    runs: Sequence[str]
    headline: tuple[str, str]
    cases: int
    groups: int
    before: float  # the headline of predictions as they are
    tried: Sequence[Tried]

    @property
    def best(self) -> Tried | None:
        """The best of those that help; None where none does."""
        helpful = (each for each in self.tried if each.helps)
        return max(helpful, key=lambda each: each.value, default=None)


def postprocess(
    folders: Sequence[Path],
    adapter: Adapter,
    *,
    watch: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Choice:
    """Predict the validation cases, and measure them after each of :func:`candidates`.

    A refiner is only chosen where the interval of its gain, for which patients (or blocks) are
    drawn again, lies above 0. Several candidates are looked at, so one may still do so by luck.

    Args:
        folders: A run, or several that predict together.
        adapter: Of their domain.
        watch: Hears of progress.

    Raises:
        DataError: When there is no validation case with a label.
        RunError: When a run has not finished, or runs differ in their classes.
    """
    first, *_ = runs = all_restored(folders, adapter)
    domain = first.domain
    cases = [case for case in domain.cases("validation") if case.truth is not None]
    if not cases:
        raise DataError(
            f"run '{folders[0]}' has no validation case with a label, and nothing is chosen on "
            "others. Name some in domain.splits.validation, and train."
        )
    ways = candidates(domain.pixel)
    rows: Mapping[Refiners, list[pd.DataFrame]] = {way: [] for way in ((), *ways)}
    for number, case in enumerate(cases, start=1):
        probs = answer(runs, Asking(), case)
        for way, own in rows.items():
            probs_after = refined(first, Asking(refiners=way), probs, case)
            own.append(evaluate.rows(domain, case, probs_after, "validation"))
        watch(case.id, number, len(cases))
    before, *after = (pd.concat(own, ignore_index=True) for own in rows.values())
    groups = before.drop_duplicates("case")["group"].tolist()
    return Choice(
        runs=[folder.name for folder in folders],
        headline=domain.headline,
        cases=len(cases),
        groups=len({*groups}),
        before=float(domain.summarize(evaluate.table(before))[domain.headline]),
        tried=[
            _held_against(domain, way, before, own, groups)
            for way, own in zip(ways, after, strict=True)
        ],
    )


def candidates(pixel: Pixel) -> list[Refiners]:
    """What is tried: the largest piece, no holes, both, and the majority of the neighbors.

    Args:
        pixel: The majority is that of all within one and a half times its longest side.
    """
    radius = float(f"{1.5 * max(pixel.size or (1.0,)):.3g}")
    one_piece, no_holes = LargestComponent(), FillHoles()
    return [(one_piece,), (no_holes,), (one_piece, no_holes), (Majority(radius=radius),)]


def _held_against(
    domain: Domain, way: Refiners, before: pd.DataFrame, after: pd.DataFrame, groups: list[str]
) -> Tried:
    tables = evaluate.table(before), evaluate.table(after)
    a, b, ends = paired(domain, *tables, groups, seed=SEED)
    here = domain.headline
    low, high = (float(ends[end][here]) for end in ("low", "high"))
    return Tried(way, float(b[here]), float(b[here] - a[here]), low, high)
