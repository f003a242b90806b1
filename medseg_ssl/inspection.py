"""What is in a folder of volumes, and what is wrong with it: all of it at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from common import splits as splitting
from common.domain import Findings
from common.errors import ConfigError, DataError
from common.networks import blaming, of_peer
from common.splits import Known, Resolved, listed
from medseg_ssl.cases import VolumeCase
from medseg_ssl.catalog import Catalog
from medseg_ssl.layouts import read_catalog
from medseg_ssl.look import Look, look_at
from medseg_ssl.networks import check_patch
from medseg_ssl.preprocess import Recipe
from medseg_ssl.settings import CACHE, MedsegRun, MedsegSettings
from medseg_ssl.statements import check_weak_labels
from medseg_ssl.store import Store

NO_PATIENTS = (
    "nothing says which cases are of one patient, so each case counts as its own: where a patient "
    "has several (left and right, or visits), they may fall on both sides of a split. A manifest "
    "with the column 'patient' prevents that."
)


@dataclass(frozen=True, slots=True)
class Survey:
    """A catalog whose cases have been looked at."""

    catalog: Catalog
    looks: dict[str, Look]  # by case name

    @property
    def problems(self) -> list[str]:
        """Of the catalog, of each case by itself, and of the cases among each other."""
        own = [problem for look in self.looks.values() for problem in look.problems]
        return [*self.catalog.problems, *own, *_disagreements(self.looks)]

    @property
    def warnings(self) -> list[str]:
        """Likewise; the same remark on many cases is one sentence."""
        found = [*self.catalog.warnings]
        remarks = [(name, text) for name, seen in self.looks.items() for text in seen.warnings]
        found += [text for _, text in remarks[:3]]
        if len(remarks) > 3:
            found.append(f"the same or similar in {listed([name for name, _ in remarks[3:]])}.")
        if not self.catalog.knows_patients:
            found.append(NO_PATIENTS)
        return found


def survey(data: Path, cache: Path = CACHE) -> Survey:
    """Look at every case of a folder or manifest.

    Raises:
        DataError: When there is no layout that is known.
    """
    catalog = read_catalog(data)
    unique = {case.id: case for case in catalog.cases}
    cases = [case for case in unique.values() if case.is_there]
    looks = zip((case.id for case in cases), look_at(cases, cache), strict=True)
    return Survey(catalog=catalog, looks=dict(looks))


def inspect(data: Path) -> Findings:
    """Everything worth knowing of a folder or a manifest."""
    try:
        found = survey(data)
    except DataError as error:
        return Findings(problems=[str(error)])
    return Findings(facts=facts(found), warnings=found.warnings, problems=problems_of(found))


def problems_of(found: Survey) -> list[str]:
    """All problems that show without a config."""
    values = {value for _, value in found.catalog.classes}
    if not values:
        return found.problems
    declared = _declared(values, found.catalog.ignore)
    return [*found.problems, *_strange_values(found.looks, declared, "dataset.json")]


def check(run: MedsegRun) -> Findings:
    """Everything about the data of ``run`` that training would stumble over."""
    settings = run.domain
    try:
        catalog = read_catalog(settings.data)
    except DataError as error:
        return Findings(problems=[f"domain.data: {error}"])
    split = resolve_splits(settings, catalog)
    mine = _used(catalog, split)
    told = [p for p in catalog.problems if any(f"case '{case.id}'" in p for case in mine)]
    sound = [case for case in mine if case.is_there]
    looks = dict(zip((c.id for c in sound), look_at(sound, settings.cache), strict=True))
    found = Survey(replace(catalog, cases=tuple(mine), problems=tuple(told)), looks)
    declared = _declared(set(settings.values), settings.ignore_value)
    problems = [*split.problems, *found.problems, *_against(settings, looks)]
    problems += _strange_values(looks, declared, "domain.classes")
    if run.method.needs_unlabeled and not split.names("unlabeled"):
        problems.append(
            "splits.unlabeled is empty, but the method learns from unlabeled cases. Add some, or "
            "use method.name=supervised."
        )
    said = _weak_labels(settings, split, found)
    warnings = [*split.warnings, *found.warnings, *_absent_classes(settings, split, looks)]
    return Findings(
        facts=[*facts(found), *said.facts],
        warnings=[*warnings, *said.warnings],
        problems=[*problems, *said.problems],
    )


def resolve_splits(settings: MedsegSettings, catalog: Catalog) -> Resolved:
    """The case names of each split."""
    known = [Known(case.id, case.group, case.label is not None) for case in catalog.cases]
    return splitting.resolve(settings.splits, known)


def median_spacing_mm(looks: Iterable[Look]) -> tuple[float, float, float]:
    """The middle spacing along each axis, to 1 micrometre."""
    x, y, z = np.median([look.spacing_mm for look in looks if look.channels], axis=0)
    return round(float(x), 3), round(float(y), 3), round(float(z), 3)


def facts(found: Survey) -> list[tuple[str, str]]:
    """Rows of a table: what, how much."""
    looks = [look for look in found.looks.values() if look.channels]
    labeled = sum(case.label is not None for case in found.catalog.cases)
    rows = [
        ("layout", found.catalog.layout),
        ("cases", f"{len(found.catalog.cases)}: {labeled} with a label, "
         f"{len(found.catalog.cases) - labeled} without"),
    ]  # fmt: skip
    if found.catalog.knows_patients:
        rows.append(("patients", str(len({case.group for case in found.catalog.cases}))))
    if found.catalog.known:
        rows.append(("known of cases", f"{', '.join(found.catalog.known)} (subgroups of a report)"))
    if not looks:
        return rows
    rows += [
        (
            "channels",
            ", ".join(found.catalog.channels) or _counted(look.channels for look in looks),
        ),
        ("shape (right, front, top)", _spread([look.shape for look in looks], "{:.0f}")),
        ("spacing (right, front, top) mm", _spread([look.spacing_mm for look in looks], "{:.3g}")),
        ("orientation", _counted(look.orientation for look in looks)),
        ("voxel type", _counted(look.dtype for look in looks)),
        ("intensity", _intensity(looks)),
    ]
    return rows + _class_rows(found.catalog, looks)


def _class_rows(catalog: Catalog, looks: Sequence[Look]) -> list[tuple[str, str]]:
    names = {value: name for name, value in catalog.classes}
    labeled = [look for look in looks if look.label_voxels]
    total = sum(sum((look.label_voxels or {}).values()) for look in labeled)
    rows = []
    for value in sorted({value for look in labeled for value in look.label_voxels or {}}):
        holders = [look for look in labeled if value in (look.label_voxels or {})]
        voxels = sum((look.label_voxels or {})[value] for look in holders)
        volumes_ml = [
            (look.label_voxels or {})[value] * float(np.prod(look.spacing_mm)) / 1000
            for look in holders
        ]
        rows.append((
            f"class {names.get(value, '')} (value {value})".replace("  ", " "),
            f"{100 * voxels / total:.2f} % of the voxels, in {len(holders)} of {len(labeled)} "
            f"labels, median {np.median(volumes_ml):.3g} ml",
        ))  # fmt: skip
    return rows


def _disagreements(looks: dict[str, Look]) -> list[str]:
    by_count: dict[int, list[str]] = {}
    for name, look in looks.items():
        if look.channels:
            by_count.setdefault(look.channels, []).append(name)
    if len(by_count) < 2:
        return []
    usual = max(by_count, key=lambda count: len(by_count[count]))
    return [
        f"{listed(names)}: {count} channels, while most cases have {usual}. All cases of a run "
        "need the same channels: complete or remove them."
        for count, names in by_count.items()
        if count != usual
    ]


def _against(settings: MedsegSettings, looks: dict[str, Look]) -> list[str]:
    """What the settings ask that the cases do not give."""
    problems = []
    counts = {look.channels for look in looks.values() if look.channels}
    if len(counts) == 1 and counts != {len(settings.channels)}:
        problems.append(
            f"domain.channels names {len(settings.channels)} channels "
            f"({', '.join(settings.channels)}), the images have {counts.pop()}. Name each."
        )
    for peer in range(1 + len(settings.partners)):
        key, network = of_peer(peer, settings.network, settings.partners)
        try:
            with blaming(key):
                check_patch(network, settings.patch)
        except ConfigError as error:
            problems.append(str(error))
    return problems


def _strange_values(looks: dict[str, Look], declared: set[int], where: str) -> list[str]:
    homes: dict[int, list[str]] = {}
    for name, look in looks.items():
        for value in look.label_voxels or {}:
            if value not in declared:
                homes.setdefault(value, []).append(name)
    return [
        f"{_cases(names)}: the label value {value} is none of the classes of {where} "
        f"({', '.join(map(str, sorted(declared)))}). Add a class for it, declare it to be ignored, "
        "or repair the label."
        for value, names in sorted(homes.items())
    ]


def _absent_classes(settings: MedsegSettings, split: Resolved, looks: dict[str, Look]) -> list[str]:
    present = {v for n in split.names("labeled") if n in looks for v in looks[n].label_voxels or {}}
    absent = [each.name for each in settings.classes if each.value not in present]
    if not absent or not present:
        return []
    return [f"no labeled case shows {listed(absent)}, so it cannot be learned."]


def _weak_labels(settings: MedsegSettings, split: Resolved, found: Survey) -> Findings:
    """What is wrong with them, as far as their cases are sound."""
    if settings.weak_labels is None:
        return Findings()
    sound = {name for name, look in found.looks.items() if look.channels and not look.problems}
    learned = {*split.names("labeled"), *split.names("unlabeled")} & sound
    spacing_mm = settings.spacing_mm
    if spacing_mm == "median":
        if not learned:
            return Findings()
        spacing_mm = median_spacing_mm(found.looks[name] for name in learned)
    recipe = Recipe(spacing_mm=spacing_mm, normalize=settings.normalize)
    unlabeled = {*split.names("unlabeled")} & sound
    cases = [case for case in found.catalog.cases if case.id in unlabeled]
    names = {case.id for case in read_catalog(settings.data).cases}
    return check_weak_labels(settings, cases, names, Store(settings.cache.expanduser(), recipe))


def _used(catalog: Catalog, split: Resolved) -> list[VolumeCase]:
    """The cases of some split; those of the unlabeled without their label, which nobody reads."""
    unlabeled = set(split.names("unlabeled"))
    used = {name for each in splitting.SPLITS for name in split.names(each)}
    return [
        replace(case, label=None) if case.id in unlabeled else case
        for case in catalog.cases
        if case.id in used
    ]


def _declared(values: set[int], ignore: int | None) -> set[int]:
    return values if ignore is None else {*values, ignore}


def _cases(names: Sequence[str]) -> str:
    return f"case '{names[0]}'" if len(names) == 1 else f"{len(names)} cases ({listed(names)})"


def _counted(values: Iterable[object]) -> str:
    counts = Counter(str(value) for value in values).most_common()
    return counts[0][0] if len(counts) == 1 else ", ".join(f"{v} ({n})" for v, n in counts)


def _spread(rows: Sequence[Sequence[float]], form: str) -> str:
    def written(row: Iterable[float]) -> str:
        return " x ".join(form.format(value) for value in row)

    table = np.array(rows, dtype=float)
    low, middle, high = table.min(axis=0), np.median(table, axis=0), table.max(axis=0)
    if np.allclose(low, high, rtol=1e-3):
        return written(middle)
    return f"median {written(middle)}, from {written(low)} to {written(high)}"


def _intensity(looks: Sequence[Look]) -> str:
    lows, highs = [look.low for look in looks], [look.high for look in looks]
    return (
        f"lowest {min(lows):.4g} to {max(lows):.4g}, highest {min(highs):.4g} to {max(highs):.4g}"
    )
