"""Bands as a person can look at them: small, stretched, in red, green and blue."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rsseg_ssl import reader
from rsseg_ssl.cases import SceneCase
from rsseg_ssl.reader import Window

STRETCH_PERCENT = (2.0, 98.0)

NAMES = {
    "red": re.compile(r"^(r|red|b0?4)$", re.IGNORECASE),
    "green": re.compile(r"^(g|green|b0?3)$", re.IGNORECASE),
    "blue": re.compile(r"^(b|blue|b0?2)$", re.IGNORECASE),
    "nir": re.compile(r"^(n|nir|near[ _-]?infrared|b0?8)$", re.IGNORECASE),
}
"""What bands are called; B2, B3, B4, B8 as on Sentinel-2."""


class Composite(NamedTuple):
    """A picture ``(h, w, 3)`` in [0, 1], and what it shows."""

    title: str
    rgb: NDArray[np.float64]


class Small(NamedTuple):
    """A scene in fewer pixels: means of valid pixels, NaN where there are none."""

    bands: NDArray[np.float64]  # (C, h, w)
    step: int  # pixels of the scene per pixel here, along each side

    @property
    def valid(self) -> NDArray[np.bool_]:
        """Where anything holds data ``(h, w)``."""
        return np.asarray(np.isfinite(self.bands).all(axis=0))


def shrink(case: SceneCase, most_pixels: int) -> Small:
    """Read a scene block by block into at most ``most_pixels`` along its longer side."""
    height, width = case.grid.shape_yx
    step = -(-max(height, width) // most_pixels)
    rows = step * max(1, 512 // step)
    parts = []
    for top in range(0, height, rows):
        lines, columns = -(-min(rows, height - top) // step), -(-width // step)
        window = Window(top, 0, lines * step, columns * step)
        pixels, valid = reader.read(case, window)
        blocks = (lines, step, columns, step)
        count = valid.reshape(blocks).sum(axis=(1, 3))
        known = np.where(valid, pixels, 0).astype(np.float64)
        total = known.reshape(len(known), *blocks).sum(axis=(2, 4))
        parts.append(np.where(count > 0, total / np.maximum(count, 1), np.nan))
    return Small(np.concatenate(parts, axis=1), step)


def composites(small: Small, names: list[str | None]) -> list[Composite]:
    """One or two pictures of a scene.

    Three or more bands: those named red, green and blue, or else the first three; with a
    near-infrared band (named so, or the fourth of four) also near-infrared, red, green.
    Two bands: both and their difference, as is usual for radar in dB. One band: gray.
    """
    bands = [*small.bands]
    if len(bands) == 1:
        return [_composite("Image", bands * 3)]
    if len(bands) == 2:
        first, second = (name or f"band {i}" for i, name in enumerate(names, start=1))
        title = f"{first}, {second}, {first} - {second}"
        return [_composite(title, [*bands, bands[0] - bands[1]])]
    place = {color: _find(names, color) for color in NAMES}
    if None in (place["red"], place["green"], place["blue"]):
        nir = 3 if len(bands) == 4 else place["nir"]
        place = {"red": 0, "green": 1, "blue": 2, "nir": nir}
    shown = [_composite("Image", [bands[place[color] or 0] for color in ("red", "green", "blue")])]
    if place["nir"] is not None:
        false = [bands[place[color] or 0] for color in ("nir", "red", "green")]
        shown.append(_composite("Near-infrared", false))
    return shown


def band_names(case: SceneCase) -> list[str | None]:
    """What the files call the bands that the case uses; None for those without a name."""
    names = [name for path in case.images for name in reader.opened(path).descriptions]
    return [names[band - 1] for band in case.bands] if case.bands is not None else names


def _composite(title: str, bands: list[NDArray[np.float64]]) -> Composite:
    return Composite(title, np.stack([_stretched(band) for band in bands], axis=-1))


def _stretched(band: NDArray[np.float64]) -> NDArray[np.float64]:
    """From the low to the high percentile of valid pixels to [0, 1]; a constant band is gray."""
    known = band[np.isfinite(band)]
    low, high = np.percentile(known, STRETCH_PERCENT) if known.size else (0.0, 0.0)
    if high <= low:
        return np.full_like(band, 0.5)
    return np.clip((np.nan_to_num(band, nan=low) - low) / (high - low), 0, 1)


def _find(names: list[str | None], color: str) -> int | None:
    found = [i for i, name in enumerate(names) if name and NAMES[color].match(name.strip())]
    return found[0] if found else None
