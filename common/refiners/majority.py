"""No frayed borders."""

from __future__ import annotations

from typing import Literal

import torch

from common.batch import IGNORE, Pixel, SoftPseudo, Unlabeled, most_probable, one_hot
from common.neighborhoods import around, steps_within
from common.refiners.base import Refiner, relabeled
from common.settings import PositiveReal


class Majority(Refiner):
    """Give each pixel the class of most pixels within ``radius``: a majority, or mode, filter.

    Its own vote counts, and where classes tie it keeps its own, else takes the earliest of the
    list. Distances are those between centers of pixels, so that a radius shorter than a pixel
    changes nothing. Trust has no vote: a dropped pixel tells its neighbors what it looks like.
    The number of pixels within ``radius`` is what it costs.
    """

    name: Literal["majority"] = "majority"
    radius: PositiveReal  # mm of volumes, metres of scenes, else pixels

    def __call__(self, guess: SoftPseudo, weak: Unlabeled, pixel: Pixel) -> SoftPseudo:
        classes, label = guess.probs.shape[1], guess.predicted
        own = one_hot(label.masked_fill(~weak.valid, IGNORE), classes)
        votes = 1.5 * own  # its vote, and a half that no other class can tie with
        for theirs in around(own, steps_within(self.radius, pixel.along(label.ndim - 1))):
            votes += theirs
        earlier = torch.arange(classes, device=label.device) / (4 * classes)
        most = most_probable(votes - earlier.view(-1, *[1] * (label.ndim - 1)))
        return relabeled(guess, torch.where(weak.valid, most, label))
