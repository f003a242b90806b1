"""What pseudo-labels are worth, class by class, on annotated cases that taught nothing."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor, nn

from common.batch import IGNORE, Grid, PerClass, Pixel, Reliability, TrustMap
from common.calibration import (
    calibration_error,
    coarser,
    from_each_step,
    reliability,
    threshold_for,
)
from common.display import share
from common.distances import border_distance
from common.domain import Case, Domain, Split, Watch
from common.errors import DataError
from common.hidden_truth import (
    Seen,
    Trust,
    annotated,
    judge_pseudo_labels,
    look,
    quality,
)
from common.metrics import PseudoQuality, pseudo_quality
from common.record import (
    Diagnosis,
    Held,
    Look,
    PseudoLabels,
    read_diagnosis,
    write_whole,
)

BINS = 1000
"""Steps of confidence in which pixels are counted: a threshold is exact to 0.001."""
DIAGRAM = 20
"""Steps of a reliability diagram, and of ECE."""
THRESHOLDS = (*(step / 100 for step in range(100)), *(step / 1000 for step in range(991, 1000)))
EDGES = (2, 4, 8)
"""Where bins of distance end, in the shortest side of a pixel."""
LEAST_COVERAGE = 0.01
PRECISION = 0.95
COLUMNS = ("class", "threshold", "predicted", "kept", "right", "coverage", "precision")


class HoldOut(NamedTuple):
    """The cases that a diagnosis rests on."""

    split: Split
    cases: Sequence[Case]


def hold_out(domain: Domain) -> HoldOut | None:
    """The validation cases, else the unlabeled ones of which a truth is known; None without any."""
    splits: tuple[Split, ...] = ("validation", "unlabeled")
    for split in splits:
        cases = [*domain.cases(split)]
        if any(case.truth is not None for case in cases):
            return HoldOut(split, cases)
    return None


def diagnose(
    domain: Domain,
    network: nn.Module,
    trusted: Trust,
    *,
    precision: float = PRECISION,
    seed: int,
    watch: Watch,
) -> Diagnosis:
    """Look at no more held-out cases than an evaluation does at unlabeled ones.

    Args:
        domain: Where the cases come from.
        network: Predictor, on its device.
        trusted: The filter and the refiners of the run.
        precision: That thresholds are suggested for.
        seed: Of the choice of cases.
        watch: Hears of progress.

    Raises:
        DataError: When no case is held out and no unlabeled case has a truth.
    """
    held = hold_out(domain)
    if held is None:
        raise DataError(
            "nothing to diagnose with: this run has no validation case, and none of its unlabeled "
            "cases has a label. Name labeled cases under domain.splits.validation and train "
            "again, or add label files of unlabeled cases, which training will not read."
        )
    tally = Tally(domain, trusted.name)
    network.eval()
    for case, truth in annotated(held.cases, seed):
        tally.add(case.id, look(domain, network, trusted, case, truth))
        watch(f"diagnosis ({held.split})", len(tally.names), len(held.cases))
    return tally.diagnosis(held, precision=precision, seed=seed)


def judge_and_diagnose(
    domain: Domain, network: nn.Module, trusted: Trust, *, folder: Path, seed: int, watch: Watch
) -> PseudoLabels | None:
    """Pseudo-labels of unlabeled cases, as :func:`judge_pseudo_labels`, and a diagnosis beside.

    Where no other case is held out, both look at the same predictions. The precision is the one
    that was asked for before. Writes diagnosis.json and diagnosis.csv where there is a case to.

    Raises:
        RunError: When a file cannot be written, or the old diagnosis.json not be read.
    """
    before = read_diagnosis(folder / "diagnosis.json")
    precision = before.precision if before else PRECISION
    held, tally = hold_out(domain), Tally(domain, trusted.name)
    same = held is not None and held.split == "unlabeled"
    also = [tally.add] if same else []
    judged = judge_pseudo_labels(domain, network, trusted, seed=seed, watch=watch, also=also)
    if held is None:
        return judged
    if same:
        found = tally.diagnosis(held, precision=precision, seed=seed)
    else:
        found = diagnose(domain, network, trusted, precision=precision, seed=seed, watch=watch)
    write_diagnosis(found, folder)
    return judged


class Tally:
    """Counts pixels, case after case; what is summed over cases is never a mean of ratios."""

    def __init__(self, domain: Domain, name: str) -> None:
        self.domain, self.name = domain, name
        self.began = time.monotonic()
        self.names: list[str] = []
        self.num_classes = len(domain.task.classes)
        self.reliability = torch.zeros(3, self.num_classes, BINS, dtype=torch.float64)
        self.confusion = torch.zeros(self.num_classes, self.num_classes, dtype=torch.float64)
        self.by_distance: list[PseudoQuality] = []

    def add(self, name: str, seen: Seen) -> None:
        """Count the pixels of one more case whose truth is known."""
        self.names.append(name)
        self.reliability += reliability(seen.probs, seen.truth, bins=BINS)
        self.confusion += _kept(seen, self.num_classes)
        pixel = self.domain.pixel
        side = min(pixel.along(seen.truth.ndim))
        far = [side * edge for edge in EDGES]
        sides = seen.pixel.along(seen.truth.ndim)
        distance = border_distance(seen.truth, reach=far[-1], sides=sides)
        bins = [
            pseudo_quality(seen.guess.probs[0], seen.guess.weight[0], there)
            for there in _within(seen.truth, distance, far)
        ]
        before = self.by_distance
        self.by_distance = [a + b for a, b in zip(before, bins, strict=True)] if before else bins

    def diagnosis(self, held: HoldOut, *, precision: float, seed: int) -> Diagnosis:
        """What all pixels counted so far say together."""
        found = self.reliability
        steps = [round(each * BINS) for each in THRESHOLDS]
        pooled = found.sum(dim=1, keepdim=True)
        wanted = threshold_for(found, precision, steps=steps, least_coverage=LEAST_COVERAGE)
        names = _bin_names(self.domain.pixel)
        return Diagnosis(
            split=held.split,
            cases=tuple(self.names),
            held=len(held.cases),
            seed=seed,
            filter=self.name,
            precision=precision,
            classes=looks(self.domain),
            thresholds=THRESHOLDS,
            curves=_held(from_each_step(found)[:, :, steps]),
            diagram=_held(coarser(found, DIAGRAM)),
            errors=_known(calibration_error(coarser(found, DIAGRAM))),
            error=float(calibration_error(coarser(pooled, DIAGRAM))),
            suggested=_known(wanted),
            confusion=tuple(tuple(row) for row in self.confusion.tolist()),
            distances=tuple(map(quality, names, self.by_distance)),
            prior=_prior(self.domain, seed),
            seconds=time.monotonic() - self.began,
        )


def looks(domain: Domain) -> tuple[Look, ...]:
    """The classes, as they are drawn."""
    pairs = zip(domain.task.classes, domain.task.colors, strict=True)
    return tuple(Look(name=name, color=color) for name, color in pairs)


def write_diagnosis(found: Diagnosis, folder: Path) -> None:
    """Write diagnosis.json, and diagnosis.csv: one row per class and threshold.

    Raises:
        RunError: When a file cannot be written.
    """
    rows = [
        (look.name, at, curve.pixels[0], kept, right, share(kept, curve.pixels[0]),
         share(right, kept))
        for look, curve in zip(found.classes, found.curves, strict=True)
        for at, kept, right in zip(found.thresholds, curve.pixels, curve.right, strict=True)
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=list(COLUMNS)).to_csv(index=False)
    write_whole(folder / "diagnosis.csv", table)
    write_whole(folder / "diagnosis.json", found.model_dump_json(indent=1) + "\n")


def _kept(seen: Seen, num_classes: int) -> Tensor:
    """Trust ``(K, K)`` by truth (rows) and prediction (columns)."""
    known = seen.truth != IGNORE
    label, weight = seen.guess.predicted[0][known], seen.guess.weight[0][known].double()
    pairs = seen.truth[known] * num_classes + label
    kept = torch.bincount(pairs, weight, num_classes**2).double()
    return kept.view(num_classes, num_classes)


def _within(truth: Grid, distance: TrustMap, far: Sequence[float]) -> list[Grid]:
    """``truth`` in each bin of distance, IGNORE elsewhere."""
    edges = torch.tensor([1e-6, *(edge * (1 + 1e-5) for edge in far)])
    index = torch.bucketize(distance, edges)
    return [torch.where(index == each, truth, IGNORE) for each in range(len(edges) + 1)]


def _bin_names(pixel: Pixel) -> list[str]:
    side = min(pixel.size, default=1.0)
    ends = [f"{side * edge:.3g}" for edge in EDGES]
    unit = {"pixel": "pixels"}.get(pixel.unit, pixel.unit)
    between = [f"{low} to {high} {unit}" for low, high in itertools.pairwise(ends)]
    return ["at a border", f"to {ends[0]} {unit}", *between, f"beyond {ends[-1]} {unit}"]


def _prior(domain: Domain, seed: int) -> tuple[float, ...]:
    """The share of each class in the annotated pixels of labeled cases."""
    counts = torch.zeros(IGNORE + 1, dtype=torch.int64)
    for _, truth in annotated([*domain.cases("labeled")], seed):
        counts += torch.bincount(truth.flatten(), minlength=IGNORE + 1)
    of_classes = counts[: len(domain.task.classes)]
    total = int(of_classes.sum())
    return tuple((of_classes / total).tolist()) if total else ()


def _held(found: Reliability) -> tuple[Held, ...]:
    return tuple(
        Held(pixels=tuple(pixels), right=tuple(right), confidence=tuple(confidence))
        for pixels, right, confidence in found.transpose(0, 1).tolist()
    )


def _known(values: PerClass) -> tuple[float | None, ...]:
    return tuple(value if math.isfinite(value) else None for value in values.tolist())
