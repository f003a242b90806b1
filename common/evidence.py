"""From a diagnosis and a log to the tables and charts that show what pseudo-labels are worth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from common.caveats import last_shares
from common.charts import Chart, Series, line_chart, share_chart
from common.curves import Log
from common.display import percent, share
from common.paints import QUIET, of_class, of_palette
from common.record import Diagnosis, Held, Look, Quality
from common.tables import ConfusionTable

NEVER = 1.0
"""The threshold of a class that never has the precision asked for: only certainty passes."""
LEAST_PIXELS = 30
"""Fewer make no dot of a reliability diagram."""


WHERE = {
    "validation": "These labeled cases taught nothing, but chose the checkpoint: numbers lean to "
    "the bright side.",
    "unlabeled": "There is no validation case, so the truth of unlabeled cases was read. Training "
    "never reads it; who sets thresholds by it uses labels that the run claims not to have.",
}
"""What must be known of the cases of a diagnosis, by their split."""


class ClassEvidence(NamedTuple):
    """One class, or all together."""

    name: str
    look: Look | None
    predicted: float  # share of all predicted pixels
    error: float  # ECE
    precision: float  # with all of them kept
    threshold: float | None  # suggested; None: none has the precision
    coverage: float  # from the threshold on
    reached: float  # precision there


class Drift(NamedTuple):
    """How often a class is annotated and predicted."""

    look: Look
    prior: float
    first: float
    last: float


class Bin(NamedTuple):
    """What is kept at some distance to a border: all classes together, then each."""

    name: str
    shares: Sequence[tuple[float, float, float]]  # of all kept pixels; coverage; precision


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that a report says of a diagnosis."""

    found: Diagnosis
    where: str  # what must be known of the cases
    rows: Sequence[ClassEvidence]
    yaml: str
    charts: Sequence[Chart]
    confusion: ConfusionTable
    bins: Sequence[Bin]
    drift: Sequence[Drift]
    drift_chart: Chart | None


def evidence(found: Diagnosis, log: Log) -> Evidence:
    """What ``found`` says, beside what happened while training."""
    return Evidence(
        found=found,
        where=WHERE[found.split],
        rows=class_rows(found),
        yaml=yaml_of(found),
        charts=[_precision_chart(found), _reliability_chart(found)],
        confusion=_confusion(found),
        bins=[_bin(each, found) for each in found.distances],
        drift=_drift(found, log),
        drift_chart=_drift_chart(found, log),
    )


def class_rows(found: Diagnosis) -> list[ClassEvidence]:
    """Each class: how often predicted, how well calibrated, and from where on to be believed."""
    total = sum(curve.pixels[0] for curve in found.curves)
    rows = []
    for index, (look, curve) in enumerate(zip(found.classes, found.curves, strict=True)):
        error, best = found.errors[index], found.suggested[index]
        at = None if best is None else found.thresholds.index(best)
        pixels, right = (0.0, 0.0) if at is None else (curve.pixels[at], curve.right[at])
        rows.append(
            ClassEvidence(
                look.name,
                look,
                share(curve.pixels[0], total),
                math.nan if error is None else error,
                share(curve.right[0], curve.pixels[0]),
                best,
                math.nan if at is None else share(pixels, curve.pixels[0]),
                share(right, pixels),
            )
        )
    return rows


def yaml_of(found: Diagnosis) -> str:
    """The filter of the suggested thresholds, to paste into a config."""
    values = [NEVER if each is None else each for each in found.suggested]
    names = [" ".join(look.name.split()) for look in found.classes]
    width = max(len(f"{value:g},") for value in values)
    said = ["" if each is not None else ": none has it" for each in found.suggested]
    lines = [
        f"      {f'{value:g},':<{width}}  # {name}{why}"
        for value, name, why in zip(values, names, said, strict=True)
    ]
    head = ["method:", "  filter:", "    name: class_confidence", "    thresholds: ["]
    return "\n".join([*head, *lines, "    ]"])


