"""Which labeled cases are seen more often: those that show a class that is segmented poorly."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import fmean
from typing import NamedTuple, TypeAlias

from common.batch import Batch, Confusion
from common.domain import Domain
from common.filters import Calibrated
from common.metrics import iou

logger = logging.getLogger("seg_ssl")

Shown: TypeAlias = Mapping[str, frozenset[int]]
"""The classes that each labeled case shows, by its id."""


class Poor(NamedTuple):
    """A class that held-out cases show to be segmented worse than classes are on average."""

    label: int
    iou: float
    mean: float  # IoU over classes
    extra: int  # times that a labeled case which shows it is seen more


def poor_classes(found: Confusion, factor: float, *, background: int | None) -> tuple[Poor, ...]:
    """Classes whose IoU is below the mean over classes, and how often they ask to be seen [1].

    A class asks for ``ceil(factor * (mean - IoU))`` times more. Neither poor nor part of the mean
    are the background, and a class that the truth of the held-out cases lacks: of how well that
    is segmented, they say nothing.

    Args:
        found: Pixels of held-out cases by truth and prediction; without any, no class is poor.
        factor: lambda, 10 in [1]; 0 asks for nothing.
        background: Which class is no object of its own, where there is one.

    [1] CAFS, 2023, class-wise oversampling, after its released code.
    """
    present = found.sum(dim=1) > 0
    judged = {
        label: value
        for label, value in enumerate(iou(found).tolist())
        if present[label] and label != background
    }
    if not judged:
        return ()
    mean = fmean(judged.values())
    asked = {
        label: math.ceil(round(factor * (mean - value), 9))  # 3.0000000000000004 asks for 3
        for label, value in judged.items()
    }
    return tuple(Poor(k, judged[k], mean, extra) for k, extra in asked.items() if extra > 0)


def extra_times(poor: Sequence[Poor], shown: Shown) -> dict[str, int]:
    """How many times more each labeled case is seen: the sum over the poor classes it shows."""
    return {case: sum(p.extra for p in poor if p.label in own) for case, own in shown.items()}


def in_words(poor: Sequence[Poor], shown: Shown, classes: Sequence[str]) -> str:
    """Which classes are poor and what follows from it, in one line."""
    counts = [sum(each.label in own for own in shown.values()) for each in poor]
    told = [
        f"{classes[p.label]} (IoU {p.iou:.2f} below {p.mean:.2f}), "
        + (f"its {_cases(count)} seen {_times(p.extra)} more" if count else "which none shows")
        for p, count in zip(poor, counts, strict=True)
    ]
    end = ""
    if any(counts) and len({*extra_times(poor, shown).values()}) == 1:
        end = "; all labeled cases alike, so that this changes nothing"
    return "; ".join(told) + end


def facts(domain: Domain, keep: object) -> list[tuple[str, str]]:
    """What a report says of oversampling, as ``keep`` last saw the held-out cases."""
    poor = _poor(keep, domain.task.background)
    return [("poor classes", in_words(poor, domain.shown(), domain.task.classes))] if poor else []


def batches(
    domain: Domain, keep: object, *, seed: int, aloud: bool
) -> Callable[[int], Iterator[Batch]]:
    """From a first step to all batches from there on, as ``keep`` then stands.

    Args:
        domain: Where batches come from. What labeled cases show is asked only if a class is poor.
        keep: The live filter, which may know of poor classes.
        seed: Of this process.
        aloud: Whether this process speaks for all.
    """

    def from_step(first_step: int) -> Iterator[Batch]:
        poor = _poor(keep, domain.task.background)
        shown = domain.shown() if poor else {}
        if poor and aloud:
            _tell(poor, shown, domain.task.classes)
        return domain.batches(seed=seed, first_step=first_step, extra=extra_times(poor, shown))

    return from_step


def _poor(keep: object, background: int | None) -> tuple[Poor, ...]:
    if not isinstance(keep, Calibrated) or keep.confusion is None:
        return ()
    return poor_classes(keep.confusion.cpu(), keep.filter.oversampling, background=background)


def _tell(poor: Sequence[Poor], shown: Shown, classes: Sequence[str]) -> None:
    logger.info("poor classes: %s.", in_words(poor, shown, classes))
    missing = [classes[p.label] for p in poor if not any(p.label in own for own in shown.values())]
    if missing:
        logger.warning(
            "no labeled case shows %s, so nothing teaches what held-out cases show to be missing. "
            "Label a case that shows it.",
            ", ".join(missing),
        )


def _cases(count: int) -> str:
    return f"{count} labeled cases are" if count > 1 else "1 labeled case is"


def _times(count: int) -> str:
    return f"{count} times" if count > 1 else "once"
