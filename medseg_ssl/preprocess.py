"""From files to arrays a network can eat, and back to the grid of the files.

The preprocessed grid runs to the right, the front and the top (RAS), at one spacing. All of it
is done by MONAI's transforms; what is ours is the way back.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import nibabel as nib
import numpy as np
import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from monai.transforms import (
    Compose,
    NormalizeIntensity,
    Orientation,
    ScaleIntensityRange,
    Spacing,
    Transform,
)
from pydantic import Field
from torch import Tensor

from common.batch import ClassMap, ClassVolume
from common.errors import DataError
from common.room import room
from common.settings import PositiveReal, Settings
from medseg_ssl.augment import around, corners, unit_coordinates
from medseg_ssl.cases import Geometry, Sides, VolumeCase, read_array
from medseg_ssl.files import open_volume

MOST_PER_CLASS = 10_000
"""Voxels of a class that oversampling chooses among."""


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


AnyNormalize = Annotated[ZScore | ZScoreNonzero | Window, Field(discriminator="name")]
"""What ``normalize:`` may say in a YAML file."""


class Recipe(Settings):
    """All that decides what preprocessing makes of a file."""

    spacing_mm: tuple[PositiveReal, PositiveReal, PositiveReal]  # right, front, top
    normalize: AnyNormalize = ZScore()


class Volume(NamedTuple):
    """One image on the preprocessed grid."""

    image: np.ndarray  # (C, X, Y, Z) float32, perhaps a memory map
    affine: np.ndarray  # (4, 4) voxel index to mm


def preprocess(images: Sequence[Path], recipe: Recipe) -> Volume:
    """Read, turn to RAS, resample, normalize.

    Raises:
        DataError: When the image cannot be read or holds NaN or infinite values.
    """
    loaded = _load(images)
    if not bool(torch.isfinite(loaded).all()):
        raise DataError(
            f"{images[0]} holds NaN or infinite voxels. Replace them (0 is usual outside the "
            "body), or remove its case."
        )
    made = Compose([*_to_grid(recipe, "bilinear"), _normalization(recipe.normalize)])(loaded)
    image = made.as_tensor().to(torch.float32).contiguous().numpy()
    return Volume(image=image, affine=np.asarray(made.affine, dtype=np.float64))


def normalized(images: Sequence[Path], recipe: Recipe) -> Tensor:
    """The same image on the grid of its file, ``(C, X, Y, Z)`` float32, not resampled."""
    made = _normalization(recipe.normalize)(_load(images))
    image: Tensor = made.as_tensor().to(torch.float32)
    return image


def preprocess_label(case: VolumeCase, recipe: Recipe) -> np.ndarray:
    """Class indices of ``case`` on its preprocessed grid, uint8; nearest, IGNORE kept."""
    truth = case.truth
    assert truth is not None
    return nearest(truth.numpy(), case.geometry, recipe)


def nearest(label: np.ndarray, geometry: Geometry, recipe: Recipe) -> np.ndarray:
    """Class indices ``(X, Y, Z)`` of a file on its preprocessed grid, uint8."""
    values = torch.from_numpy(label.astype(np.float32))[None]
    placed = MetaTensor(values, affine=torch.from_numpy(geometry.affine))
    made = Compose(_to_grid(recipe, "nearest"))(placed)
    return np.asarray(made.as_tensor()[0].round().to(torch.uint8).contiguous())


def grid_of(geometry: Geometry, recipe: Recipe) -> Geometry:
    """The preprocessed grid of a file; computes no voxel."""
    nothing = torch.zeros(1).expand(1, *geometry.shape)
    placed = MetaTensor(nothing, affine=torch.from_numpy(geometry.affine))
    for step in _to_grid(recipe, "nearest"):
        placed = step(placed, lazy=True)
    x, y, z = (int(side) for side in placed.peek_pending_shape())
    affine = np.asarray(placed.peek_pending_affine(), dtype=np.float64)
    return Geometry((x, y, z), affine, geometry.channels)


def foreground_voxels(target: np.ndarray) -> np.ndarray:
    """At most :data:`MOST_PER_CLASS` random voxels of each class but 0, ``(N, 4)`` int32."""
    rng, rows = np.random.default_rng(0), [np.empty((0, 4), dtype=np.int32)]
    flat = target.ravel()
    for index in np.unique(flat):
        if index in (0, 255):
            continue
        voxels = np.flatnonzero(flat == index)
        if len(voxels) > MOST_PER_CLASS:
            voxels = np.sort(rng.choice(voxels, MOST_PER_CLASS, replace=False))
        place = np.stack(np.unravel_index(voxels, target.shape), axis=1)
        rows.append(np.insert(place, 0, index, axis=1).astype(np.int32))
    return np.concatenate(rows)


def restore(
    probs: ClassVolume, affine: np.ndarray, geometry: Geometry, *, memory_mb: int = 2048
) -> ClassMap:
    """Bring probabilities from the preprocessed grid back to the grid of the file.

    Where both grids hold the same voxels, in another order at most, no value changes. Elsewhere
    each class is interpolated linearly, and the classes of a voxel sum to 1 again.

    Args:
        probs: ``(K, *S)`` on the preprocessed grid.
        affine: Of the preprocessed grid.
        geometry: Of the file.
        memory_mb: What is larger lies on disk, as float16.

    Returns:
        ``(K, X, Y, Z)`` in file array order.
    """
    back = np.linalg.inv(affine) @ geometry.affine  # voxel of the file to preprocessed voxel
    turned = _turned(probs, back, geometry.shape)
    if turned is not None:
        return turned
    return _resampled(probs, back, room((len(probs), *geometry.shape), memory_mb))


def ras(geometry: Geometry) -> tuple[Sides, tuple[float, float, float]]:
    """Shape and spacing in mm with the axes in the order right, front, top."""
    axes = nib.io_orientation(geometry.affine)[:, 0].astype(int)
    order = np.argsort(axes)
    x, y, z = (int(geometry.shape[axis]) for axis in order)
    spacing = [geometry.spacing_mm[axis] for axis in order]
    return (x, y, z), (spacing[0], spacing[1], spacing[2])


def _load(images: Sequence[Path]) -> MetaTensor:
    """All channels of a case ``(C, X, Y, Z)`` float32, where they lie."""
    each = [read_array(path).astype(np.float32) for path in images]
    channels = np.concatenate([array.reshape(*array.shape[:3], -1) for array in each], axis=-1)
    affine = np.asarray(open_volume(images[0]).affine, dtype=np.float64)
    loaded = torch.from_numpy(np.ascontiguousarray(np.moveaxis(channels, -1, 0)))
    return MetaTensor(loaded, affine=torch.from_numpy(affine))


def _to_grid(recipe: Recipe, mode: str) -> list[Transform]:
    return [
        Orientation(axcodes="RAS", labels=None),
        Spacing(pixdim=recipe.spacing_mm, mode=mode, padding_mode="border"),
    ]


def _normalization(normalize: AnyNormalize) -> Transform:
    made: Transform
    match normalize:
        case ZScore():
            made = NormalizeIntensity(channel_wise=True)
        case ZScoreNonzero():
            made = NormalizeIntensity(nonzero=True, channel_wise=True)
        case Window(window_hu=(low, high)):
            made = ScaleIntensityRange(low, high, b_min=-1.0, b_max=1.0, clip=True)
    return made


def _turned(probs: ClassVolume, back: np.ndarray, shape: Sides) -> ClassMap | None:
    """The same voxels in the order of the file; None where they are not the same."""
    turn = np.rint(back[:3, :3])
    if not np.allclose(back[:3, :3], turn, atol=1e-4):
        return None
    if not (np.abs(turn).sum(axis=0) == 1).all() or not (np.abs(turn).sum(axis=1) == 1).all():
        return None
    axes = [int(np.flatnonzero(turn[:, axis])[0]) for axis in range(3)]
    mirrored = [axis for axis in range(3) if turn[axes[axis], axis] < 0]
    sides = probs.shape[1:]
    first = [sides[axes[axis]] - 1 if axis in mirrored else 0 for axis in range(3)]
    same_shape = tuple(sides[axis] for axis in axes) == tuple(shape)
    if not same_shape or not np.allclose(back[axes, 3], first, atol=1e-2):
        return None
    ordered = probs.permute(0, *(1 + axis for axis in axes))
    return ordered.flip([1 + axis for axis in mirrored]) if mirrored else ordered


def _resampled(probs: ClassVolume, back: np.ndarray, made: ClassMap) -> ClassMap:
    """Linear interpolation into ``made``, slab by slab: few voxels at a time are in memory."""
    shape = made.shape[1:]
    rows = max(1, 2_000_000 // (shape[1] * shape[2]))
    for first in range(0, shape[0], rows):
        last = min(first + rows, shape[0])
        ranges = np.arange(first, last), np.arange(shape[1]), np.arange(shape[2])
        voxels = np.stack(np.meshgrid(*ranges, indexing="ij"), axis=-1)
        sources = voxels @ back[:3, :3].T + back[:3, 3]
        low, box = around(probs, corners(sources))
        grid = unit_coordinates(torch.from_numpy((sources - low).astype(np.float32)), box.shape[1:])
        (slab,) = F.grid_sample(
            box.float()[None], grid[None], padding_mode="border", align_corners=True
        )
        made[:, first:last] = slab / slab.sum(dim=0, keepdim=True).clamp_min(1e-6)
    return made
