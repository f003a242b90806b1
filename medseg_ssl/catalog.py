"""What a folder or a manifest says of its cases, before any volume is opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from common.splits import Names
from medseg_ssl.cases import VolumeCase
from medseg_ssl.legend import Region


@dataclass(frozen=True, slots=True)
class Catalog:
    """What a folder or a manifest says of its cases."""

    layout: str
    cases: tuple[VolumeCase, ...]
    classes: tuple[tuple[str, int], ...] = ()  # (name, label value); empty: the layout is silent
    channels: tuple[str, ...] = ()
    ignore: int | None = None
    regions: tuple[Region, ...] = ()  # unions of classes, which are measured as well
    splits: Mapping[str, Names] = field(default_factory=dict)  # of a manifest or of lists
    order: Names = ()  # of a list of training cases: papers label the first of them
    across: int | None = None  # the axis of slices far apart, where no spacing tells it
    knows_patients: bool = False
    known: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # column -> case -> value
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
