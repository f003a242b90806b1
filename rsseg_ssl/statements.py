"""The weak labels of a run: gathered for training, judged before it, counted for reports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from common.adapter import file_name
from common.domain import Findings
from common.errors import DataError
from common.splits import listed
from common.weak_labels import ROW
from rsseg_ssl.cases import Scene
from rsseg_ssl.catalog import Catalog, readable_grids, without_truth
from rsseg_ssl.entries import rasters
from rsseg_ssl.hints import Boxes
from rsseg_ssl.in_pixels import Survey
from rsseg_ssl.reader import Window
from rsseg_ssl.records import strips
from rsseg_ssl.settings import RssegSettings
from rsseg_ssl.vectors import Legend
from rsseg_ssl.weak_labels import KINDS, Reading, SceneHints, WeakLabels, in_words, read_hints


def weak_labels_of(settings: RssegSettings, catalog: Catalog) -> WeakLabels:
    """What is said of the unlabeled scenes of a run.

    Raises:
        DataError: Listing everything in the files that cannot be used.
    """
    num_classes, files = len(settings.classes), settings.weak_labels
    if files is None:
        return WeakLabels(num_classes)
    read = _read(settings, catalog)
    if read.problems:
        raise DataError.listing("domain.weak_labels", read.problems)
    apart = files.boxes or files.points or files.scribbles
    return WeakLabels(num_classes, read.by_scene, tell_pixels_apart=apart is not None)


def check_weak_labels(settings: RssegSettings, catalog: Catalog) -> Findings:
    """What training would stumble over in the weak labels, every pixel of them."""
    if settings.weak_labels is None:
        return Findings()
    read, scenes = _read(settings, catalog), catalog.used("unlabeled")
    said = WeakLabels(len(settings.classes), read.by_scene, tell_pixels_apart=True)
    problems = [*read.problems]
    for case in scenes:
        if case.id in read.by_scene:
            problems += _untagged(case.id, said.of(case.id), settings)
            problems += _contradictions(without_truth(case), said)
    warnings = []
    if read.silent:
        warnings.append(
            f"domain.weak_labels says nothing of any unlabeled scene in {listed(read.silent)}, "
            "so that changes nothing."
        )
    return Findings(
        facts=rows(settings, read.by_scene, len(scenes)), warnings=warnings, problems=problems
    )


def rows(
    settings: RssegSettings, by_scene: Mapping[str, SceneHints], unlabeled: int
) -> list[tuple[str, str]]:
    """What tables say of them: one row, where the run has some."""
    return [(ROW, in_words(by_scene, unlabeled))] if settings.weak_labels else []


def files_of(settings: RssegSettings, unlabeled: Sequence[str]) -> Iterator[Path]:
    """The files that tell what is known of unlabeled scenes, in a resolved run."""
    for kind in KINDS:
        path: Path | None = getattr(settings.weak_labels, kind, None)
        if path is None:
            continue
        if path.is_dir():
            names = {file_name(name) for name in unlabeled}
            yield from (file for file in rasters(path) if file.stem in names)
        else:
            yield from sorted(path.parent.glob(f"{path.stem}.*")) if _has_parts(path) else [path]


def _has_parts(path: Path) -> bool:
    """A Shapefile is several files of one name."""
    return path.suffix.lower() == ".shp"


def _read(settings: RssegSettings, catalog: Catalog) -> Reading:
    assert settings.weak_labels is not None
    legend = Legend(tuple(each.name for each in settings.classes), settings.values)
    grids = readable_grids(catalog.used("unlabeled"))
    survey = Survey(legend, [*catalog.cases], grids, settings.ignore)
    return read_hints(settings.weak_labels, settings.data, survey)


def _untagged(name: str, hints: SceneHints, settings: RssegSettings) -> list[str]:
    boxes = (hints.drawn or {}).get("boxes")
    if not hints.tags or not isinstance(boxes, Boxes):
        return []
    return [
        f"scene '{name}': there is a box of '{settings.classes[label].name}', which the tags of "
        f"the scene do not name ({boxes.source(label)}). Add the tag, or remove the box."
        for label in sorted(boxes.classes - hints.tags)
    ]


def _contradictions(scene: Scene, said: WeakLabels) -> list[str]:
    if not said.of(scene.id).drawn:
        return []
    try:
        for window in strips(scene):
            try:
                said.class_sets(scene.id, window)
            except DataError:
                said.class_sets(scene.id, _guilty(scene.id, said, window))
                raise
    except DataError as error:
        return [str(error)]
    return []


def _guilty(scene: str, said: WeakLabels, window: Window) -> Window:
    """The first pixel of ``window`` that hints contradict each other about, or ``window``."""
    for half in _halves(window):
        try:
            said.class_sets(scene, half)
        except DataError:
            return _guilty(scene, said, half)
    return window


def _halves(window: Window) -> list[Window]:
    top, left, height, width = window
    if height > 1:
        upper = height // 2
        return [
            Window(top, left, upper, width), Window(top + upper, left, height - upper, width),
        ]  # fmt: skip
    if width > 1:
        half = width // 2
        return [Window(top, left, 1, half), Window(top, left + half, 1, width - half)]
    return []
