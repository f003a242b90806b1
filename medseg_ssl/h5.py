"""Volumes in HDF5 files, as papers on semi-supervision pass them around: image and label in one.

``FILE.h5/KEY`` is the dataset ``KEY`` of a file. The files say neither how large a voxel is nor how
it lies: see :data:`KINDS`, or write the attribute :data:`SPACING` into a file.
"""

from __future__ import annotations

import contextlib
import importlib.util
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from common.errors import DataError
from medseg_ssl.proxy import Proxy, as_nifti

SUFFIXES = (".h5", ".hdf5")
IMAGE, LABEL = "image", "label"
SPACING = "spacing_xyz_mm"
"""Attribute of a file: distance between neighboring voxels along the axes X, Y and Z as read."""


@dataclass(frozen=True, slots=True)
class Kind:
    """The files of one benchmark: how they are called, and what they do not say themselves."""

    name: str
    pattern: str  # of the file without suffix; perhaps with the groups "case" and "patient"
    classes: tuple[str, ...]  # by label value
    axes: tuple[int, int, int] = (0, 1, 2)  # of the dataset, in the order X, Y, Z
    spacing_mm: float | None = None  # of all three axes; None: differs, and is not known
    across: int | None = None  # the axis of X, Y, Z along which slices lie far apart

    @property
    def knows_patients(self) -> bool:
        """Whether the name of a file says whose it is."""
        return "?P<patient>" in self.pattern


KINDS = (
    Kind("LA", "mri_norm2", ("background", "left atrium"), spacing_mm=0.625),  # [1, 2]
    Kind(
        "Pancreas-CT",  # [3]: resampled to 1 mm
        r"(?P<case>image\d{4})_norm",
        ("background", "pancreas"),
        spacing_mm=1.0,
    ),
    Kind(
        "ACDC",  # [4]: slices first, as SimpleITK gives arrays; pixels of each patient's own size
        r"(?P<case>(?P<patient>patient\d{3})_frame\d{2})",
        ("background", "right ventricle", "myocardium", "left ventricle"),
        axes=(2, 1, 0),
        across=2,
    ),
    Kind("BraTS 2019", r"BraTS19_\w+", ("background", "whole tumor"), spacing_mm=1.0),  # [4]
)
"""The benchmarks of the field.

[1] Yu et al., UA-MT, 2019, arXiv:1907.07034, and its code.
[2] Voxel size: 2018 Atrial Segmentation Challenge, its page on data.
[3] Wu et al., MC-Net, 2021, arXiv:2109.09960, and its code.
[4] Luo, SSL4MIS, 2020, the code.
"""

SLICE = re.compile(r".+_slice_\d+")
"""ACDC is passed around in volumes and, for training, once more in their slices."""


def file_of(path: Path) -> Path:
    """The file that a dataset lies in; any other path as it is."""
    above = (each for each in path.parents if each.suffix in SUFFIXES and not each.is_dir())
    return next(above, path)


def key_of(path: Path) -> str:
    """The name of a dataset in its file; empty where none is named."""
    file = file_of(path)
    return "" if file == path else path.relative_to(file).as_posix()


def is_h5(path: Path) -> bool:
    """Whether the name is that of an HDF5 file or of a dataset in one."""
    return file_of(path).suffix in SUFFIXES


def label_in(path: Path) -> Path:
    """Where a label lies: in an HDF5 file the dataset ``label``, unless another one is named."""
    return path / LABEL if path.suffix in SUFFIXES else path


def kind_of(path: Path) -> Kind | None:
    """The benchmark that a file is of, by its name."""
    name = file_of(path).stem
    return next((kind for kind in KINDS if re.fullmatch(kind.pattern, name)), None)


def case_of(path: Path) -> tuple[str, str]:
    """The name of a case and that of its patient, or of the case again, by the file's name."""
    file, kind = file_of(path), kind_of(path)
    if kind is None:
        return file.stem, file.stem
    if kind.name == "LA":
        return file.parent.name, file.parent.name
    match = re.fullmatch(kind.pattern, file.stem)
    assert match is not None
    named = match.groupdict()
    case = named.get("case", file.stem)
    return case, named.get("patient", case)


