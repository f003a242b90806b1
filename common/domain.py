"""What an imaging domain must bring. The only door between ``common`` and an adapter."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import pandas as pd
from torch import nn

from common.batch import Batch, ClassVolume, Grid, Image, Marked, Pixel, Whole

Split = Literal["labeled", "unlabeled", "validation", "test"]

Watch = Callable[[str, int, int], None]
"""Hears what is being done, how much of it is done, and of how much."""


@dataclass(frozen=True, slots=True)
class Task:
    """What is being segmented."""

    channels: int
    classes: tuple[str, ...]  # index 0 is background, or the first land-cover class
    colors: tuple[tuple[int, int, int], ...]  # one RGB per class, for pictures and color tables
    background: int | None = None  # the class that is no object of its own; None: each is one


class Case(Protocol):
    """A whole volume or a whole scene: what a radiologist or a cartographer opens."""

    @property
    def id(self) -> str:
        """The name of the case, unique in its data set."""

    @property
    def group(self) -> str:
        """What is resampled together: the patient, or the spatial block."""

    @property
    def files(self) -> Sequence[Path]:
        """The files that its image lies in; no annotation."""

    @property
    def truth(self) -> Grid | None:
        """The annotation on the case's own grid, IGNORE where nobody looked; read when asked."""


class Measure(NamedTuple):
    """One number of one case: a row of cases.csv."""

    metric: str  # with its unit: "dice", "hd95_mm", "area_ha"
    label: str  # class name; empty where the number speaks of the whole case
    value: float  # NaN only where the metric does not apply, which is then counted


@dataclass(frozen=True, slots=True)
class Findings:
    """What looking at a folder of data brought up."""

    facts: Sequence[tuple[str, str]] = ()  # (what, how much): one row each
    warnings: Sequence[str] = ()  # one sentence each: works, but you should know
    problems: Sequence[str] = ()  # one sentence each with its remedy: training will refuse


@dataclass(frozen=True, slots=True)
class ReportText:
    """What a domain adds to its report, in words."""

    data: Sequence[tuple[str, str]] = ()  # rows of the section on data and splits
    rules: Sequence[str] = ()  # how each metric is defined, and what happens at its edges
    warnings: Sequence[str] = ()
    limits: Sequence[str] = ()  # what such a model must not be asked, for its card
    splits: dict[str, Sequence[str]] = field(default_factory=dict)  # split -> case names
    known: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # of cases, by column


class Domain(Protocol):
    """Volumes or scenes, behind one face."""

    @property
    def task(self) -> Task:
        """Channels and classes."""

    @property
    def headline(self) -> tuple[str, str]:
        """``(metric, label)`` that validation maximizes and the report opens with."""

    @property
    def pixel(self) -> Pixel:
        """How large a pixel of a batch is; read when asked."""

    def prepare(self, watch: Watch) -> None:
        """Make once what ``batches`` reads, where reading the files each time would be slow.

        ``batches`` does so, too, but nobody hears of it.
        """

    def batches(
        self, *, seed: int, first_step: int, extra: Mapping[str, int] | None = None
    ) -> Iterator[Batch]:
        """Training batches without end, a function of ``(seed, step, extra)`` alone.

        Args:
            seed: Of the order and of each view.
            first_step: Counted from 0.
            extra: By their id, how many times more labeled cases are seen; absent: as all others.
        """

    def shown(self) -> Mapping[str, frozenset[int]]:
        """The classes in the annotation of each labeled case, by its id; of no other case."""

    @property
    def mirrors(self) -> Sequence[int]:
        """Spatial axes, counted from 0, along which the weak view mirrors images."""

    def strong(self, image: Image) -> Image:
        """A harder photometric view, pixel for pixel aligned; drawn from torch's generator."""

    def new_network(self, peer: int = 0) -> nn.Module:
        """A fresh network, ``(B, C, *S)`` to logits ``(B, K, *S)``; the partner for peers > 0."""

    def cases(self, split: Split) -> Iterable[Case]:
        """Whole cases of one split, one at a time."""

    def files(self) -> Iterable[Path]:
        """The files that training and testing read; no label of an unlabeled case."""

    def find(self, paths: Sequence[Path]) -> Iterable[Case]:
        """Cases from files and folders outside the data set, without truth.

        Raises:
            DataError: Naming every path that cannot be used, and why.
        """

    def predict(self, network: nn.Module, case: Case) -> ClassVolume:
        """Probabilities ``(K, *S)`` on the case's own grid; may lie on disk where it is large."""

    def whole(self, case: Case) -> Whole:
        """The image of a case on its own grid, normalized, every class possible; no annotation."""

    def measure(self, predicted: ClassVolume, case: Case) -> list[Measure]:
        """Domain metrics of one case, with units in their names."""

    def summarize(self, table: pd.DataFrame) -> pd.Series:
        """From cases to the data set.

        Args:
            table: One row per case, one column per ``(metric, label)``.

        Returns:
            One value per ``(metric, label)``, the headline among them.
        """

    def name_of(self, case: Case) -> str:
        """The file name of a label map of the case."""

    def write(self, predicted: ClassVolume, case: Case, folder: Path) -> Path:
        """Save a label map where it lies in the world: affine or CRS intact."""

    def write_confidence(self, predicted: ClassVolume, case: Case, folder: Path) -> Path:
        """Save the largest probability of each pixel where it lies in the world, in 8 bits."""

    def write_probabilities(self, predicted: ClassVolume, case: Case, folder: Path) -> Path:
        """Save every class's probability of each pixel where it lies, in 16 bits with a scale."""

    def write_pseudo(
        self, probs: ClassVolume, sure: Marked, case: Case, folder: Path, *, about: str
    ) -> Path:
        """Save a pseudo-label like :meth:`write`, unmarked where ``sure`` ``(*S)`` is False.

        It is read back as scribbles. ``about`` goes into its header or tags.
        """

    def figure(self, predicted: ClassVolume, case: Case, folder: Path) -> Path:
        """One picture for the report: image, prediction, and where it errs."""

    def describe(self) -> ReportText:
        """What the report says of the data, the splits and the metrics."""
