"""One picture of a case for the report: three planes, truth, prediction, and where it errs.

Seen as radiologists see: the patient's right is on the left, the front is up or left. All panels
share one scale.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image as Pillow

from common.domain import Task
from medseg_ssl.export import whole
from medseg_ssl.sheet import COLORS, PAPER_RGB, Color, picture
from medseg_ssl.view import look

MOST_EXACT, GRAY_STEP = 80, 3
"""Classes whose color is kept to the bit, and between two grays: a palette holds 256 colors."""


def draw_volume(
    image: np.ndarray,
    predicted: np.ndarray,
    truth: np.ndarray | None,
    *,
    affine: np.ndarray,
    task: Task,
    title: str,
    path: Path,
) -> Path:
    """Save a PNG of three planes through the middle of the foreground.

    Args:
        image: ``(X, Y, Z)`` in file array order, any unit.
        predicted: Class indices on the same grid.
        truth: The same, IGNORE where nobody looked; None where there is no annotation.
        affine: ``(4, 4)``, voxel index to mm.
        task: Names and colors of the classes.
        title: What the picture is called.
        path: Where the PNG goes.

    Returns:
        ``path``.

    Raises:
        RunError: When the file cannot be written.
    """
    view = look(image, predicted, truth, affine)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # drawn as boxes
        pixels = picture(view, task, title)
    with whole(path) as beside, beside.open("wb") as file:
        _few_colors(pixels, [PAPER_RGB, *task.colors[:MOST_EXACT], *COLORS]).save(
            file, "png", optimize=True
        )
    return path


def _few_colors(pixels: np.ndarray, colors: Sequence[Color]) -> Pillow.Image:
    """The picture in 256 colors, a third of the bytes: ``colors`` to the bit, grays stay gray."""
    sheet = Pillow.fromarray(pixels)
    kept = [*colors, *((gray, gray, gray) for gray in range(0, 256, GRAY_STEP))]
    found = sheet.quantize(256 - len(kept), method=Pillow.Quantize.MAXCOVERAGE).getpalette()
    palette = Pillow.new("P", (1, 1))
    palette.putpalette([*(value for color in kept for value in color), *(found or [])])
    return sheet.quantize(palette=palette, dither=Pillow.Dither.NONE)
