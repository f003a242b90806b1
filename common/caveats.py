"""What a reader must know before trusting a number: the warnings of a report."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import pandas as pd

from common.curves import Log
from common.display import percent, plural, some
from common.record import Diagnosis, Evaluation, Look

FEW_GROUPS = 10
SEEN = {
    "labeled": "These cases were trained on, so the numbers say how well they were learned, not "
    "how well others will be segmented.",
    "unlabeled": "The images of these cases, though not their labels, were seen in training: the "
    "numbers are those of a transductive setting.",
    "validation": "The best checkpoint was chosen on these cases, so the numbers lean to the "
    "bright side. Evaluate split 'test' for a number to quote.",
}
"""Why a split other than test is no fair judge."""


RATHER_OFTEN = 3
"""Times more, or less, than in labeled cases: a class that drifted."""
NOTHING = 0.0005
"""Shares below are shown as 0.0 %."""


def caveats(
    found: Evaluation,
    cases: pd.DataFrame,
    summary: pd.DataFrame,
    log: Log,
    diagnosis: Diagnosis | None = None,
) -> list[str]:
    """One sentence or two for each thing that could mislead; the domain's own come last."""
    headline = summary[
        (summary["metric"] == found.headline[0]) & (summary["class"] == found.headline[1])
    ]
    return [
        *([SEEN[found.split]] if found.split in SEEN else []),
        *_about_groups(found, known=bool(headline["low"].notna().any())),
        *_about_cases(found),
        *_about_structures(cases),
        *alarms(found.classes, log, diagnosis),
        *_about_pseudo_labels(found),
        *found.warnings,
    ]


def alarms(classes: Sequence[Look], log: Log, diagnosis: Diagnosis | None) -> list[str]:
    """How pseudo-labels collapsed while training, as far as the log and a diagnosis know."""
    return [
        *_about_coverage(log, diagnosis),
        *_about_filter(classes, log),
        *_about_vanished(classes, log),
        *_about_agreement(log),
        *(_about_drift(diagnosis, log) if diagnosis else ()),
    ]


def _about_groups(found: Evaluation, *, known: bool) -> Iterator[str]:
    if found.groups < 2:
        yield (
            "There are no intervals: all cases belong to one group (patient or spatial block), "
            "and one group says nothing about the spread between groups."
        )
    elif not known:
        yield (
            "The headline has no interval: it is defined in fewer than two groups (patients or "
            "spatial blocks)."
        )
    elif found.groups < FEW_GROUPS:
        yield (
            f"The intervals rest on {found.groups} groups (patients or spatial blocks) only and "
            "are likely too narrow."
        )


def _about_cases(found: Evaluation) -> Iterator[str]:
    if found.unmeasured:
        count = plural(len(found.unmeasured), "case")
        yield (f"{count} without a label, predicted but not measured: {some([*found.unmeasured])}.")
    undefined = [case for case, score in found.scores.items() if score is None]
    if undefined:
        yield (
            f"The headline is not defined in {plural(len(undefined), 'case')}, which the ranking "
            f"leaves out: {some(undefined)}."
        )


def _about_structures(cases: pd.DataFrame) -> Iterator[str]:
    """Classes that were overlooked, or made up, in whole cases."""
    happened = {
        "missed": "was missed altogether in {} that hold it: {}.",
        "spurious": "was found in {} that do not hold it: {}.",
    }
    total = cases["case"].nunique()
    for metric, sentence in happened.items():
        hit = cases[(cases["metric"] == metric) & (cases["value"] > 0) & (cases["class"] != "")]
        for name in hit["class"].unique():
            names = hit[hit["class"] == name]["case"].tolist()
            count = f"{len(names)} of {plural(total, 'case')}"
            yield f"Class '{name}' {sentence.format(count, some(names))}"


def _about_coverage(log: Log, diagnosis: Diagnosis | None) -> Iterator[str]:
    """A filter that kept nothing, or everything though it is there to drop something."""
    coverage = log.get("coverage")
    if not coverage:
        return
    if all(value < NOTHING for _, value in coverage):
        yield (
            f"The filter kept {percent(0.0)} of all unlabeled pixels in {_steps(coverage)}: no "
            "pseudo-label taught anything. Lower its threshold, or look at why the network is "
            "never sure."
        )
    drops = diagnosis is not None and not diagnosis.filter.startswith("all")
    if drops and all(value > 1 - NOTHING for _, value in coverage):
        yield (
            f"The filter kept {percent(1.0)} of all unlabeled pixels in {_steps(coverage)}: it "
            "dropped nothing, so what is wrong was taught as well. Raise its threshold."
        )