def datasets(file: Path) -> list[str]:
    """The names of what a file holds.

    Raises:
        OSError: When it cannot be read.
        DataError: When h5py is not installed.
    """
    with _open(file) as opened:
        return sorted(opened)


def open_h5(path: Path) -> nib.Nifti1Image:
    """Open a dataset, its header only; ``image`` where none is named.

    Raises:
        OSError: When the file cannot be read.
        DataError: When it holds no such dataset, or nothing that is an image.
    """
    file, key = file_of(path), key_of(path) or IMAGE
    with _open(file) as opened:
        dataset = _dataset(opened, file, key)
        shape, dtype = dataset.shape, _dtype(dataset.dtype)
        spacing_mm = _spacing_mm(opened, file)
    kind = kind_of(file)
    axes = kind.axes if kind and len(shape) == 3 else tuple(range(len(shape)))

    def read() -> np.ndarray:
        with _open(file) as again:
            return np.asarray(again[key][()]).transpose(axes)

    voxels = Proxy(read, tuple(shape[axis] for axis in axes), dtype)
    return as_nifti(voxels, np.diag([*spacing_mm, 1.0]))


def unsaid(path: Path) -> str:
    """That nothing tells how large the voxels of a file are, in a sentence; empty where not so.

    Raises:
        OSError, DataError: As :func:`open_h5`.
    """
    kind = kind_of(path)
    if not is_h5(path) or (kind and kind.spacing_mm):
        return ""
    with _open(file_of(path)) as opened:
        if SPACING in opened.attrs:
            return ""
    return (
        f"{file_of(path)} does not say how large its voxels are, so 1 voxel counts as 1 mm, and "
        f"what is given in mm and ml is in voxels. Write its attribute {SPACING}, or convert it to "
        "NIfTI."
    )


@contextlib.contextmanager
def _open(file: Path) -> Iterator[Any]:
    if importlib.util.find_spec("h5py") is None:
        raise DataError(
            f"{file} needs the package h5py. Install it: pip install 'seg-ssl[formats]', or "
            "convert the volume to NIfTI."
        )
    import h5py

    try:
        with h5py.File(file, "r", locking=False) as opened:  # other machines may hold a lock
            yield opened
    except (RuntimeError, KeyError) as error:  # what h5py raises of a damaged part
        raise OSError(str(error)) from error


def _dataset(opened: Any, file: Path, key: str) -> Any:  # noqa: ANN401
    import h5py

    found = opened.get(key)
    if not isinstance(found, h5py.Dataset):
        raise DataError(
            f"{file} holds no dataset '{key}': it has {', '.join(sorted(opened)) or 'none'}. "
            f"Rename one, or name it in a manifest, as in {file.name}/KEY."
        )
    if found.dtype.kind not in "biuf":
        raise DataError(
            f"{file}: the dataset '{key}' is of type {found.dtype}: expected one number per voxel."
        )
    return found


def _dtype(dtype: np.dtype) -> np.dtype:
    """The type of NIfTI that holds all values of ``dtype``."""
    if dtype.kind == "b":
        return np.dtype(np.uint8)
    if dtype.kind == "f" and dtype.itemsize < 4:
        return np.dtype(np.float32)
    return dtype.newbyteorder("=")


def _spacing_mm(opened: Any, file: Path) -> tuple[float, float, float]:  # noqa: ANN401
    kind = kind_of(file)
    usual = (kind.spacing_mm if kind else None) or 1.0
    given = np.ravel(opened.attrs.get(SPACING, (usual,) * 3))
    sound = given.size == 3 and given.dtype.kind in "iuf" and np.isfinite(given).all()
    if not sound or min(given) <= 0:
        raise DataError(
            f"{file}: its attribute {SPACING} is {given.tolist()}: expected three lengths above 0 "
            "mm, along the axes X, Y and Z as they are read."
        )
    return float(given[0]), float(given[1]), float(given[2])
