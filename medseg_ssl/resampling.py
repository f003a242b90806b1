"""From the voxels of one grid to those of another, a slab at a time.

Few voxels are in memory at once, however large the volumes are and however far apart their
spacings.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from medseg_ssl.cases import Sides
from medseg_ssl.voxels import Channels

SLAB = 500_000
"""Voxels that are computed in one go, and about the most of the other grid that they rest on."""

Mode: TypeAlias = Literal["bilinear", "nearest"]

Maps: TypeAlias = np.ndarray | Tensor | Channels
"""Maps of a volume ``(C, X, Y, Z)``, which may lie on disk."""


class Turn(NamedTuple):
    """The same voxels in another order of axes, some of them mirrored."""

    axes: tuple[int, ...]  # the axis of the given array that becomes each axis of the result
    mirrored: tuple[int, ...]  # axes of the result

    def of(self, volume: np.ndarray) -> np.ndarray:
        """A view of ``volume (..., X, Y, Z)``."""
        lead = volume.ndim - 3
        turned = volume.transpose([*range(lead), *(lead + axis for axis in self.axes)])
        return np.flip(turned, tuple(lead + axis for axis in self.mirrored))

    def of_tensor(self, volume: Tensor) -> Tensor:
        """The same of a tensor ``(C, X, Y, Z)``, which is copied where an axis is mirrored."""
        turned = volume.permute(0, *(1 + axis for axis in self.axes))
        return turned.flip([1 + axis for axis in self.mirrored]) if self.mirrored else turned


def turn_to(matrix: np.ndarray, source: Sequence[int], shape: Sequence[int]) -> Turn | None:
    """How a grid of ``shape`` is one of shape ``source`` in another order; None where it is not.

    Args:
        matrix: Voxel of the wanted grid to voxel of the given one, ``(4, 4)``.
        source: The sides of the given grid.
        shape: The sides of the wanted one.
    """
    turn = np.rint(matrix[:3, :3])
    if not np.allclose(matrix[:3, :3], turn, atol=1e-4):
        return None
    if not (np.abs(turn).sum(axis=0) == 1).all() or not (np.abs(turn).sum(axis=1) == 1).all():
        return None
    axes = tuple(int(np.flatnonzero(turn[:, axis])[0]) for axis in range(3))
    mirrored = tuple(axis for axis in range(3) if turn[axes[axis], axis] < 0)
    first = [source[axes[axis]] - 1 if axis in mirrored else 0 for axis in range(3)]
    same_shape = tuple(source[axis] for axis in axes) == tuple(shape)
    if not same_shape or not np.allclose(matrix[[*axes], 3], first, atol=1e-2):
        return None
    return Turn(axes, mirrored)


def slabs(
    matrix: np.ndarray, source: Sequence[int], shape: Sides
) -> Iterator[tuple[slice, np.ndarray]]:
    """Rows of a grid of ``shape``, and where their voxels lie in a grid of shape ``source``.

    Args:
        matrix: As for :func:`turn_to`.
        source: Its sides bound how much of it a slab rests on.
        shape: The sides of the wanted grid.

    Yields:
        A slice along the first axis, and voxel coordinates ``(rows, Y, Z, 3)``.
    """
    largest = max(shape[1] * shape[2], int(np.prod(source)) // shape[0])
    rows = max(1, SLAB // largest)
    for first in range(0, shape[0], rows):
        last = min(first + rows, shape[0])
        ranges = np.arange(first, last), np.arange(shape[1]), np.arange(shape[2])
        voxels = np.stack(np.meshgrid(*ranges, indexing="ij"), axis=-1)
        yield slice(first, last), voxels @ matrix[:3, :3].T + matrix[:3, 3]


def sampled(
    volume: Maps,
    sources: np.ndarray,
    *,
    mode: Mode = "bilinear",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Values of ``volume (C, X, Y, Z)`` at ``sources (*sides, 3)``; beyond its edge those there.

    Args:
        volume: Only the part around ``sources`` is touched.
        sources: Its voxel coordinates at the places of a box.
        mode: ``"bilinear"`` is linear along each of the three axes.
        dtype: Of the computation. In float32 a place is off by a few 1e-5 of a voxel.

    Returns:
        ``(C, *sides)`` of ``dtype``.
    """
    low, box = _around(volume.shape[1:], sources)
    part = volume[(slice(None), *box)]
    if isinstance(part, np.ndarray):
        part = torch.from_numpy(np.array(part))  # a copy: memory maps may not be written
    grid = torch.from_numpy(sources - low).to(dtype)
    return F.grid_sample(
        part.to(dtype)[None],
        _unit_coordinates(grid, part.shape[1:])[None],
        mode=mode,
        padding_mode="border",
        align_corners=True,
    )[0]


def nearest(labels: np.ndarray, sources: np.ndarray) -> np.ndarray:
    """The value of ``labels (X, Y, Z)`` nearest to each of ``sources (*sides, 3)``.

    Half-way between two voxels it is the one of even index, whatever rounding did to the place.
    """
    index = np.rint(np.round(sources, 6)).astype(np.intp)
    x, y, z = (
        np.clip(index[..., axis], 0, side - 1, out=index[..., axis])
        for axis, side in enumerate(labels.shape)
    )
    return np.asarray(labels[x, y, z])


def _around(shape: Sequence[int], sources: np.ndarray) -> tuple[np.ndarray, tuple[slice, ...]]:
    """The first voxel ``(3,)`` and the box of a grid that ``sources`` lie in or next to."""
    along, last = [sources[..., axis] for axis in range(3)], np.array(shape) - 1
    low = np.clip(np.floor([each.min() for each in along]).astype(int), 0, last)
    high = np.clip(np.ceil([each.max() for each in along]).astype(int), low, last)
    return low, tuple(slice(a, b + 1) for a, b in zip(low, high, strict=True))


def _unit_coordinates(voxels: Tensor, shape: Sequence[int]) -> Tensor:
    """Voxel coordinates ``(..., 3)`` to what ``grid_sample`` wants: in [-1, 1], last axis first."""
    extent = torch.tensor([max(side - 1, 1) for side in shape], dtype=voxels.dtype)
    return (2 * voxels / extent - 1).flip(-1)
