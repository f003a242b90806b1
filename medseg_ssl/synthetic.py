"""Phantom volumes: small enough for a demo, awkward enough to prove something.

Two touching organs in a body, one distractor that looks like the first organ, a bias field,
noise, and contrast, orientation and spacing that change from case to case.
"""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

from common.sampling import generator
from common.settings import Positive, Settings

CLASSES = ("background", "liver", "kidney")
ORIENTATIONS = ("RAS", "LPS", "PSR", "LAS")
BODY, LIVER, KIDNEY = 0.35, 0.75, 0.55  # mean intensity of each tissue


class Phantom(Settings):
    """How large and how hard."""

    side: Positive = 32  # voxels along each axis, give or take an eighth
    noise: float = 0.06
    bias: float = 0.35  # how much brighter one end is than the other


PHANTOM = Phantom()
"""Trains in under a minute on a CPU."""


def make_volumes(
    folder: Path, *, cases: int, labeled: int, seed: int, phantom: Phantom = PHANTOM
) -> Path:
    """Write ``cases`` volumes as ``images/`` and ``labels/``, the first ``labeled`` with a label.

    The same arguments write the same voxels.

    Returns:
        ``folder``, which any verb of ``medseg-ssl`` takes.
    """
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number in range(cases):
        image, label, affine = make_case(generator(seed, number), phantom)
        file = f"phantom_{number:03d}.nii.gz"
        nib.save(nib.Nifti1Image(image, affine), folder / "images" / file)
        if number < labeled:
            nib.save(nib.Nifti1Image(label, affine), folder / "labels" / file)
    facts = {
        "channel_names": {"0": "phantom"},
        "labels": {name: value for value, name in enumerate(CLASSES)},
    }
    (folder / "dataset.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return folder


def make_case(
    rng: np.random.Generator, phantom: Phantom
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One phantom: image float32 and label uint8, both ``(X, Y, Z)``, and their affine in mm."""
    shape = tuple(int(side) for side in phantom.side + rng.integers(-4, 5, 3) * phantom.side // 32)
    where = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij"), axis=-1)
    label = _organs(where, rng)
    tissue = np.array([BODY, LIVER, KIDNEY]) + rng.uniform(-0.06, 0.06, 3)
    image = tissue[label]
    beside = np.array([0.0, -0.65, 0.0]) + rng.uniform(-0.15, 0.15, 3)
    distractor = _ellipsoid(where, beside, (0.15, 0.12, 0.3)) & (label == 0)
    image[distractor] = tissue[1]  # as bright as the liver
    image[(where[..., :2] ** 2).sum(axis=-1) > 0.95] = 0.02  # air
    direction = rng.normal(size=3)
    slope = where @ (direction / np.linalg.norm(direction))
    image = image * np.exp(0.5 * phantom.bias * slope)
    image = image + phantom.noise * rng.standard_normal(shape)
    image = image * rng.uniform(50, 2000) + rng.uniform(-20, 200)  # MRI has no units
    return _turned(image.astype(np.float32), label.astype(np.uint8), rng)


def _organs(where: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Class indices of two ellipsoids that touch."""
    label = np.zeros(where.shape[:3], dtype=np.int64)
    middle = rng.uniform(-0.1, 0.1, 3)
    radii = rng.uniform(0.32, 0.44, (2, 3))
    apart = np.array([radii[0, 0] + radii[1, 0], 0, 0]) * 0.9
    label[_ellipsoid(where, middle - apart / 2, radii[0])] = 1
    label[_ellipsoid(where, middle + apart / 2, radii[1]) & (label == 0)] = 2
    return label


def _ellipsoid(where: np.ndarray, center: object, radii: object) -> np.ndarray:
    inside = (((where - np.asarray(center)) / np.asarray(radii)) ** 2).sum(axis=-1) < 1
    return np.asarray(inside)


def _turned(
    image: np.ndarray, label: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Store the same volume with other axes and a slightly oblique affine."""
    spacing = 3.0 * np.exp(rng.uniform(-0.1, 0.1, 3))
    tilt = rng.uniform(-0.1, 0.1)
    affine = np.diag([*spacing, 1.0])
    turn = np.array([[np.cos(tilt), -np.sin(tilt), 0], [np.sin(tilt), np.cos(tilt), 0], [0, 0, 1]])
    affine[:3, :3] = turn @ affine[:3, :3]
    affine[:3, 3] = rng.uniform(-60, 60, 3)
    wanted = axcodes2ornt(ORIENTATIONS[int(rng.integers(len(ORIENTATIONS)))])
    change = ornt_transform(io_orientation(affine), wanted)
    moved = affine @ inv_ornt_aff(change, image.shape)
    image, label = (nib.apply_orientation(array, change) for array in (image, label))
    return image, label, moved
