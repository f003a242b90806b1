"""What is looked at: the middle of a volume, turned as radiologists see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import nibabel as nib
import numpy as np

from common.batch import IGNORE

SMALLEST_VIEW_MM, ROOM = 60.0, 1.6
"""What is shown: at least so much, and so many times the extent of the foreground."""

MISTAKES = ("missed", "spurious", "wrong class", "not annotated")
"""What can be said of a voxel that is not right."""


class Plane(NamedTuple):
    """How a volume is cut; the letters are what lies left, right, above and below."""

    name: str
    axis: int  # of right, front, top
    letters: str


PLANES = (Plane("axial", 2, "RLAP"), Plane("coronal", 1, "RLSI"), Plane("sagittal", 0, "APSI"))


@dataclass(frozen=True, slots=True)
class View:
    """The part of a volume that is shown; axes run to the right, the front and the top."""

    image: np.ndarray  # 0..1
    predicted: np.ndarray
    truth: np.ndarray | None
    spacing_mm: np.ndarray
    center: tuple[int, int, int]  # the voxel in which the planes meet
    place_mm: np.ndarray  # where that is, in the coordinates of the file

    def cut(self, volume: np.ndarray, plane: Plane) -> np.ndarray:
        """The slice through the center, as it is looked at: rows down, columns to the right."""
        slice_: np.ndarray = volume.take(self.center[plane.axis], axis=plane.axis)
        return np.flip(slice_.T)

    def voxel_mm(self, plane: Plane) -> np.ndarray:
        """Width and height of a voxel."""
        return np.delete(self.spacing_mm, plane.axis)

    def size_mm(self, plane: Plane) -> np.ndarray:
        """Width and height of a slice."""
        voxels = np.delete(np.array(self.image.shape), plane.axis)
        return np.asarray(voxels * self.voxel_mm(plane))


def look(
    image: np.ndarray, predicted: np.ndarray, truth: np.ndarray | None, affine: np.ndarray
) -> View:
    """Turn to right-anterior-superior, find the foreground, cut out its surroundings."""
    turn = nib.orientations.io_orientation(affine)
    order = np.argsort(turn[:, 0])
    spacing_mm = np.linalg.norm(affine[:3, :3], axis=0)[order]
    to_mm = affine @ nib.orientations.inv_ornt_aff(turn, image.shape)
    image, predicted = (nib.apply_orientation(each, turn) for each in (image, predicted))
    truth = None if truth is None else nib.apply_orientation(truth, turn)

    center, box = _center_and_box(predicted, truth, spacing_mm)
    inside = tuple(at - side.start for at, side in zip(center, box, strict=True))
    return View(
        image=_gray(image[box]),
        predicted=predicted[box],
        truth=None if truth is None else truth[box],
        spacing_mm=spacing_mm,
        center=(inside[0], inside[1], inside[2]),
        place_mm=(to_mm @ [*center, 1])[:3],
    )


def mistakes(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Per voxel: 0 right, otherwise the place in :data:`MISTAKES`, counted from 1."""
    wrong = predicted != truth
    kinds = [truth == IGNORE, wrong & (predicted == 0), wrong & (truth == 0), wrong]
    return np.select(kinds, [4, 1, 2, 3], 0)


def _center_and_box(
    predicted: np.ndarray, truth: np.ndarray | None, spacing_mm: np.ndarray
) -> tuple[tuple[int, ...], tuple[slice, ...]]:
    """The foreground voxel nearest to the middle of the foreground, and what to show around it."""
    shape = np.array(predicted.shape)
    found = predicted > 0
    true = found if truth is None else (truth > 0) & (truth != IGNORE)
    voxels = np.argwhere(true if true.any() else found)
    if not len(voxels):
        return tuple((shape // 2).tolist()), tuple(slice(0, side) for side in shape)
    away = ((voxels - voxels.mean(axis=0)) * spacing_mm) ** 2
    center = voxels[away.sum(axis=1).argmin()]
    everything = np.argwhere(true | found)
    low, high = everything.min(axis=0), everything.max(axis=0) + 1
    view_mm = max(SMALLEST_VIEW_MM, ROOM * float(((high - low) * spacing_mm).max()))
    sides = np.minimum(np.ceil(view_mm / spacing_mm).astype(int), shape)
    first = np.clip((low + high - sides) // 2, 0, shape - sides)
    corners = zip(first.tolist(), sides.tolist(), strict=True)
    return tuple(center.tolist()), tuple(slice(at, at + side) for at, side in corners)


def _gray(image: np.ndarray) -> np.ndarray:
    """The middle 99 % of the values to 0..1; what is not finite is black."""
    finite = image[np.isfinite(image)]
    low, high = np.percentile(finite, (0.5, 99.5)) if finite.size else (0.0, 1.0)
    scaled = (image.astype(np.float64) - low) / max(float(high - low), 1e-12)
    return np.clip(np.nan_to_num(scaled, posinf=1.0, neginf=0.0), 0, 1)
