"""What a reader must know before trusting a number: the warnings of a report."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pandas as pd

from common.curves import Log
from common.display import percent, plural, some
from common.record import Evaluation

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


def caveats(found: Evaluation, cases: pd.DataFrame, summary: pd.DataFrame, log: Log) -> list[str]:
    """One sentence or two for each thing that could mislead; the domain's own come last."""
    headline = summary[
        (summary["metric"] == found.headline[0]) & (summary["class"] == found.headline[1])
    ]
    return [
        *([SEEN[found.split]] if found.split in SEEN else []),
        *_about_groups(found, known=bool(headline["low"].notna().any())),
        *_about_cases(found),
        *_about_structures(cases),
        *_about_filter(found, log),
        *_about_pseudo_labels(found),
        *found.warnings,
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


def _about_filter(found: Evaluation, log: Log) -> Iterator[str]:
    """Classes that no pseudo-label taught, or taught late."""
    for index, look in enumerate(found.classes):
        coverage, share = log.get(f"coverage/{index}"), log.get(f"share/{index}", ())
        if not coverage:
            continue
        steps = f"steps {coverage[0][0]:,g} to {coverage[-1][0]:,g}"
        taught = [step for step, value in coverage if value >= 0.0005]
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
