"""From files to arrays a network can eat, and back to the grid of the files.

The preprocessed grid runs to the right, the front and the top (RAS), at one spacing. Where it lies
is MONAI's to say; values are brought there and back slab by slab, so that a volume takes the memory
of its file and of its result, and little more.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from monai.data.utils import AFFINE_TOL
from monai.transforms import Orientation, Spacing
from torch import Tensor

from common.batch import ClassMap, ClassVolume
from common.errors import DataError
from common.room import room
from common.settings import PositiveReal, Settings
from medseg_ssl.cases import Geometry, Sides, VolumeCase, read_geometry
from medseg_ssl.intensity import AnyNormalize, ZScore, normalize
from medseg_ssl.resampling import nearest as nearest_of
from medseg_ssl.resampling import sampled, slabs, turn_to
from medseg_ssl.voxels import Channels, Voxels, along, read_voxels

MOST_PER_CLASS = 10_000
"""Voxels of a class that oversampling chooses among."""


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

    Where the spacing is that of the file, no value is interpolated. Elsewhere they are those of
    MONAI's ``Spacing``, linear, and beyond the edge those at the edge.

    Raises:
        DataError: When the image cannot be read or holds NaN or infinite values.
    """
    files, geometry = [read_voxels(path) for path in images], read_geometry(images)
    _require_finite(images, files)
    grid = grid_of(geometry, recipe)
    made = _resampled(Channels.of(files), np.linalg.inv(geometry.affine) @ grid.affine, grid.shape)
    return Volume(image=normalize(made, recipe.normalize), affine=grid.affine)


def normalized(images: Sequence[Path], recipe: Recipe) -> Tensor:
    """The same image on the grid of its file, ``(C, X, Y, Z)`` float32, not resampled."""
    channels = Channels.of([read_voxels(path) for path in images])
    image = _resampled(channels, np.eye(4), channels.shape[1:])
    return torch.from_numpy(normalize(image, recipe.normalize))


def preprocess_label(case: VolumeCase, recipe: Recipe) -> np.ndarray:
    """Class indices of ``case`` on its preprocessed grid, uint8; nearest, IGNORE kept."""
    classes = case.classes
    assert classes is not None
    return nearest(classes, case.geometry, recipe)


def nearest(label: np.ndarray, geometry: Geometry, recipe: Recipe) -> np.ndarray:
    """Class indices ``(X, Y, Z)`` of a file on its preprocessed grid, uint8."""
    grid = grid_of(geometry, recipe)
    matrix = np.linalg.inv(geometry.affine) @ grid.affine
    turn = turn_to(matrix, label.shape, grid.shape)
    if turn is not None:
        return np.ascontiguousarray(turn.of(label), dtype=np.uint8)
    made = np.empty(grid.shape, dtype=np.uint8)
    for rows, sources in slabs(matrix, label.shape, grid.shape):
        made[rows] = nearest_of(label, sources)
    return made


def grid_of(geometry: Geometry, recipe: Recipe) -> Geometry:
    """The preprocessed grid of a file; computes no voxel."""
    nothing = torch.zeros(1).expand(1, *geometry.shape)
    placed = MetaTensor(nothing, affine=torch.from_numpy(geometry.affine))
    turned = Orientation(axcodes="RAS", labels=None)(placed, lazy=True)
    spaced = Spacing(pixdim=recipe.spacing_mm)(turned, lazy=True)
    one, other = _pending(turned), _pending(spaced)
    shape, affine = one if _same(one, other) else other
    return Geometry(shape, affine, geometry.channels)


def foreground_voxels(target: np.ndarray) -> np.ndarray:
    """At most :data:`MOST_PER_CLASS` random voxels of each class but 0, ``(N, 4)`` int32."""
    rng, rows = np.random.default_rng(0), [np.empty((0, 4), dtype=np.int32)]
    pieces = [target[some] for some in along(target.shape, 0)]
    counts = np.array([np.bincount(piece.ravel(), minlength=256) for piece in pieces])
    for index in np.flatnonzero(counts.sum(axis=0)):
        if index in (0, 255):
            continue
        count = int(counts[:, index].sum())
        wanted = np.arange(min(count, MOST_PER_CLASS))
        if count > MOST_PER_CLASS:
            wanted = np.sort(rng.choice(count, MOST_PER_CLASS, replace=False))
        voxels = _of_rank(pieces, int(index), counts[:, index], wanted)
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
    turn = turn_to(back, probs.shape[1:], geometry.shape)
    if turn is not None:
        return turn.of_tensor(probs)
    made = room((len(probs), *geometry.shape), memory_mb)
    for rows, sources in slabs(back, probs.shape[1:], geometry.shape):
        slab = sampled(probs, sources)
        made[:, rows] = slab / slab.sum(dim=0, keepdim=True).clamp_min(1e-6)
    return made


def ras(geometry: Geometry) -> tuple[Sides, tuple[float, float, float]]:
    """Shape and spacing in mm with the axes in the order right, front, top."""
    axes = nib.io_orientation(geometry.affine)[:, 0].astype(int)
    order = np.argsort(axes)
    x, y, z = (int(geometry.shape[axis]) for axis in order)
    spacing = [geometry.spacing_mm[axis] for axis in order]
    return (x, y, z), (spacing[0], spacing[1], spacing[2])


def _require_finite(images: Sequence[Path], files: Sequence[Voxels]) -> None:
    for file in files:
        if file.dtype.kind == "f" and not all(_is_finite(part) for part in file.parts()):
            raise DataError(
                f"{images[0]} holds NaN or infinite voxels. Replace them (0 is usual outside the "
                "body), or remove its case."
            )


def _is_finite(part: np.ndarray) -> bool:
    return bool(np.isfinite(part.astype(np.float32)).all())


def _resampled(channels: Channels, matrix: np.ndarray, shape: Sides) -> np.ndarray:
    """``(C, *shape)`` float32; ``matrix`` leads from its voxels to those of the file."""
    made = np.empty((channels.shape[0], *shape), dtype=np.float32)
    turn = turn_to(matrix, channels.shape[1:], shape)
    if turn is not None:
        turned = channels.turned(turn.of)
        for some in along(made.shape, 1):
            made[:, some] = turned[:, some]
        return made
    for rows, sources in slabs(matrix, channels.shape[1:], shape):
        made[:, rows] = sampled(channels, sources, dtype=torch.float64)
    return made


def _pending(placed: MetaTensor) -> tuple[Sides, np.ndarray]:
    x, y, z = (int(side) for side in placed.peek_pending_shape())
    return (x, y, z), np.asarray(placed.peek_pending_affine(), dtype=np.float64)


def _same(one: tuple[Sides, np.ndarray], other: tuple[Sides, np.ndarray]) -> bool:
    """Up to what MONAI takes for the same, and does not resample."""
    return one[0] == other[0] and np.allclose(one[1], other[1], atol=AFFINE_TOL)


def _of_rank(
    pieces: Sequence[np.ndarray], index: int, counts: np.ndarray, wanted: np.ndarray
) -> np.ndarray:
    """Flat positions of some voxels of class ``index``: its first, its second, as ``wanted`` says.

    Args:
        pieces: Of an array, in order.
        index: The class.
        counts: Its voxels in each piece.
        wanted: Sorted, from 0.
    """
    found, before, start = [], 0, 0
    for piece, count in zip(pieces, counts.tolist(), strict=True):
        here = wanted[np.searchsorted(wanted, before) : np.searchsorted(wanted, before + count)]
        if len(here):
            found.append(start + np.flatnonzero(piece.ravel() == index)[here - before])
        before, start = before + count, start + piece.size
    return np.concatenate(found)
