"""What a YAML file of this adapter may say under ``domain:``."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from common.batch import IGNORE
from common.config import DomainSettings, Run
from common.settings import Count, Fraction, Positive, PositiveReal, Settings
from common.splits import Splits
from medseg_ssl.allowance import MEMORY_MB
from medseg_ssl.augment import StrongView, WeakView
from medseg_ssl.inference import InferenceSettings
from medseg_ssl.intensity import AnyNormalize, ZScore
from medseg_ssl.measures import MeasureSettings
from medseg_ssl.networks import AnyNetwork, UNet
from medseg_ssl.weak_labels import VolumeLegend, VolumeWeakLabelFiles

CACHE = Path("~/.cache/seg-ssl/medseg")
"""Where preprocessed volumes and inspections lie, unless ``domain.cache`` says otherwise."""

Level: TypeAlias = Annotated[int, Field(ge=0, le=255)]
Color: TypeAlias = tuple[Level, Level, Level]

PALETTE: tuple[Color, ...] = (
    (230, 75, 53),
    (77, 187, 213),
    (0, 160, 135),
    (243, 155, 127),
    (60, 84, 136),
    (255, 204, 51),
    (145, 112, 192),
    (126, 97, 72),
)
"""Colors of the classes after the background, in turn, where none is given."""


class ClassSettings(Settings):
    """One class: what it is called, and which label value stands for it."""

    name: str
    value: Count
    color: Color | None = None  # in pictures; absent: the palette decides


class MedsegSettings(DomainSettings):
    """Volumes: where they lie, who trains, and how they are seen."""

    data: Path  # a folder, or a .csv manifest; counted from where the command runs
    cache: Path = CACHE
    preprocess_memory_mb: Positive = MEMORY_MB  # of the cases that are preprocessed at once
    splits: Splits
    channels: Annotated[tuple[str, ...], Field(min_length=1)] = ("image",)
    classes: Annotated[tuple[ClassSettings, ...], Field(min_length=2, max_length=IGNORE)]
    ignore_value: int | None = None  # label value of voxels that nobody annotated
    spacing_mm: Literal["median"] | tuple[PositiveReal, PositiveReal, PositiveReal] = "median"
    normalize: AnyNormalize = ZScore()
    patch: tuple[Positive, Positive, Positive]  # voxels to the right, the front, the top
    foreground_share: Fraction = 0.5  # of the labeled patches: centered on a voxel of some class
    network: AnyNetwork = UNet()
    partners: tuple[AnyNetwork, ...] = ()  # of the other peers of a mutual method, in turn
    weak_labels: VolumeWeakLabelFiles | None = None  # what is known of unlabeled cases
    weak: WeakView = WeakView()
    strong: StrongView = StrongView()
    inference: InferenceSettings = InferenceSettings()
    measures: MeasureSettings = MeasureSettings()

    @model_validator(mode="after")
    def _classes_differ(self) -> Self:
        names, values = [c.name for c in self.classes], [c.value for c in self.classes]
        if len(set(names)) < len(names) or len(set(values)) < len(values):
            raise ValueError("classes: each needs a name and a value of its own.")
        if "mean" in names:
            raise ValueError("classes: 'mean' is the word for their average. Choose another name.")
        for region, parts in self.measures.regions.items():
            unknown = [part for part in parts if part not in names[1:]]
            if unknown or not parts or region in (*names, "mean"):
                raise ValueError(
                    f"measures.regions: {region!r} must be another name than those of classes, for "
                    f"some of {', '.join(names[1:])}; got {list(parts)}."
                )
        if self.ignore_value in values:
            raise ValueError(
                f"ignore_value {self.ignore_value} is also the value of a class. Change one."
            )
        if self.weak_labels and self.weak_labels.unmarked in values:
            raise ValueError(
                f"weak_labels.unmarked {self.weak_labels.unmarked} is also the value of a class. "
                "Change one."
            )
        return self

    @model_validator(mode="after")
    def _strong_view_keeps_shapes(self) -> Self:
        for index, each in enumerate(self.strong.monai):
            if problem := each.unfit(len(self.channels), self.patch):
                raise ValueError(f"strong.monai.{index}: {problem}")
        return self

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def values(self) -> tuple[int, ...]:
        """The label value of each class."""
        return tuple(each.value for each in self.classes)

    def legend(self, cases: Collection[str]) -> VolumeLegend:
        """What the words and values of weak labels stand for, where the data holds ``cases``."""
        return VolumeLegend(tuple(each.name for each in self.classes), self.values, cases)

    @property
    def colors(self) -> tuple[Color, ...]:
        """The color of each class; black for the background."""
        return tuple(
            each.color or ((0, 0, 0) if index == 0 else PALETTE[(index - 1) % len(PALETTE)])
            for index, each in enumerate(self.classes)
        )


class MedsegRun(Run):
    """One run on volumes."""

    domain: MedsegSettings
