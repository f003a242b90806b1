"""No spikes and no threads."""

from __future__ import annotations

from typing import Literal

import torch

from common.batch import Pixel, SoftPseudo, Unlabeled, one_hot
from common.distances import distance_to
from common.refiners.base import Refiner, without_class
from common.settings import PositiveReal


class Opening(Refiner):
    """Take from each class what no ball of ``radius`` inside of it covers: a morphological opening.

    So spikes, threads and specks thinner than the ball go to their next most probable class. The
    gaps of a class are the threads of another, so they close alike. Nothing is thin at the edge of
    the image or of its valid part: what lies beyond might be of the class. Distances are those
    between centers of pixels, and a ball shorter than a pixel changes nothing.
    """

    name: Literal["opening"] = "opening"
    radius: PositiveReal  # mm of volumes, metres of scenes, else pixels

    def __call__(self, guess: SoftPseudo, weak: Unlabeled, pixel: Pixel) -> SoftPseudo:
        sides = pixel.along(weak.valid.ndim - 1)
        valid = weak.valid.unsqueeze(1)
        inside = (one_hot(guess.predicted, guess.probs.shape[1]) > 0) & valid
        # beyond the reach a distance is only known to be no smaller, so it must go a little farther
        reach = self.radius * (1 + 1e-6)
        centers = inside & (distance_to(valid & ~inside, reach=reach, sides=sides) > reach)
        covered = distance_to(centers, reach=reach, sides=sides) <= reach
        return without_class(guess, torch.any(inside & ~covered, dim=1))