def _about_agreement(log: Log) -> Iterator[str]:
    """Networks that have nothing left to teach each other."""
    agreement = log.get("held_out_agreement", ())
    if agreement and agreement[-1][1] > 1 - NOTHING:
        yield (
            f"At step {agreement[-1][0]:,g} teacher and student (or all peers) name the same "
            f"class for {percent(1.0)} of the pixels of validation cases: neither corrects the "
            "other any more. Make their views differ more, or lower the decay of the teacher."
        )


def _about_filter(classes: Sequence[Look], log: Log) -> Iterator[str]:
    """Classes that no pseudo-label taught, or taught late."""
    if all(value < NOTHING for _, value in log.get("coverage", [(0, 1.0)])):
        return  # said of all of them
    for index, look in enumerate(classes):
        coverage, share = log.get(f"coverage/{index}"), log.get(f"share/{index}", ())
        if not coverage:
            continue
        steps = _steps(coverage)
        taught = [step for step, value in coverage if value >= NOTHING]
        if share and not any(value > 0 for _, value in share):
            yield (
                f"Class '{look.name}' was never predicted on unlabeled images in {steps}: no "
                "pseudo-label taught it."
            )
        elif not taught:
            yield (
                f"The filter kept {percent(0.0)} of class '{look.name}' in {steps}: no "
                "pseudo-label taught it."
            )
        elif taught[0] > coverage[0][0] + 0.2 * (coverage[-1][0] - coverage[0][0]):
            yield (
                f"The filter kept {percent(0.0)} of class '{look.name}' before step "
                f"{taught[0]:,g}: until then no pseudo-label taught it."
            )


def _about_vanished(classes: Sequence[Look], log: Log) -> Iterator[str]:
    """Classes that were predicted and then no longer."""
    for index, look in enumerate(classes):
        share = log.get(f"share/{index}", ())
        there = [step for step, value in share if value >= NOTHING]
        if there and there[-1] < share[0][0] + 0.8 * (share[-1][0] - share[0][0]):
            yield (
                f"Class '{look.name}' vanished from the predictions on unlabeled images after "
                f"step {there[-1]:,g}: pseudo-labels taught the network to forget it."
            )


def _about_drift(diagnosis: Diagnosis, log: Log) -> Iterator[str]:
    """Classes that are predicted far more or less often than they are annotated."""
    for look, prior, share in zip(
        diagnosis.classes, diagnosis.prior, last_shares(diagnosis, log), strict=False
    ):
        often, rare = share > RATHER_OFTEN * prior, RATHER_OFTEN * share < prior
        if max(share, prior) >= 0.01 and (often or rare):
            yield (
                f"Class '{look.name}' is predicted for {percent(share)} of the unlabeled pixels at "
                f"the end of training, but holds {percent(prior)} of the labeled cases. Either "
                "the pseudo-labels drifted, or unlabeled images show other things."
            )


def last_shares(diagnosis: Diagnosis, log: Log) -> list[float]:
    """How often each class is predicted in the last tenth of the log; NaN where it does not say."""
    found = []
    for index in range(len(diagnosis.classes)):
        share = [value for _, value in log.get(f"share/{index}", ())]
        last = share[-max(1, len(share) // 10) :]
        found.append(sum(last) / len(last) if last else math.nan)
    return found


def _steps(points: Sequence[tuple[float, float]]) -> str:
    return f"steps {points[0][0]:,g} to {points[-1][0]:,g}"


def _about_pseudo_labels(found: Evaluation) -> Iterator[str]:
    if found.pseudo_labels is None:
        return
    quality = found.pseudo_labels.quality
    for look, kept, right in zip(found.classes, quality.kept, quality.right, strict=True):
        precision = right / kept if kept else math.nan
        if precision < 0.5:
            yield (
                f"Most kept pseudo-labels of class '{look.name}' are wrong: {percent(precision)} "
                "of them are right."
            )
