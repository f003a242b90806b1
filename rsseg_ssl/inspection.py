"""Looking at scenes before they are trusted."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from common.domain import Findings
from common.splits import SPLITS
from rsseg_ssl import blocks, layouts
from rsseg_ssl.blocks import Footprint, Leak, Touching
from rsseg_ssl.cases import SceneCase
from rsseg_ssl.catalog import Catalog, read_catalog, readable_grids, without_truth
from rsseg_ssl.entries import Entry, Layout
from rsseg_ssl.judgment import Images, Masks, judge, judge_places, strange_values
from rsseg_ssl.records import image_records, mask_records
from rsseg_ssl.settings import RssegRun
from rsseg_ssl.statements import check_weak_labels

MANY_VALUES = 255
ONLY_SUPERVISED = (
    "no scene is left as unlabeled, so there is nothing to learn from without labels. Add scenes "
    "without masks, shorten domain.splits.labeled, or use method.name=supervised."
)


def inspect_folder(folder: Path) -> Findings:
    """What is in a folder or a manifest, and what is wrong with it. Never raises for data."""
    layout = layouts.survey(folder)
    cases = [as_found(entry) for entry in layout.entries if entry.images]
    images = image_records(without_truth(case) for case in cases)
    masks = mask_records(cases)
    places = blocks.footprints(readable_grids(cases))
    groups = blocks.assign(places, Touching())
    problems, warnings = _judged(layout, images, masks)
    values = {each.value for each in layout.classes} | {*layout.ignore}
    if layout.classes:
        problems += strange_values(masks, values, "classes.json")
    return Findings(
        facts=(
            ("layout", layout.kind),
            *_image_facts(images),
            *_mask_facts(layout, masks, len(cases)),
            *_block_facts(places, groups, layout),
        ),
        warnings=(*layout.warnings, *warnings),
        problems=(*layout.problems, *problems),
    )


def check_run(run: RssegRun) -> Findings:
    """Everything that can go wrong later. Annotations of unlabeled scenes are not opened."""
    catalog = read_catalog(run.domain)
    used = [case for split in SPLITS for case in catalog.used(split)]
    images = image_records(without_truth(case) for case in used)
    judged = [case for split in SPLITS if split != "unlabeled" for case in catalog.used(split)]
    masks = mask_records(judged)
    problems, warnings = _judged(catalog.layout, images, masks, tile=run.domain.tile)
    values = {each.value for each in run.domain.classes} | {*run.domain.ignore}
    problems += strange_values(masks, values, "domain.classes or domain.ignore")
    problems += [*_split_problems(run, catalog), *_training_problems(run, catalog, masks)]
    problems += _setting_problems(run, images)
    warnings += [*_missing_classes(run, catalog, masks), *leak_warnings(catalog.leaks())]
    said = check_weak_labels(run.domain, catalog)
    facts = [
        (f"{split} scenes", str(len(catalog.splits.names(split))))
        for split in SPLITS
        if isinstance(getattr(catalog.splits.splits, split), tuple)
    ]
    return Findings(
        facts=(*facts, *_image_facts(images), *said.facts, *gap_facts(catalog.leaks())),
        warnings=(*catalog.layout.warnings, *catalog.splits.warnings, *warnings, *said.warnings),
        problems=(*catalog.layout.problems, *problems, *said.problems),
    )


def as_found(entry: Entry) -> SceneCase:
    """A scene in a block of its own, with all its bands and no class known."""
    return SceneCase(
        id=entry.id, group=entry.id, images=entry.images, mask=entry.mask, recode=entry.recode
    )


def leak_warnings(leaks: Iterable[Leak]) -> list[str]:
    """Where scenes of two splits lie side by side."""
    return [
        f"{len(leak.touching)} pairs of scenes of {leak.splits[0]} and {leak.splits[1]} touch "
        f"(such as {leak.touching[0][0]} and {leak.touching[0][1]}): scores will be too good. "
        "Split by spatial block; the init command does."
        for leak in leaks
        if leak.touching and {*leak.splits} != {"labeled", "unlabeled"}
    ]


def gap_facts(leaks: Iterable[Leak]) -> list[tuple[str, str]]:
    """The leak report: per pair of splits, touching pairs and smallest gap."""
    return [
        (
            f"{leak.splits[0]} to {leak.splits[1]}",
            f"{len(leak.touching)} touching pairs, smallest gap {leak.gap_m:,.0f} m",
        )
        for leak in leaks
        if {*leak.splits} != {"labeled", "unlabeled"}
    ]


def _judged(
    layout: Layout, images: Images, masks: Masks, *, tile: int | None = None
) -> tuple[list[str], list[str]]:
    """Problems and warnings of the files; photographs need no place on Earth."""
    problems, warnings = judge(images, masks, tile=tile)
    if layout.photographs:
        return problems, warnings
    more_problems, more_warnings = judge_places(images)
    return problems + more_problems, warnings + more_warnings


def _split_problems(run: RssegRun, catalog: Catalog) -> list[str]:
    found = [*catalog.splits.problems]
    if any("is on two sides" in each for each in found):
        found.append(
            "scenes that touch are on two sides, see above. Split by block, or set domain.blocks "
            "to {name: single} to train all the same; check and report then say how near they are."
        )
    if run.method.needs_unlabeled and not catalog.splits.names("unlabeled"):
        found.append(ONLY_SUPERVISED)
    return found


def _training_problems(run: RssegRun, catalog: Catalog, masks: Masks) -> list[str]:
    values = {each.value for each in run.domain.classes}
    taught = [
        case.id
        for case in catalog.used("labeled")
        if case.id in masks and any(value in values for value, _ in masks[case.id].counts)
    ]
    if catalog.used("labeled") and not taught:
        return ["no labeled scene has a single annotated pixel of a class. Label others."]
    return []


def _setting_problems(run: RssegRun, images: Images) -> list[str]:
    settings, problems = run.domain, []
    multiple = math.lcm(*(each.multiple for each in (settings.network, *settings.partners)))
    if settings.tile % multiple:
        fitting = max(multiple, round(settings.tile / multiple) * multiple)
        whose = "network and partners" if settings.partners else "this network"
        problems.append(
            f"domain.tile is {settings.tile}, but the sides of a window must be divisible by "
            f"{multiple} for {whose}. Set it to {fitting}."
        )
    bands = {record.bands for record in images.values() if record.problem is None}
    if settings.statistics != "measure" and bands and {len(settings.statistics.mean)} != bands:
        problems.append(
            f"domain.statistics names {len(settings.statistics.mean)} bands, the scenes have "
            f"{', '.join(map(str, sorted(bands)))}. Set it to 'measure'."
        )
    return problems


def _missing_classes(run: RssegRun, catalog: Catalog, masks: Masks) -> list[str]:
    warnings = []
    for split in ("labeled", "validation", "test"):
        cases = [case for case in catalog.used(split) if case.id in masks]
        present = {value for case in cases for value, count in masks[case.id].counts if count}
        absent = [each.name for each in run.domain.classes if each.value not in present]
        if cases and absent:
            meaning = "nothing teaches it" if split == "labeled" else "its score is not known"
            warnings.append(
                f"no {split} scene shows {' or '.join(absent)}, so {meaning}. Choose others if it "
                "matters."
            )
    return warnings


def _image_facts(images: Images) -> list[tuple[str, str]]:
    good = [record for record in images.values() if record.problem is None]
    facts = [("scenes", str(len(images)))]
    if not good:
        return facts
    pixels = sum(record.pixels for record in good)
    valid = sum(record.moments.count for record in good)
    x, y = np.median([record.resolution_xy_m for record in good], axis=0)
    unit = "m" if all(record.located for record in good) else "m (pixels where no CRS)"
    return [
        *facts,
        ("bands", _tally(str(record.bands) for record in good)),
        ("stored as", _tally(record.dtype for record in good)),
        ("CRS", _tally(record.crs for record in good)),
        ("pixel", f"{x:.4g} x {y:.4g} {unit}"),
        ("size", _tally(f"{r.shape_yx[1]} x {r.shape_yx[0]}" for r in good)),
        ("valid pixels", f"{valid / max(pixels, 1):.2%}"),
    ]


def _mask_facts(layout: Layout, masks: Masks, total: int) -> list[tuple[str, str]]:
    counts: Counter[int] = Counter()
    for record in masks.values():
        counts.update(dict(record.counts))
    facts = [("annotated scenes", f"{len(masks)} of {total}")]
    known = [value for value in counts if value not in layout.ignore]
    annotated = sum(counts[value] for value in known)
    names = {each.value: each.name for each in layout.classes}
    if len(known) > MANY_VALUES:
        return [*facts, ("mask values", f"{len(known)} different ones: no classes?")]
    facts += [
        (f"class {value} {names.get(value, '')}".strip(), f"{counts[value] / annotated:.2%}")
        for value in sorted(known)
    ]
    ignored = sum(counts[value] for value in layout.ignore)
    if ignored:
        facts.append(("ignored pixels", f"{ignored / max(sum(counts.values()), 1):.2%}"))
    return facts


def _block_facts(
    places: Mapping[str, Footprint], groups: Mapping[str, str], layout: Layout
) -> list[tuple[str, str]]:
    named = {entry.group for entry in layout.entries if entry.group}
    if named and not places:
        return [("blocks", f"{len(named)}, as the data names them")]
    if not places:
        return [("spatial blocks", "unknown, no scene has a CRS")]
    sizes = Counter(groups.values())
    return [
        (
            "spatial blocks",
            f"{len(sizes)} (scenes that touch), the largest of {max(sizes.values())}",
        )
    ]


def _tally(values: Iterable[str]) -> str:
    counts = Counter(values)
    if len(counts) == 1:
        return next(iter(counts))
    shown: Sequence[str] = [f"{value} ({count})" for value, count in counts.most_common(4)]
    return ", ".join(shown) + (", ..." if len(counts) > 4 else "")
