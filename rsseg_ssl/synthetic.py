"""Made-up scenes: small enough for a demo, awkward enough to prove something.

Fields cut by roads, a lake, and roofs in four bands, under an illumination that changes from scene
to scene. Scenes lie in pairs that touch; some have a corner without data.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from scipy import ndimage

from common.sampling import generator
from common.settings import Fraction, NonNegative, Positive, Settings

CLASSES = (
    ("field", (222, 203, 148)),
    ("forest", (46, 125, 50)),
    ("water", (43, 101, 236)),
    ("road", (110, 110, 110)),
    ("building", (215, 48, 39)),
)
FIELD, FOREST, WATER, ROAD, BUILDING = range(5)
BANDS = ("blue", "green", "red", "nir")
REFLECTANCE = np.array(  # of each class (row) in each band
    [
        [0.09, 0.13, 0.15, 0.32],
        [0.04, 0.07, 0.05, 0.38],
        [0.07, 0.06, 0.04, 0.02],
        [0.15, 0.16, 0.17, 0.20],
        [0.20, 0.18, 0.24, 0.26],
    ]
)
CRS = "EPSG:32632"
CORNER_XY_M = (500_000.0, 5_400_000.0)
EVERY_THIRD = 3


class Landscape(Settings):
    """How large and how hard."""

    side: Positive = 96  # pixels
    resolution_m: NonNegative = 2.0
    dtype: Literal["uint8", "uint16"] = "uint16"
    noise: NonNegative = 0.012  # of reflectance
    haze: Fraction = 0.35  # how much brighter or darker a scene may be than another


LANDSCAPE = Landscape()
"""Trains in under a minute on a CPU."""


def make_scenes(
    folder: Path, *, cases: int, labeled: int, seed: int, landscape: Landscape = LANDSCAPE
) -> Path:
    """Write ``cases`` scenes as ``images/`` and ``masks/``, the first ``labeled`` with a mask.

    The same arguments write the same pixels. Scenes 0 and 1 touch, as do 2 and 3, and so on.

    Returns:
        ``folder``, which any verb of ``rsseg-ssl`` takes.
    """
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number in range(cases):
        image, mask = make_scene(generator(seed, number), landscape)
        if number % EVERY_THIRD == 0:
            image[:, _corner(landscape.side)] = 0
        profile = _profile(number, landscape)
        path = f"scene_{number:03d}.tif"
        _write(folder / "images" / path, image, {**profile, "nodata": 0})
        if number < labeled:
            _write(folder / "masks" / path, mask[None], {**profile, "dtype": "uint8"})
    described = {
        "bands": BANDS,
        "classes": [
            {"id": index, "name": name, "color": color}
            for index, (name, color) in enumerate(CLASSES)
        ],
    }
    (folder / "classes.json").write_text(json.dumps(described, indent=1), encoding="utf-8")
    return folder


def make_scene(
    rng: np.random.Generator, landscape: Landscape
) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """Bands ``(4, side, side)``, never 0, and the class of each pixel."""
    side = landscape.side
    mask = _land(rng, side)
    patches = 1 + 0.25 * _blobs(rng, side, size=side / 6)
    reflectance = REFLECTANCE[mask].transpose(2, 0, 1) * patches
    stripes = 0.02 * np.sin(np.arange(side) * rng.uniform(0.8, 1.6))
    reflectance += stripes[None, :, None] * (mask == FIELD)
    reflectance += 0.03 * _blobs(rng, side, size=1.5) * (mask == FOREST)
    light = np.exp(rng.uniform(-landscape.haze, landscape.haze, size=(4, 1, 1)) * 0.5)
    light = light * np.exp(rng.uniform(-landscape.haze, landscape.haze))
    reflectance = reflectance * light + landscape.noise * rng.standard_normal(reflectance.shape)
    scale, highest = (500, 255) if landscape.dtype == "uint8" else (10_000, 65_535)
    stored = np.clip(np.round(reflectance * scale), 1, highest)
    return stored.astype(landscape.dtype), mask


def _land(rng: np.random.Generator, side: int) -> NDArray[np.uint8]:
    mask = np.full((side, side), FIELD, dtype=np.uint8)
    mask[_blobs(rng, side, size=side / 8) > 0.5] = FOREST
    mask[_blobs(rng, side, size=side / 7) > 0.9] = WATER
    rows, columns = np.mgrid[:side, :side]
    for _ in range(2):
        angle, through = rng.uniform(0, np.pi), rng.uniform(0.2, 0.8, size=2) * side
        distance = np.cos(angle) * (rows - through[0]) + np.sin(angle) * (columns - through[1])
        mask[np.abs(distance) < side / 40] = ROAD
    for _ in range(int(rng.integers(6, 12))):
        top, left = rng.integers(0, side - side // 8, size=2)
        height, width = rng.integers(side // 16, side // 9, size=2)
        lot = mask[top : top + height, left : left + width]
        if not np.isin(lot, (WATER, ROAD)).any():
            lot[:] = BUILDING
    return mask


def _blobs(rng: np.random.Generator, side: int, *, size: float) -> NDArray[np.float64]:
    """Smooth noise of mean 0 and deviation 1, with features of ``size`` pixels."""
    smooth = ndimage.gaussian_filter(rng.standard_normal((side, side)), size / 2, mode="wrap")
    return np.asarray((smooth - smooth.mean()) / smooth.std())


def _corner(side: int) -> NDArray[np.bool_]:
    rows, columns = np.mgrid[:side, :side]
    return np.asarray(rows + columns < side // 3)


def _profile(number: int, landscape: Landscape) -> dict[str, Any]:
    extent_m = landscape.side * landscape.resolution_m
    pair, second = divmod(number, 2)
    x, y = CORNER_XY_M
    left, size = x + (4 * pair + second) * extent_m, landscape.resolution_m
    return {
        "driver": "GTiff",
        "height": landscape.side,
        "width": landscape.side,
        "dtype": landscape.dtype,
        "crs": CRS,
        "transform": Affine(size, 0, left, 0, -size, y),
        "compress": "deflate",
    }


def _write(path: Path, pixels: NDArray[Any], profile: dict[str, Any]) -> None:
    with rasterio.open(path, "w", count=len(pixels), **profile) as target:
        target.write(pixels)
        if len(pixels) == len(BANDS):
            target.descriptions = BANDS
