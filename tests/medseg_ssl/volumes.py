"""Small volumes on disk, awkward on purpose."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np

CLASSES = {"background": 0, "organ": 1, "lesion": 4}


def oblique(
    spacing_mm: tuple[float, float, float] = (1.0, 1.2, 2.5), *, codes: str = "RAS"
) -> np.ndarray:
    """An affine that is turned by 12 degrees, shifted, and flipped or permuted as ``codes`` say."""
    angle = np.deg2rad(12)
    turn = np.array(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    )
    axes = {"R": 0, "L": 0, "A": 1, "P": 1, "S": 2, "I": 2}
    affine = np.eye(4)
    for column, code in enumerate(codes):
        sign = 1 if code in "RAS" else -1
        affine[:3, column] = sign * turn[:, axes[code]] * spacing_mm[column]
    affine[:3, 3] = (-31.5, 12.25, 7.0)
    return affine


def save(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.eye(4) if affine is None else affine), path)
    return path


def image_and_label(
    seed: int = 0, shape: tuple[int, int, int] = (14, 12, 10)
) -> tuple[np.ndarray, np.ndarray]:
    """A bright box with a brighter one inside, and label values 0, 1, 4."""
    rng = np.random.default_rng(seed)
    label = np.zeros(shape, dtype=np.uint8)
    label[3:10, 3:9, 2:8] = 1
    label[5:8, 5:8, 4:7] = 4
    image = label * 40.0 + 10 * rng.standard_normal(shape) + 100
    return image.astype(np.float32), label


def plain(
    folder: Path, *, cases: int = 6, labeled: int = 4, affine: np.ndarray | None = None
) -> Path:
    """A data set in the plain layout: ``c0``, ``c1``, ...; the first ``labeled`` have labels."""
    for number in range(cases):
        image, label = image_and_label(number)
        save(folder / "images" / f"c{number}.nii.gz", image, affine)
        if number < labeled:
            save(folder / "labels" / f"c{number}.nii.gz", label, affine)
    (folder / "dataset.json").write_text(json.dumps({"labels": CLASSES}), encoding="utf-8")
    return folder
