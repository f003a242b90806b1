"""The voxels of files: as they are stored, and scaled only where they are asked for.

A header may say that whole numbers of two bytes stand for fractions of eight. Scaled part by
part, a volume takes no more memory than its file holds.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import EllipsisType
from typing import TypeAlias

import numpy as np
from nibabel.arrayproxy import ArrayProxy
from nibabel.volumeutils import apply_read_scaling

from common.errors import DataError
from medseg_ssl.files import open_volume, unreadable

Key: TypeAlias = EllipsisType | slice | tuple[slice, ...]

PART = 2_000_000
"""Voxels that are looked at in one go."""


def read_voxels(path: Path) -> Voxels:
    """Read a file as it is stored.

    Raises:
        DataError: When the file is absent, truncated or of another format.
    """
    voxels = open_volume(path).dataobj
    try:
        if isinstance(voxels, ArrayProxy):
            return Voxels(voxels.get_unscaled(), voxels.slope, voxels.inter)
        return Voxels(np.asanyarray(voxels))
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(unreadable(path, error)) from None


def along(shape: Sequence[int], axis: int, most: int = PART) -> Iterator[slice]:
    """Cuts ``shape`` along ``axis`` into pieces of at most ``most`` voxels, or of one slice."""
    rows = max(1, most * shape[axis] // math.prod(shape))
    for first in range(0, shape[axis], rows):
        yield slice(first, min(first + rows, shape[axis]))


@dataclass(frozen=True, slots=True)
class Voxels:
    """All voxels of one file, in file array order."""

    stored: np.ndarray  # where the file is not compressed, a memory map of it
    slope: float = 1.0
    inter: float = 0.0

    @property
    def shape(self) -> tuple[int, ...]:
        return self.stored.shape

    @property
    def dtype(self) -> np.dtype:
        """Of values, which are scaled."""
        return self._scaled(self.stored[:0]).dtype

    def __getitem__(self, key: Key) -> np.ndarray:
        """Values of a part, scaled as the header says."""
        return self._scaled(self.stored[key])

    def parts(self) -> Iterator[np.ndarray]:
        """All values, a few slices along the third axis at a time."""
        for some in along(self.shape, 2):
            yield self[:, :, some]

    def _scaled(self, part: np.ndarray) -> np.ndarray:
        slope, inter = np.float64(self.slope), np.float64(self.inter)
        return np.asanyarray(apply_read_scaling(part, slope, inter))


@dataclass(frozen=True, slots=True)
class Channels:
    """All channels of one case, ``(C, X, Y, Z)``; a part of them is float32."""

    files: tuple[Voxels, ...]  # each of them ``(C, X, Y, Z)``

    @classmethod
    def of(cls, files: Sequence[Voxels]) -> Channels:
        """Files of ``(X, Y, Z)`` or ``(X, Y, Z, C)``, one after another."""
        flat = [file.stored.reshape(*file.shape[:3], -1) for file in files]
        first = [np.moveaxis(stored, -1, 0) for stored in flat]
        return cls(tuple(replace(f, stored=s) for f, s in zip(files, first, strict=True)))

    @property
    def shape(self) -> tuple[int, int, int, int]:
        x, y, z = self.files[0].shape[1:]
        return sum(file.shape[0] for file in self.files), x, y, z

    def __getitem__(self, key: tuple[slice, ...]) -> np.ndarray:
        """A part of the first axis in space, or of more of them; ``key[0]`` is every channel."""
        return np.concatenate([file[key].astype(np.float32) for file in self.files])

    def turned(self, turn: Callable[[np.ndarray], np.ndarray]) -> Channels:
        """The same voxels in the views that ``turn`` gives of each file."""
        return Channels(tuple(replace(file, stored=turn(file.stored)) for file in self.files))
