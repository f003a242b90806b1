"""A case is one volume: where its files lie, how it lies in space, and who it is of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import nibabel as nib
import numpy as np
import torch

from common.batch import IGNORE, Grid
from common.errors import DataError, GridMismatch
from medseg_ssl.files import is_there, open_volume, pieces
from medseg_ssl.voxels import Voxels, along, read_voxels

Corner: TypeAlias = tuple[int, int, int]  # a voxel, by its index along each axis
Sides: TypeAlias = tuple[int, int, int]  # the size of a box in voxels

SAME_VOXELS = 0.05
"""Two grids are the same where no corner moves by more than this share of a voxel."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """How a file lies in space, from its header alone."""

    shape: tuple[int, int, int]  # in file array order
    affine: np.ndarray  # (4, 4), voxel index to mm, right-anterior-superior positive
    channels: int

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighboring voxels along each array axis, from the affine."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)

    @property
    def orientation(self) -> str:
        """The direction each array axis points to, such as ``"LPS"``."""
        return "".join(code or "?" for code in nib.aff2axcodes(self.affine))


@dataclass(frozen=True, slots=True)
class UnlabeledVolume:
    """What training may know of a case without label: it has no way to one."""

    id: str
    images: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class VolumeCase:
    """A volume with all that belongs to it."""

    id: str
    group: str  # the patient; the case itself where nobody said
    images: tuple[Path, ...]  # one 3D file per channel, or one 4D file
    label: Path | None = None
    values: tuple[int, ...] = ()  # label value of each class; the position is the class index
    ignore: int | None = None  # label value of voxels that nobody annotated

    @property
    def truth(self) -> Grid | None:
        """Class indices ``(X, Y, Z)`` int64 in file array order, IGNORE where declared so.

        Raises:
            DataError: When the label cannot be read, or holds a value that is no class.
        """
        classes = self.classes
        return None if classes is None else torch.from_numpy(classes).to(torch.int64)

    @property
    def classes(self) -> np.ndarray | None:
        """The same as uint8, an eighth of the memory."""
        return None if self.label is None else to_classes(stored_label(self.label), self)

    @property
    def is_there(self) -> bool:
        """Whether all its files exist."""
        every = [*self.images, *([self.label] if self.label else [])]
        return bool(self.images) and all(is_there(path) for path in every)

    @property
    def files(self) -> tuple[Path, ...]:
        """All that its image lies in, the slices of a DICOM series one by one."""
        return tuple(piece for path in self.images for piece in pieces(path))

    @property
    def geometry(self) -> Geometry:
        """How the image lies in space; all files of a case share one grid."""
        return read_geometry(self.images)

    def without_label(self) -> UnlabeledVolume:
        """The same volume, as training sees it when it is unlabeled."""
        return UnlabeledVolume(id=self.id, images=self.images)


def to_classes(label: Voxels, case: VolumeCase) -> np.ndarray:
    """Label values ``(X, Y, Z)`` to class indices, uint8.

    Raises:
        DataError: Naming the values that are no class.
    """
    classes = np.empty(label.shape, dtype=np.uint8)
    strange: set[float] = set()
    for some in along(label.shape, 2):
        values = label[:, :, some]
        index = np.full(values.shape, -1, dtype=np.int16)
        if case.ignore is not None:
            index[values == case.ignore] = IGNORE
        for position, value in enumerate(case.values):
            index[values == value] = position
        strange.update(np.unique(values[index < 0]).tolist())
        classes[:, :, some] = index
    if strange:
        told = [f"{value:g}" for value in sorted(strange)]
        raise DataError(
            f"case '{case.id}': label {case.label} holds the values {', '.join(told[:8])}, "
            f"which are none of the classes {list(case.values)}. List them in domain.classes, "
            "or declare one of them as domain.ignore_value."
        )
    return classes


def read_array(path: Path) -> np.ndarray:
    """All voxels of a file, scaled as its header says, in file array order.

    Raises:
        DataError: When the file is absent, truncated or of another format.
    """
    return read_voxels(path)[...]


def read_label(path: Path) -> np.ndarray:
    """The label values ``(X, Y, Z)`` of a file; a trailing axis of length 1 is dropped.

    Raises:
        DataError: When the file is unreadable or not 3D.
    """
    return stored_label(path)[...]


def stored_label(path: Path) -> Voxels:
    """The same as the file holds them, scaled part by part.

    Raises:
        DataError: When the file is unreadable or not 3D.
    """
    label = read_voxels(path)
    while len(label.shape) > 3 and label.shape[-1] == 1:
        label = replace(label, stored=label.stored[..., 0])
    if len(label.shape) != 3:
        raise DataError(
            f"label {path} has shape {label.shape}: expected three axes with one class value per "
            "voxel. Merge one-hot channels into one volume of values."
        )
    return label


def read_geometry(paths: Sequence[Path]) -> Geometry:
    """The grid that the channel files of one case share, and how many channels they make.

    Raises:
        DataError: When a file cannot be read or is not a volume.
        GridMismatch: When the files lie on different grids.
    """
    each = [_geometry(path) for path in paths]
    for path, geometry in zip(paths[1:], each[1:], strict=True):
        if not same_grid(each[0], geometry):
            raise GridMismatch(
                f"{describe_difference(paths[0], each[0], path, geometry)} The channels of a "
                "case must share one grid: resample them to one, linear."
            )
    channels = sum(geometry.channels for geometry in each)
    return Geometry(each[0].shape, each[0].affine, channels)


def two_places(path: Path) -> str:
    """How sform and qform of a file contradict each other, in a sentence; empty where not.

    Raises:
        DataError: When the file cannot be read.
    """
    header = open_volume(path).header
    places = [ask(coded=True)[0] for ask in (header.get_sform, header.get_qform)]
    if any(place is None for place in places):
        return ""
    x, y, z = header.get_data_shape()[:3]
    sform, qform = (Geometry((x, y, z), np.asarray(place), 1) for place in places)
    if same_grid(sform, qform):
        return ""
    return (
        f"{path}: sform and qform put it in places up to {_apart_mm(sform, qform):.3g} mm apart. "
        "The sform is used; programs that read the qform show it elsewhere. Make both equal."
    )


def same_grid(one: Geometry, other: Geometry) -> bool:
    """Whether both put every voxel in the same place, up to :data:`SAME_VOXELS`."""
    if one.shape != other.shape:
        return False
    return _apart_mm(one, other) <= SAME_VOXELS * min(one.spacing_mm)


def _apart_mm(one: Geometry, other: Geometry) -> float:
    """How far apart two grids of one shape put a corner, at most."""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in one.shape])).reshape(3, -1)
    corners = np.vstack([corners, np.ones(corners.shape[1])])
    return float(np.linalg.norm(((one.affine - other.affine) @ corners)[:3], axis=0).max())


def describe_difference(path: Path, one: Geometry, other_path: Path, other: Geometry) -> str:
    """Two grids that differ, in one sentence."""

    def grid(geometry: Geometry) -> str:
        spacing = " x ".join(f"{mm:.4g}" for mm in geometry.spacing_mm)
        origin = ", ".join(f"{mm:.4g}" for mm in geometry.affine[:3, 3])
        return f"{geometry.shape} at {spacing} mm, {geometry.orientation}, origin ({origin}) mm"

    return f"{path.name} and {other_path.name} lie on different grids: {grid(one)}; {grid(other)}."


def _geometry(path: Path) -> Geometry:
    image = open_volume(path)
    shape = image.shape
    while len(shape) > 4 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) not in (3, 4) or min(shape) < 1:
        raise DataError(
            f"{path} has shape {image.shape}: expected a volume (X, Y, Z), or (X, Y, Z, channel). "
            "Stack 2D slices into one volume per patient."
        )
    if image.get_data_dtype().fields is not None:
        raise DataError(
            f"{path} holds RGB voxels: expected one number per voxel. Save each color as a channel."
        )
    if 1 in shape[:3] and sorted(shape[:3])[1] > 1:
        raise DataError(
            f"{path} is a single 2D slice of shape {shape}: volumes are segmented here. "
            "Stack the slices of one patient into a volume."
        )
    affine = np.asarray(image.affine, dtype=np.float64)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise DataError(
            f"{path} has an affine that is singular or not finite, so its place and spacing are "
            "unknown. Repair its sform and qform."
        )
    channels = shape[3] if len(shape) == 4 else 1
    return Geometry((shape[0], shape[1], shape[2]), affine, channels)
