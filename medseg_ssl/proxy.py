"""Voxels that are read when asked for, in an image of nibabel whatever file they lie in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import nibabel as nib
import numpy as np


class Proxy:
    """Voxels of a file, read when asked for; what nibabel calls an array proxy."""

    is_proxy = True

    def __init__(
        self, read: Callable[[], np.ndarray], shape: tuple[int, ...], dtype: np.dtype
    ) -> None:
        self.read, self.shape, self.dtype = read, shape, dtype
        self.ndim = len(shape)

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        voxels: np.ndarray = np.asarray(self.read(), dtype=dtype or self.dtype, order="C")
        return voxels

    def __getitem__(self, key: Any) -> Any:  # noqa: ANN401
        return np.asarray(self)[key]


def as_nifti(voxels: Proxy, affine: np.ndarray) -> nib.Nifti1Image:
    """An image of ``voxels`` where ``affine`` puts them, right-anterior-superior positive mm."""
    image = nib.Nifti1Image(voxels, affine, dtype=voxels.dtype)
    image.set_qform(image.affine, code="scanner")
    image.set_sform(image.affine, code="scanner")
    return image
