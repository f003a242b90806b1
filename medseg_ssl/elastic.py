"""Elastic moves: a smooth random displacement in mm, which neither tears nor folds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from pydantic import model_validator

from common.settings import Fraction, NonNegative, PositiveReal, Settings
from medseg_ssl.cases import Sides
from medseg_ssl.splines import control_points, smooth

FOLDS = 0.4
"""Up to this part of the way between control points no displacement folds: 1/K in 3D [1].

[1] Choi and Lee, Injectivity conditions of 2D and 3D uniform cubic B-spline functions,
    Graphical Models 62(6), 2000: K is 2.046 in 2D and 2.479 in 3D.
"""


class Elastic(Settings):
    """Tissue shifts by a cubic B-spline of random vectors, ``control_spacing_mm`` apart [1].

    The vectors are drawn uniformly from the ball of radius ``strength_mm``, so no voxel shifts
    farther than that; a quarter of it is usual, a third in 2D. Nothing shifts across an axis where
    the patch is one voxel thick: a slice stays a slice.

    [1] Rueckert et al., Nonrigid registration using free-form deformations, IEEE TMI 18(8), 1999.
    """

    share: Fraction = 0.3  # of the patches; the others keep their shapes
    strength_mm: NonNegative = 4.0
    control_spacing_mm: PositiveReal = 20.0

    @model_validator(mode="after")
    def _does_not_fold(self) -> Self:
        most = FOLDS * self.control_spacing_mm
        if self.strength_mm > most:
            raise ValueError(
                f"strength_mm {self.strength_mm:g} could fold tissue onto itself where control "
                f"points are {self.control_spacing_mm:g} mm apart. Give at most {most:g}, or a "
                f"control_spacing_mm of at least {self.strength_mm / FOLDS:g}."
            )
        return self

    def displacement_mm(
        self, sides: Sides, spacing_mm: Sequence[float], rng: np.random.Generator
    ) -> np.ndarray:
        """By how much each voxel of a patch of ``sides`` is shifted, ``(*sides, 3)``."""
        intervals = [self.control_spacing_mm / mm for mm in spacing_mm]
        points = map(control_points, sides, intervals)
        free = np.array(sides) > 1
        vectors = rng.standard_normal((*points, 3)) * free
        lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
        radii = rng.random(lengths.shape) ** (1 / max(1, free.sum()))
        vectors *= self.strength_mm * radii / np.maximum(lengths, 1e-12)
        control = torch.from_numpy(np.moveaxis(vectors, -1, 0).astype(np.float32))
        return np.stack([*smooth(control, sides, intervals).numpy()], axis=-1)
