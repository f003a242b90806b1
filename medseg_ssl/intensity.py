"""Intensities that mean the same from volume to volume."""

from __future__ import annotations

from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from common.settings import Settings
from medseg_ssl.voxels import along


class ZScore(Settings):
    """Each channel of each volume to mean 0 and standard deviation 1: for MRI, without units."""

    name: Literal["zscore"] = "zscore"


class ZScoreNonzero(Settings):
    """The same of all voxels but those that are 0, which stay 0: for MRI without its surroundings.

    Else the share of empty voxels, and not the tissue, decides how bright tissue is.
    """

    name: Literal["zscore_nonzero"] = "zscore_nonzero"


class Window(Settings):
    """Clip to a window and map it to -1 to 1: for CT, whose units mean the same everywhere."""

    name: Literal["window"] = "window"
    window_hu: tuple[float, float]

    @model_validator(mode="after")
    def _is_a_window(self) -> Self:
        low, high = self.window_hu
        if not low < high:
            raise ValueError(
                f"window_hu: the first must be below the second, got {low:g}, {high:g}."
            )
        return self


AnyNormalize = Annotated[ZScore | ZScoreNonzero | Window, Field(discriminator="name")]
"""What ``normalize:`` may say in a YAML file."""


def normalize(image: np.ndarray, how: AnyNormalize) -> np.ndarray:
    """``image (C, X, Y, Z)`` float32, changed in place, a few slices at a time."""
    match how:
        case ZScore() | ZScoreNonzero():
            for channel in image:
                _to_zscore(channel, nonzero=isinstance(how, ZScoreNonzero))
        case Window(window_hu=(low, high)):
            for some in along(image.shape, 1):
                part = image[:, some]
                part -= low
                part /= high - low
                part *= 2
                part -= 1
                np.clip(part, -1, 1, out=part)
    return image


def _to_zscore(channel: np.ndarray, *, nonzero: bool) -> None:
    """Sums are of float64; a channel of one value becomes 0, one without voxels stays."""
    pieces = [channel[some] for some in along(channel.shape, 0)]

    def mean_of(power: int, around: float) -> float:
        values = ((piece[piece != 0] if nonzero else piece).astype(np.float64) for piece in pieces)
        return sum(float(((each - around) ** power).sum()) for each in values) / count

    count = sum(int(np.count_nonzero(p)) if nonzero else p.size for p in pieces)
    if count == 0:
        return
    mean = mean_of(1, 0.0)
    deviation = mean_of(2, mean) ** 0.5 or 1.0
    for piece in pieces:
        where = piece != 0 if nonzero else True
        np.subtract(piece, mean, out=piece, where=where)
        np.divide(piece, deviation, out=piece, where=where)