def _precision_chart(found: Diagnosis) -> Chart:
    def series(look: Look, curve: Held) -> Series:
        points = [
            (share(kept, curve.pixels[0]), share(right, kept))
            for kept, right in zip(curve.pixels, curve.right, strict=True)
            if kept > 0
        ]
        return Series(look.name, of_class(look.color), points[::-1], percent(points[0][1]))

    known = [each for each in zip(found.classes, found.curves, strict=True) if each[1].pixels[0]]
    return share_chart(
        "Precision over coverage",
        "What is right of the pixels kept, as a threshold on confidence falls from left to right "
        "and keeps more of the pixels predicted as each class.",
        [series(*each) for each in known],
        x_label="coverage: share of the class that is kept",
        legend="With all kept:",
        asked=found.precision,
    )


def _reliability_chart(found: Diagnosis) -> Chart:
    def series(look: Look, held: Held, error: float | None) -> Series:
        bins = zip(held.pixels, held.right, held.confidence, strict=True)
        points = [
            (confidence / pixels, right / pixels)
            for pixels, right, confidence in bins
            if pixels >= LEAST_PIXELS
        ]
        return Series(look.name, of_class(look.color), points, percent(error))

    promised = Series("as promised", QUIET, [(0.0, 0.0), (1.0, 1.0)], " ")
    known = zip(found.classes, found.diagram, found.errors, strict=True)
    return share_chart(
        "Reliability",
        "What is right of the pixels predicted with each confidence. On the dashed line "
        "confidence keeps its promise; below it, the network is too sure of itself. "
        f"Dots of fewer than {LEAST_PIXELS} pixels are left out.",
        [*(series(*each) for each in known if any(each[1].pixels)), promised],
        x_label="confidence: largest class probability",
        legend="Calibration error:",
    )


def _confusion(found: Diagnosis) -> ConfusionTable:
    rows = [[round(each) for each in row] for row in found.confusion]
    totals = [sum(row) for row in rows]
    return ConfusionTable(
        [(look.name, look) for look in found.classes],
        [[(n, n / (total or 1)) for n in row] for row, total in zip(rows, totals, strict=True)],
        totals,
    )


def _bin(at: Quality, found: Diagnosis) -> Bin:
    whole = [sum(values) for values in zip(*(each.kept for each in found.distances), strict=True)]
    together = (sum(at.predicted), sum(at.kept), sum(at.right), sum(whole))
    each = zip(at.predicted, at.kept, at.right, whole, strict=True)
    return Bin(
        at.name,
        [
            (share(kept, all_kept), share(kept, predicted), share(right, kept))
            for predicted, kept, right, all_kept in (together, *each)
        ],
    )


def _drift(found: Diagnosis, log: Log) -> list[Drift]:
    nothing = [(0.0, math.nan)]
    first = [log.get(f"share/{each}", nothing)[0][1] for each in range(len(found.classes))]
    last = last_shares(found, log)
    if not found.prior or all(map(math.isnan, last)):
        return []
    return [Drift(*each) for each in zip(found.classes, found.prior, first, last, strict=True)]


def _drift_chart(found: Diagnosis, log: Log) -> Chart | None:
    """Half the summed difference of both histograms, over steps; None where the log has none."""
    shares = [log.get(f"share/{index}") for index, _ in enumerate(found.classes)]
    known = [each for each in shares if each]
    if not found.prior or len(known) < len(shares):
        return None
    points = []
    for at in zip(*known, strict=True):
        apart = [abs(value - prior) for (_, value), prior in zip(at, found.prior, strict=True)]
        points.append((at[0][0], sum(apart) / 2))
    return line_chart(
        "Drift",
        "Share of the unlabeled pixels whose class would have to change for classes to be as "
        "frequent as in labeled cases.",
        [Series("drift", of_palette(0), points)],
        shows=[0.0],
    )
