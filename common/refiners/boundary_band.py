"""No trust in borders."""

from __future__ import annotations

from typing import Literal

import torch

from common.batch import Pixel, SoftPseudo, Unlabeled, one_hot
from common.distances import distance_to
from common.refiners.base import Refiner
from common.settings import PositiveReal


class BoundaryBand(Refiner):
    """Drop pixels nearer than ``within`` to a pixel of another class.

    Where one class ends and another begins, pseudo-labels are wrong most often. A wider band
    trusts no pixel more. Distances are those between centers of pixels.
    """

    name: Literal["boundary_band"] = "boundary_band"
    within: PositiveReal  # mm of volumes, metres of scenes, else pixels

    def __call__(self, guess: SoftPseudo, weak: Unlabeled, pixel: Pixel) -> SoftPseudo:
        inside = (one_hot(guess.predicted, guess.probs.shape[1]) > 0) & weak.valid.unsqueeze(1)
        away = distance_to(inside, reach=self.within, sides=pixel.along(weak.valid.ndim - 1))
        nearest_other = torch.where(inside, torch.inf, away).amin(dim=1)
        return guess._replace(weight=guess.weight * (nearest_other >= self.within))
