"""The weak labels of a run: gathered for training, judged before it, counted for reports."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from common.domain import Findings
from common.errors import DataError
from common.splits import names_of
from common.weak_labels import ROW
from medseg_ssl.cases import VolumeCase
from medseg_ssl.hints import WeakLabels, faults, place_of
from medseg_ssl.settings import MedsegSettings
from medseg_ssl.store import Store
from medseg_ssl.weak_labels import Reading, in_words, read_hints


def weak_labels_of(settings: MedsegSettings, cases: Collection[str]) -> WeakLabels:
    """What is said of the volumes of a run.

    Raises:
        DataError: Listing everything in the files that cannot be used.
    """
    read = _read(settings, cases)
    if read.problems:
        raise DataError.listing("domain.weak_labels", read.problems)
    files = settings.weak_labels
    return WeakLabels(
        classes=tuple(settings.legend(cases).classes),
        by_case=read.by_case,
        tell_voxels_apart=bool(files and (files.boxes or files.points or files.scribbles)),
    )


def check_weak_labels(
    settings: MedsegSettings, unlabeled: Sequence[VolumeCase], cases: Collection[str], store: Store
) -> Findings:
    """What training would stumble over in the weak labels of ``unlabeled``, which are sound."""
    read = _read(settings, cases)
    names = [case.id for case in unlabeled]
    warnings = []
    if not {*names} & {*read.by_case} and not read.problems:
        warnings.append(
            "domain.weak_labels says nothing of any unlabeled case, so it changes nothing."
        )
    said = [(case, read.by_case[case.id]) for case in unlabeled if case.id in read.by_case]
    classes, problems = settings.legend(cases).classes, [*read.problems]
    for case, hints in said:
        place = place_of(case.images, store.recipe)
        found = [f"case '{case.id}': {fault}" for fault in faults(hints, place, classes)]
        problems += found
        if hints.is_spatial and not found:
            try:
                store.class_sets(case.without_label(), hints, classes)
            except DataError as error:
                problems.append(str(error))
    facts = [(ROW, in_words(read.by_case, names))]
    return Findings(facts=facts, warnings=warnings, problems=problems)


def facts_of(said: WeakLabels, settings: MedsegSettings) -> list[tuple[str, str]]:
    """What a report says of them: one row, where the run has some."""
    unlabeled = names_of(settings.splits, "unlabeled")
    return [(ROW, in_words(said.by_case, unlabeled))] if settings.weak_labels else []


def files_of(said: WeakLabels, settings: MedsegSettings) -> Iterator[Path]:
    """Every file that says something of the unlabeled volumes of a run."""
    if files := settings.weak_labels:
        yield from (path for path in (files.tags, files.boxes, files.points) if path)
        for case in names_of(settings.splits, "unlabeled"):
            if case in said.by_case and (drawn := said.by_case[case].scribble):
                yield drawn.path


def _read(settings: MedsegSettings, cases: Collection[str]) -> Reading:
    if settings.weak_labels is None:
        return Reading({}, [])
    return read_hints(settings.weak_labels, settings.data, settings.legend(cases))
