"""How lines and dots of charts are colored, by day and by night."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

DAY, NIGHT = (255, 255, 255), (28, 32, 34)  # of the cards that charts lie on, see report.css
LEAST_CONTRAST = 3.0  # of graphics, WCAG 2.1


class Paint(NamedTuple):
    """How a line is drawn."""

    kind: str  # classes of the style sheet
    style: str = ""  # colors of its own, by day and by night


INK, QUIET = Paint("ink"), Paint("quiet dashed")
"""All classes together, and what a line is held against."""


def of_palette(index: int) -> Paint:
    """One of eight colors, then the same dashed."""
    return Paint(f"c{index % 8}" + (" dashed" if index >= 8 else ""))


def of_class(color: tuple[int, int, int]) -> Paint:
    """The color of a class, moved towards black or white where a card would swallow it."""
    day, night = (_legible(color, card) for card in (DAY, NIGHT))
    return Paint("own", f"--day:rgb({day});--night:rgb({night})")


def _legible(color: tuple[int, int, int], card: tuple[int, int, int]) -> str:
    """``color``, as much nearer to the far end of gray as it takes to stand out from a card."""
    end = 0 if _luminance(card) > 0.5 else 255
    for tenth in range(11):
        mixed = [round(each + (end - each) * tenth / 10) for each in color]
        low, high = sorted([_luminance(mixed), _luminance(card)])
        if (high + 0.05) / (low + 0.05) >= LEAST_CONTRAST:
            break
    return " ".join(map(str, mixed))


def _luminance(color: Sequence[int]) -> float:
    """Relative luminance, WCAG 2.1."""
    linear = [
        each / 12.92 if each <= 0.03928 else ((each + 0.055) / 1.055) ** 2.4
        for each in (value / 255 for value in color)
    ]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))
