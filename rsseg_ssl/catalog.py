"""The scenes of a run: their files, their blocks, and which split each is in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from common import splits
from common.errors import DataError
from common.splits import SPLITS, Known, Resolved, Splits
from rsseg_ssl import blocks, layouts, records
from rsseg_ssl.blocks import Footprint, Leak, Single
from rsseg_ssl.cases import Grid, Scene, SceneCase
from rsseg_ssl.entries import Entry, Layout, scene_name
from rsseg_ssl.settings import RssegSettings


@dataclass(frozen=True, slots=True)
class Catalog:
    """All scenes of a data set, and where they lie."""

    layout: Layout
    cases: Mapping[str, SceneCase]
    places: Mapping[str, Footprint]  # of scenes that can be opened and have a CRS
    splits: Resolved

    def used(self, split: str) -> list[SceneCase]:
        """The scenes of one split that exist."""
        return [self.cases[name] for name in self.splits.names(split) if name in self.cases]

    def leaks(self) -> list[Leak]:
        """How near training comes to validation and test, and those to each other."""
        names = {split: self.splits.names(split) for split in SPLITS}
        return blocks.leaks(self.places, names)


def read_catalog(settings: RssegSettings) -> Catalog:
    """The scenes that ``settings`` speak of. Problems are kept, not raised."""
    layout = layouts.survey(settings.data, settings.masks)
    cases = {entry.id: case_of(entry, settings) for entry in layout.entries if entry.images}
    places = blocks.footprints(readable_grids(cases.values()))
    groups = blocks.assign(places, settings.blocks)
    if not isinstance(settings.blocks, Single):
        groups |= {entry.id: entry.group for entry in layout.entries if entry.group}
    cases = {name: replace(case, group=groups.get(name, name)) for name, case in cases.items()}
    known = [Known(name, case.group, case.mask is not None) for name, case in cases.items()]
    given = localized(settings.splits, settings.data, [*cases])
    return Catalog(layout, cases, places, splits.resolve(given, known))


def case_of(entry: Entry, settings: RssegSettings) -> SceneCase:
    """A scene as ``settings`` read it, in a block of its own."""
    return SceneCase(
        id=entry.id,
        group=entry.id,
        images=entry.images,
        mask=entry.mask,
        recode=entry.recode,
        values=settings.values,
        ignore=settings.ignore,
        nodata=None if settings.nodata == "declared" else settings.nodata,
        bands=None if settings.bands == "all" else settings.bands,
        alpha_band=settings.alpha_band,
    )


def localized(given: Splits, data: Path, known: Sequence[str]) -> Splits:
    """Names in place of split files and of what lists carry beside them: endings, paths, masks.

    A file that lies neither under the current folder nor under the data stays as it is.
    """
    exists, named = {*known}, {}
    for split in SPLITS:
        names = getattr(given, split)
        if isinstance(names, Path):
            home = data if data.is_dir() else data.parent
            found = next((path for path in (names, home / names) if path.is_file()), None)
            names = splits.read_names(found) if found else names
        if isinstance(names, tuple):
            names = tuple(scene_name(name, exists) for name in names)
        named[split] = names
    return Splits(**named)


def shown(labeled: Iterable[SceneCase]) -> dict[str, frozenset[int]]:
    """The classes that each labeled scene shows somewhere, by its name."""
    cases = [*labeled]
    looked_at = records.mask_records(cases)
    held = {case.id: {value for value, _ in looked_at[case.id].counts} for case in cases}
    return {
        case.id: frozenset(k for k, value in enumerate(case.values) if value in held[case.id])
        for case in cases
    }


def readable_grids(scenes: Iterable[Scene]) -> dict[str, Grid]:
    """The grids of the scenes that can be opened; inspection names the others."""
    grids = {}
    for scene in scenes:
        try:
            grids[scene.id] = scene.grid
        except DataError:
            continue
    return grids


def without_truth(case: SceneCase) -> Scene:
    """The same scene with no path to its annotation."""
    return Scene(
        id=case.id,
        group=case.group,
        images=case.images,
        nodata=case.nodata,
        bands=case.bands,
        alpha_band=case.alpha_band,
    )
