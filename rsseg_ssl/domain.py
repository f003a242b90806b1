"""Scenes, behind the first door of ``common``: a domain to train on."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from common.adapter import file_name
from common.batch import Batch, ClassVolume, Image, Marked, Pixel, Whole
from common.domain import Measure, ReportText, Split, Task, Watch
from common.errors import DataError
from common.networks import blaming, of_peer
from common.sampling import TwoStream
from common.splits import SPLITS, names_of
from rsseg_ssl import batches, catalog, inspection, layouts, measures, reader, statements
from rsseg_ssl.batches import Cutting, LabeledPool, Memory, UnlabeledPool
from rsseg_ssl.cases import SceneCase
from rsseg_ssl.catalog import Catalog, read_catalog, without_truth
from rsseg_ssl.cohort import cohort
from rsseg_ssl.export import Doubt, write_confidence, write_probabilities, write_scene
from rsseg_ssl.figures import draw_scene
from rsseg_ssl.inference import predict_scene
from rsseg_ssl.settings import RssegSettings
from rsseg_ssl.statements import weak_labels_of
from rsseg_ssl.weak_labels import WeakLabels


class Scenes:
    """GeoTIFF scenes as ``settings`` describe them; a :class:`common.domain.Domain`."""

    def __init__(self, settings: RssegSettings) -> None:
        self.settings = settings
        self.task = Task(
            channels=len(settings.measured.mean),
            classes=tuple(each.name for each in settings.classes),
            colors=settings.colors,
            background=settings.background,
        )
        self.headline = measures.HEADLINE

    @property
    def pixel(self) -> Pixel:
        return batches.pixel_of(next(iter(self.cases("labeled"))))

    def prepare(self, watch: Watch) -> None:
        """Nothing: windows are read from the files as they are."""

    def batches(
        self, *, seed: int, first_step: int, extra: Mapping[str, int] | None = None
    ) -> Iterator[Batch]:
        unlabeled = [without_truth(case) for case in self.cases("unlabeled")]
        labeled = LabeledPool([*self.cases("labeled")], self._cutting, self._memory)
        size = self.settings.batch
        return TwoStream(
            labeled,
            UnlabeledPool(unlabeled, self._cutting, self._memory, self._weak_labels),
            size=size if unlabeled else size.model_copy(update={"unlabeled": 0}),
            seed=seed,
            extra=[(extra or {}).get(name, 0) for name in labeled.names],
        ).from_step(first_step)

    def shown(self) -> dict[str, frozenset[int]]:
        return catalog.shown(self.cases("labeled"))

    @property
    def mirrors(self) -> tuple[int, ...]:
        return self.settings.weak.mirrors

    def strong(self, image: Image) -> Image:
        return self.settings.strong(image)

    def new_network(self, peer: int = 0) -> nn.Module:
        key, network = of_peer(peer, self.settings.network, self.settings.partners)
        with blaming(key):
            return network.build(self.task.channels, len(self.task.classes))

    def cases(self, split: Split) -> Iterator[SceneCase]:
        """Scenes of one split, in the order of their names in the settings.

        Raises:
            DataError: When the data no longer holds one of them.
        """
        names = names_of(self.settings.splits, split)
        known = self._catalog.cases if names else {}
        for name in names:
            if name not in known:
                raise DataError(
                    f"'{self.settings.data}' no longer holds scene '{name}' of splits.{split}. "
                    "Restore it, or start a new run."
                )
            yield known[name]

    def files(self) -> Iterator[Path]:
        for split in SPLITS:
            for case in self._catalog.used(split):
                yield from case.images
                if split != "unlabeled" and case.mask is not None:
                    yield case.mask
        yield from statements.files_of(self.settings, names_of(self.settings.splits, "unlabeled"))

    def find(self, paths: Sequence[Path]) -> list[SceneCase]:
        entries, problems = layouts.found(paths)
        cases = [catalog.case_of(entry, self.settings) for entry in entries]
        problems += [problem for case in cases for problem in self._unfit(case)]
        if problems:
            raise DataError.listing("what to predict", problems)
        return cases

    def predict(self, network: nn.Module, case: SceneCase) -> ClassVolume:
        return predict_scene(
            network,
            functools.partial(reader.read, case),
            shape_yx=case.grid.shape_yx,
            tile=self.settings.tile,
            classes=len(self.task.classes),
            settings=self.settings.inference,
            normalize=functools.partial(batches.normalize, statistics=self.settings.measured),
        )

    def whole(self, case: SceneCase) -> Whole:
        return batches.whole(case, self.settings.measured, len(self.task.classes))

    def measure(self, predicted: ClassVolume, case: SceneCase) -> list[Measure]:
        truth = case.truth
        if truth is None:
            raise DataError(f"scene '{case.id}' has no mask, so nothing can be measured on it.")
        valid = torch.from_numpy(reader.read(case, case.whole)[1])
        return measures.measure_scene(predicted, truth, valid=valid, grid=case.grid, task=self.task)

    def summarize(self, table: pd.DataFrame) -> pd.Series:
        return measures.summarize(table)

    def name_of(self, case: SceneCase) -> str:
        return f"{file_name(case.id)}.tif"

    def write(self, predicted: ClassVolume, case: SceneCase, folder: Path) -> Path:
        return write_scene(predicted, case, folder / self.name_of(case), task=self.task)

    def write_confidence(self, predicted: ClassVolume, case: SceneCase, folder: Path) -> Path:
        return write_confidence(predicted, case, folder / self.name_of(case))

    def write_probabilities(self, predicted: ClassVolume, case: SceneCase, folder: Path) -> Path:
        return write_probabilities(predicted, case, folder / self.name_of(case), task=self.task)

    def write_pseudo(
        self, probs: ClassVolume, sure: Marked, case: SceneCase, folder: Path, *, about: str
    ) -> Path:
        path, doubt = folder / self.name_of(case), Doubt(sure, about)
        return write_scene(probs, case, path, task=self.task, doubt=doubt)

    def figure(self, predicted: ClassVolume, case: SceneCase, folder: Path) -> Path:
        return draw_scene(predicted, case, folder / f"{file_name(case.id)}.png", task=self.task)

    def describe(self) -> ReportText:
        settings, leaks = self.settings, self._catalog.leaks()
        splits: dict[str, Sequence[str]] = {
            split: names_of(settings.splits, split) for split in SPLITS
        }
        groups = {case.group for split in SPLITS for case in self._catalog.used(split)}
        data = [
            ("data", f"{settings.data}, {self._catalog.layout.kind}"),
            ("bands", _bands(self._catalog.layout.bands, settings)),
            ("classes", ", ".join(f"{each.name} ({each.value})" for each in settings.classes)),
            ("network", settings.network.name),
            ("window", f"{settings.tile} x {settings.tile} pixels"),
            ("spatial blocks", f"{len(groups)} ({settings.blocks.name})"),
            *((split, cohort(self._catalog.used(split))) for split in SPLITS),
            *statements.rows(settings, self._weak_labels.by_scene, len(splits["unlabeled"])),
            *inspection.gap_facts(leaks),
        ]
        return ReportText(
            data=data,
            rules=measures.RULES,
            warnings=[
                *self._catalog.layout.warnings,
                *self._catalog.splits.warnings,
                *inspection.leak_warnings(leaks),
            ],
            limits=measures.LIMITS,
            splits=splits,
        )

    @functools.cached_property
    def _catalog(self) -> Catalog:
        return read_catalog(self.settings)

    @functools.cached_property
    def _memory(self) -> Memory:
        return Memory(self.settings.cache_mb)

    @functools.cached_property
    def _weak_labels(self) -> WeakLabels:
        return weak_labels_of(self.settings, self._catalog)

    @property
    def _cutting(self) -> Cutting:
        its = self.settings
        return Cutting(its.tile, its.tries, its.weak, its.measured, its.class_share)

    def _unfit(self, case: SceneCase) -> list[str]:
        try:
            count = reader.num_bands(case.images)
        except DataError as error:
            return [str(error)]
        needed = case.bands or tuple(range(1, self.task.channels + 1))
        if max(needed) <= count:
            return []
        return [
            f"scene '{case.id}' has {count} bands, the run was trained on bands "
            f"{', '.join(map(str, needed))}. Give it those, in the same order."
        ]


def _bands(names: Sequence[str], settings: RssegSettings) -> str:
    every = range(1, len(settings.measured.mean) + 1)
    chosen = every if settings.bands == "all" else settings.bands
    return ", ".join(names[b - 1] if 0 < b <= len(names) else str(b) for b in chosen)
