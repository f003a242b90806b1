"""Small rasters on disk, awkward on purpose."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine

from rsseg_ssl.cases import SceneCase

UTM = "EPSG:32632"


def north_up(column: float = 0, row: float = 0, *, side: int = 16, size: float = 2.0) -> Affine:
    """The transform of the tile in this column and row of a mosaic of tiles."""
    x, y = 500_000 + column * side * size, 5_400_000 - row * side * size
    return Affine(size, 0, x, 0, -size, y)


def save(
    path: Path,
    pixels: np.ndarray,
    *,
    crs: str | None = UTM,
    transform: Affine | None = None,
    **more,
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = pixels.shape
    profile = {"driver": "GTiff", "count": count, "height": height, "width": width}
    profile |= {"dtype": pixels.dtype, "crs": crs, "transform": transform or north_up()} | more
    with rasterio.open(path, "w", **profile) as target:
        target.write(pixels)
    return path


def noise(seed: int = 0, *, bands: int = 3, side: int = 16, dtype: str = "uint8") -> np.ndarray:
    values = np.random.default_rng(seed).integers(1, 200, (bands, side, side))
    return values.astype(dtype)


def halves(seed: int = 0, *, side: int = 16, values: tuple[int, int] = (0, 1)) -> np.ndarray:
    mask = np.full((1, side, side), values[0], dtype=np.uint8)
    mask[:, :, side // 2 + seed % 3 :] = values[1]
    return mask


def scene(path: Path, *, mask: Path | None = None, **more) -> SceneCase:
    given = {"id": path.stem, "group": path.stem, "images": (path,), "values": (0, 1)} | more
    return SceneCase(mask=mask, **given)


def mosaic(
    folder: Path, *, blocks: int = 5, per_block: int = 2, labeled: int = 99, side: int = 16, **more
) -> Path:
    """Blocks of tiles that touch, one tile apart from each other; ``t0``, ``t1``, ..."""
    number = 0
    for block in range(blocks):
        for column in range(per_block):
            place = north_up(column + block * (per_block + 1), side=side)
            name = f"t{number}.tif"
            save(folder / "images" / name, noise(number, side=side), transform=place, **more)
            if number < labeled:
                save(folder / "masks" / name, halves(number, side=side), transform=place, **more)
            number += 1
    classes = [{"id": 0, "name": "land"}, {"id": 1, "name": "water", "color": [0, 0, 255]}]
    (folder / "classes.json").write_text(json.dumps({"classes": classes}), encoding="utf-8")
    return folder
