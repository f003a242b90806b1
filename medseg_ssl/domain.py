"""Volumes, behind the first door of ``common``: a domain to train on."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from common.adapter import file_name
from common.batch import (
    IGNORE,
    Batch,
    ClassVolume,
    Image,
    Marked,
    Pixel,
    Whole,
    confidence_map,
    label_map,
)
from common.domain import Measure, ReportText, Split, Task, Watch
from common.errors import DataError
from common.networks import blaming, of_peer
from common.sampling import TwoStream
from common.splits import SPLITS, names_of
from medseg_ssl import batches, inspection, measures, preparation
from medseg_ssl.cases import UnlabeledVolume, VolumeCase, read_array
from medseg_ssl.cohort import cohort
from medseg_ssl.export import MOST, write_labels, write_shares
from medseg_ssl.figures import draw_volume
from medseg_ssl.files import pieces
from medseg_ssl.hints import WeakLabels
from medseg_ssl.inference import predict_volume
from medseg_ssl.intensity import Window
from medseg_ssl.layouts import found, read_catalog
from medseg_ssl.look import look
from medseg_ssl.preprocess import Recipe, Volume, normalized, preprocess, restore
from medseg_ssl.settings import MedsegSettings
from medseg_ssl.statements import facts_of, files_of, weak_labels_of
from medseg_ssl.store import Store


class Volumes:
    """NIfTI volumes as ``settings`` describe them; a :class:`common.domain.Domain`."""

    def __init__(self, settings: MedsegSettings) -> None:
        assert settings.spacing_mm != "median", "resolve the run first"
        self.settings = settings
        self.recipe = Recipe(spacing_mm=settings.spacing_mm, normalize=settings.normalize)
        self.store = Store(settings.cache.expanduser(), self.recipe)
        self.task = Task(
            channels=len(settings.channels),
            classes=tuple(each.name for each in settings.classes),
            colors=settings.colors,
            background=0,
        )
        self.headline = measures.HEADLINE
        self._cached: set[VolumeCase] = set()  # cases of this run, worth keeping preprocessed

    @property
    def pixel(self) -> Pixel:
        return Pixel(self.recipe.spacing_mm, "mm")

    def prepare(self, watch: Watch) -> None:
        """Preprocess the cases of the training into the cache."""
        channels, store = self.task.channels, self.store
        labeled, unlabeled = self._trained
        preparation.prepare(
            [
                *(store.wanted_volume(case, channels) for case in labeled),
                *(store.wanted_volume(volume, channels) for volume in unlabeled),
                *(store.wanted_target(case) for case in labeled),
                *(store.wanted_sets(*one) for one in self._said.of_all(unlabeled)),
            ],
            self.recipe,
            store.folder,
            memory_mb=self.settings.preprocess_memory_mb,
            watch=watch,
        )

    def batches(
        self, *, seed: int, first_step: int, extra: Mapping[str, int] | None = None
    ) -> Iterator[Batch]:
        self.prepare(lambda what, done, total: None)
        size, (labeled, unlabeled) = self.settings.batch, self._trained
        cutting = batches.Cutting(
            patch=self.settings.patch,
            channels=self.task.channels,
            weak=self.settings.weak,
            foreground_share=self.settings.foreground_share,
        )
        return TwoStream(
            batches.LabeledPool(self.store, labeled, cutting),
            batches.UnlabeledPool(self.store, unlabeled, cutting, self._said),
            size=size if unlabeled else size.model_copy(update={"unlabeled": 0}),
            seed=seed,
            extra=[(extra or {}).get(case.id, 0) for case in labeled],
        ).from_step(first_step)

    def shown(self) -> dict[str, frozenset[int]]:
        """But for the background, of which nobody asks."""
        return {
            case.id: frozenset(np.unique(self.store.foreground(case)[:, 0]).tolist())
            for case in self.cases("labeled")
        }

    @property
    def mirrors(self) -> tuple[int, ...]:
        return self.settings.weak.mirrors

    def strong(self, image: Image) -> Image:
        return self.settings.strong(image)

    def new_network(self, peer: int = 0) -> nn.Module:
        key, network = of_peer(peer, self.settings.network, self.settings.partners)
        with blaming(key):
            return network.build(self.task.channels, len(self.task.classes))

    def cases(self, split: Split) -> Iterator[VolumeCase]:
        """Cases of one split, in the order of their names in the settings.

        Raises:
            DataError: When the data no longer holds one of them.
        """
        by_name = self._by_name
        for name in names_of(self.settings.splits, split):
            if name not in by_name:
                raise DataError(
                    f"{self.settings.data} no longer holds case '{name}' of splits.{split}. "
                    "Restore it, or start a new run."
                )
            self._cached.add(by_name[name])
            yield by_name[name]

    def files(self) -> Iterator[Path]:
        for split in SPLITS:
            for name in names_of(self.settings.splits, split):
                case = self._by_name[name]
                yield from case.files
                if split != "unlabeled" and case.label is not None:
                    yield from pieces(case.label)
        yield from files_of(self._said, self.settings)

    def find(self, paths: Sequence[Path]) -> list[VolumeCase]:
        cases, problems = found(paths, self.task.channels)
        problems += [problem for case in cases for problem in self._unfit(case)]
        if problems:
            raise DataError.listing("what to predict", problems)
        return [replace(case, values=self.settings.values) for case in cases]

    def predict(self, network: nn.Module, case: VolumeCase) -> ClassVolume:
        volume = self._volume(case)
        probs = predict_volume(
            network,
            torch.from_numpy(np.require(volume.image, requirements="W")),
            patch=self.settings.patch,
            classes=len(self.task.classes),
            settings=self.settings.inference,
        )
        memory_mb = self.settings.inference.memory_mb
        return restore(probs, volume.affine, case.geometry, memory_mb=memory_mb)

    def whole(self, case: VolumeCase) -> Whole:
        image = normalized(case.images, self.recipe)
        everywhere = torch.ones(image.shape[1:], dtype=torch.bool)
        pixel = Pixel(case.geometry.spacing_mm, "mm")
        return Whole.of(image, everywhere, len(self.task.classes), pixel=pixel)

    def measure(self, predicted: ClassVolume, case: VolumeCase) -> list[Measure]:
        truth = case.truth
        if truth is None:
            raise DataError(f"case '{case.id}' has no label, so nothing can be measured on it.")
        return measures.measure_volume(
            predicted,
            truth,
            spacing_mm=case.geometry.spacing_mm,
            classes=self.task.classes,
            settings=self.settings.measures,
        )

    def summarize(self, table: pd.DataFrame) -> pd.Series:
        return measures.summarize(table)

    def name_of(self, case: VolumeCase) -> str:
        return f"{file_name(case.id)}.nii.gz"

    def write(self, predicted: ClassVolume, case: VolumeCase, folder: Path) -> Path:
        labels = label_map(predicted).numpy()
        return write_labels(labels, case, folder / self.name_of(case), names=self.task.classes)

    def write_confidence(self, predicted: ClassVolume, case: VolumeCase, folder: Path) -> Path:
        confidence = confidence_map(predicted).numpy()
        return write_shares(confidence, case, folder / self.name_of(case), bits=8, of=MOST)

    def write_probabilities(self, predicted: ClassVolume, case: VolumeCase, folder: Path) -> Path:
        each = predicted.movedim(0, -1).numpy()
        names = f"probabilities: {', '.join(self.task.classes)}"
        return write_shares(each, case, folder / self.name_of(case), bits=16, of=names)

    def write_pseudo(
        self, probs: ClassVolume, sure: Marked, case: VolumeCase, folder: Path, *, about: str
    ) -> Path:
        labels = torch.where(sure, label_map(probs), IGNORE).numpy()
        path = folder / self.name_of(case)
        return write_labels(labels, case, path, names=self.task.classes, about=about)

    def figure(self, predicted: ClassVolume, case: VolumeCase, folder: Path) -> Path:
        image = read_array(case.images[0])
        truth, normalize = case.truth, self.settings.normalize
        if isinstance(normalize, Window):  # else a CT is mostly air and bone
            image = np.clip(image, *normalize.window_hu)
        return draw_volume(
            image.reshape(*image.shape[:3], -1)[..., 0],
            label_map(predicted).numpy(),
            None if truth is None else truth.numpy(),
            affine=case.geometry.affine,
            task=self.task,
            title=case.id,
            path=folder / f"{file_name(case.id)}.png",
        )

    def describe(self) -> ReportText:
        settings = self.settings
        splits: dict[str, Sequence[str]] = {
            split: names_of(settings.splits, split) for split in SPLITS
        }
        catalog = read_catalog(settings.data)
        spacing = " x ".join(f"{mm:g}" for mm in self.recipe.spacing_mm)
        data = [
            ("data", f"{settings.data}, {catalog.layout}"),
            ("channels", ", ".join(settings.channels)),
            ("classes", ", ".join(f"{each.name} ({each.value})" for each in settings.classes)),
            ("preprocessing", f"RAS, {spacing} mm, {settings.normalize.name}"),
            ("network", settings.network.name),
            ("patch", " x ".join(str(side) for side in settings.patch)),
            *((split, self._cohort(names)) for split, names in splits.items()),
            *facts_of(self._said, settings),
        ]
        return ReportText(
            data=data,
            rules=measures.rules(settings.measures),
            warnings=() if catalog.knows_patients else (inspection.NO_PATIENTS,),
            limits=measures.LIMITS,
            splits=splits,
            known=catalog.known,
        )

    def _cohort(self, names: Sequence[str]) -> str:
        cases = [self._by_name[name] for name in names if name in self._by_name]
        return cohort(cases, knows_patients=read_catalog(self.settings.data).knows_patients)

    @property
    def _trained(self) -> tuple[list[VolumeCase], list[UnlabeledVolume]]:
        """The labeled cases, and the unlabeled ones where some are looked at."""
        asked = self.settings.batch.unlabeled > 0
        unlabeled = [case.without_label() for case in self.cases("unlabeled") if asked]
        return [*self.cases("labeled")], unlabeled

    @functools.cached_property
    def _said(self) -> WeakLabels:
        return weak_labels_of(self.settings, self._by_name)

    @functools.cached_property
    def _by_name(self) -> dict[str, VolumeCase]:
        values, ignore = self.settings.values, self.settings.ignore_value
        return {
            case.id: replace(case, values=values, ignore=ignore)
            for case in read_catalog(self.settings.data).cases
        }

    def _volume(self, case: VolumeCase) -> Volume:
        """From the cache for cases of this run, else straight from the files."""
        if case in self._cached:
            return self.store.volume(case.images)
        return preprocess(case.images, self.recipe)

    def _unfit(self, case: VolumeCase) -> list[str]:
        seen = look(case)
        if seen.channels and seen.channels != self.task.channels:
            return [
                f"case '{case.id}' has {seen.channels} channels, the run was trained on "
                f"{self.task.channels} ({', '.join(self.settings.channels)}). Give it those."
            ]
        return [*seen.problems]
