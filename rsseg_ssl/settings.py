"""What a run on scenes is told."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from common.config import DomainSettings, Run
from common.sampling import BatchSize
from common.settings import Count, Fraction, Positive, PositiveReal, Settings
from common.splits import Splits
from rsseg_ssl.augment import Strong, Weak
from rsseg_ssl.blocks import AnyBlocks, Touching
from rsseg_ssl.entries import color_of
from rsseg_ssl.inference import InferenceSettings
from rsseg_ssl.networks import AnyNetwork, ByName
from rsseg_ssl.weak_labels import SceneWeakLabelFiles

Byte: TypeAlias = Annotated[int, Field(ge=0, le=255)]
Color: TypeAlias = tuple[Byte, Byte, Byte]
Band: TypeAlias = Annotated[int, Field(ge=1)]


class LandClass(Settings):
    """One class of the map."""

    name: Annotated[str, Field(min_length=1)]
    value: int  # in the mask files
    color: Color | None = None  # in pictures and color tables; absent: the palette decides


class Statistics(Settings):
    """Mean and standard deviation of each band, over valid training pixels."""

    mean: tuple[float, ...]
    std: tuple[PositiveReal, ...]

    @model_validator(mode="after")
    def _one_each(self) -> Self:
        if not self.mean or len(self.mean) != len(self.std):
            raise ValueError(
                f"one mean and one std per band, got {len(self.mean)} and {len(self.std)}."
            )
        return self


class RssegSettings(DomainSettings):
    """Scenes, splits, classes, and how windows of them are made into batches."""

    data: Path  # a folder with images/ and masks/, of VOC or Cityscapes, or a manifest .csv
    masks: Annotated[str, Field(min_length=1)] | None = None  # their folder; absent: the usual one
    splits: Splits  # files: relative to the current folder, or else to the data
    classes: Annotated[tuple[LandClass, ...], Field(min_length=2, max_length=254)]
    ignore: tuple[int, ...] = ()  # mask values where nobody looked
    bands: Literal["all"] | Annotated[tuple[Band, ...], Field(min_length=1)] = "all"
    nodata: Literal["declared"] | tuple[float, ...] = "declared"  # values instead of the files'
    alpha_band: Band | None = None  # a band whose zeros hide pixels; absent: no flag is trusted
    blocks: AnyBlocks = Touching()  # what is never split, and what a report resamples
    statistics: Literal["measure"] | Statistics = "measure"
    tile: Positive = 128  # side of a training and prediction window, in pixels
    tries: Positive = 8  # windows drawn until one shows annotated (or valid) pixels
    class_share: Fraction = 0.0  # of the labeled windows: drawn around a random class of a scene
    cache_mb: Count = 1024  # decoded scenes kept in memory by each process
    batch: BatchSize = BatchSize(labeled=4, unlabeled=8)
    network: AnyNetwork = ByName()
    partners: tuple[AnyNetwork, ...] = ()  # of the other peers of a mutual method, in turn
    weak_labels: SceneWeakLabelFiles | None = None  # what is known of unlabeled scenes
    weak: Weak = Weak()
    strong: Strong = Strong()
    inference: InferenceSettings = InferenceSettings()

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        for what, values in (
            ("name", [each.name for each in self.classes]),
            ("value", [each.value for each in self.classes]),
        ):
            if len({*values}) < len(values):
                raise ValueError(f"two classes share one {what}. Each {what} must be its own.")
        both = {each.value for each in self.classes} & {*self.ignore}
        if both:
            raise ValueError(
                f"mask value {min(both)} is a class and also in domain.ignore. Keep it in one."
            )
        return self

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def values(self) -> tuple[int, ...]:
        """The mask value of each class."""
        return tuple(each.value for each in self.classes)

    @property
    def background(self) -> int | None:
        """Which class is called so; land cover has none, as a rule."""
        names = [each.name.casefold() for each in self.classes]
        return names.index("background") if "background" in names else None

    @property
    def colors(self) -> tuple[Color, ...]:
        """The color of each class."""
        return tuple(each.color or color_of(index) for index, each in enumerate(self.classes))

    @property
    def measured(self) -> Statistics:
        """The statistics of a resolved run."""
        assert isinstance(self.statistics, Statistics), "resolve the run first"
        return self.statistics


class RssegRun(Run):
    """A run on scenes."""

    domain: RssegSettings
