"""How a number and its name are shown to people."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

UNITS = {
    "mm": "mm",
    "ml": "ml",
    "ha": "ha",
    "m": "m",
    "m2": "m²",
    "mm2": "mm²",
    "mm3": "mm³",
    "km2": "km²",
    "percent": "%",
    "px": "px",
    "pixels": "pixels",
    "voxels": "voxels",
    "s": "s",
}
"""Last word of a metric name to the unit behind its numbers."""

DASH, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"
UNSURE = "No interval: it takes at least two groups in which the number is defined."
UNDEFINED = "Not defined here: see how each number is defined."


@dataclass(frozen=True, slots=True)
class Shown:
    """A metric in words."""

    name: str
    unit: str = ""  # empty for fractions and counts
    better: Literal["higher", "lower", ""] = ""
    counted: bool = False  # whole numbers, summed over cases

    @property
    def title(self) -> str:
        """Name and unit, as a column is headed."""
        return f"{self.name} ({self.unit})" if self.unit else self.name


METRICS = {
    "dice": Shown("Dice", better="higher"),
    "iou": Shown("IoU", better="higher"),
    "miou": Shown("Mean IoU", better="higher"),
    "fwiou": Shown("Frequency-weighted IoU", better="higher"),
    "nsd": Shown("NSD", better="higher"),
    "hd95_mm": Shown("HD95", "mm", better="lower"),
    "hd_mm": Shown("HD", "mm", better="lower"),
    "assd_mm": Shown("ASSD", "mm", better="lower"),
    "hd95_voxel": Shown("HD95, MedPy", "voxels", better="lower"),
    "asd_voxel": Shown("ASD, MedPy", "voxels", better="lower"),
    "precision": Shown("Precision", better="higher"),
    "recall": Shown("Recall", better="higher"),
    "f1": Shown("F1", better="higher"),
    "kappa": Shown("Cohen's kappa", better="higher"),
    "pa": Shown("Pixel accuracy", better="higher"),
    "pixel_accuracy": Shown("Pixel accuracy", better="higher"),
    "ma": Shown("Mean accuracy", better="higher"),
    "mean_accuracy": Shown("Mean accuracy", better="higher"),
    "producers_accuracy": Shown("Producer's accuracy", better="higher"),
    "users_accuracy": Shown("User's accuracy", better="higher"),
    "volume_ml": Shown("Volume", "ml"),
    "volume_truth_ml": Shown("True volume", "ml"),
    "volume_error_ml": Shown("Volume error", "ml"),
    "volume_error_percent": Shown("Volume error", "%"),
    "components": Shown("Components"),
    "components_truth": Shown("True components"),
    "area_ha": Shown("Area", "ha"),
    "area_truth_ha": Shown("True area", "ha"),
    "area_error_ha": Shown("Area error", "ha"),
    "missed": Shown("Missed", "cases", better="lower", counted=True),
    "spurious": Shown("Spurious", "cases", better="lower", counted=True),
    "absent": Shown("Absent", "cases", counted=True),
}
"""Metrics by the name they have in cases.csv. Any other is named after itself."""


def shown(metric: str) -> Shown:
    """A metric in words, also one nobody told us of: ``boundary_f1_px`` is Boundary f1 (px)."""
    if metric in METRICS:
        return METRICS[metric]
    words = metric.split("_")
    unit = UNITS.get(words[-1], "") if len(words) > 1 else ""
    text = " ".join(words[:-1] if unit else words).strip()
    return Shown(f"{text[:1].upper()}{text[1:]}" or metric, unit)


def heading(metric: str, name: str = "") -> str:
    """A metric of a class as a title: ``HD95 (mm), hippocampus``."""
    title = shown(metric).title
    return f"{title}, {name}" if name else title


def number(value: float | None, metric: str = "") -> str:
    """A value as text without its unit: ``0.874``, ``12.3``, ``1,234``; a dash for NaN."""
    if value is None or math.isnan(value):
        return DASH
    sign = MINUS if value < 0 else ""
    size = abs(value)
    if math.isinf(size):
        return f"{sign}∞"
    if shown(metric).counted and size == int(size):
        return f"{sign}{size:,.0f}"
    if shown(metric).unit:
        digits = 0 if size >= 1000 else 1 if size >= 100 else 2
        digits = 3 if 0 < size < 0.1 else digits
        return f"{sign}{size:,.{digits}f}"
    return f"{sign}{size:.3f}" if size < 1000 else f"{sign}{size:,.0f}"


def cell(value: float | None, metric: str = "", *, why: str = UNDEFINED) -> Markup:
    """A value for a table: NaN is a dash that says ``why``."""
    text = number(value, metric)
    if text == DASH:
        return Markup('<abbr title="{}">{}</abbr>').format(why, DASH)
    return Markup("{}").format(text)


def ends(low: float, high: float, metric: str = "") -> str:
    """Both ends of an interval; empty where it could not be had."""
    if math.isnan(low) or math.isnan(high):
        return ""
    to = " to " if low < 0 else f" {DASH} "
    return f"{number(low, metric)}{to}{number(high, metric)}"


def interval(low: float, high: float, metric: str = "", *, why: str = UNSURE) -> Markup:
    """Both ends of an interval for a table; a dash that says ``why`` where there is none."""
    text = ends(low, high, metric)
    return Markup("{}").format(text) if text else cell(None, why=why)


def percent(value: float | None) -> str:
    """A share in [0, 1] as ``97.3 %``; a dash for NaN."""
    if value is None or math.isnan(value):
        return DASH
    return f"{100 * value:.1f} %"


def share(part: float, whole: float) -> float:
    """A part of a whole; NaN of nothing."""
    return part / whole if whole else math.nan


def label(name: str) -> str:
    """A class name; what speaks of no class speaks of the whole."""
    return name or "overall"


def plural(count: int, noun: str) -> str:
    """``1 case``, ``2 cases``, ``3 classes``."""
    if count == 1:
        return f"1 {noun}"
    return f"{count:,} {noun}{'es' if noun.endswith('s') else 's'}"


def span(values: Iterable[float]) -> str:
    """``34 to 47``, or ``1`` where all are the same in three digits."""
    each = [*values]
    low, high = f"{min(each):.3g}", f"{max(each):.3g}"
    return low if low == high else f"{low} to {high}"


def some(names: list[str], most: int = 5) -> str:
    """The first names, and how many more there are."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
