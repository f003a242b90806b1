"""One piece of each class."""

from __future__ import annotations

from typing import Literal

import torch

from common.batch import IGNORE, Pixel, SoftPseudo, Unlabeled
from common.components import largest_components
from common.refiners.base import Refiner, relabeled


class LargestComponent(Refiner):
    """Keep the largest connected piece of each class but the first, which takes the others [1].

    For organs, of which there is one. Pixels that touch at a corner are connected; pieces are
    those of the patch, not of the case.

    [1] Bai et al., BCP, CVPR 2023, arXiv:2305.00673.
    """

    name: Literal["largest_component"] = "largest_component"

    def __call__(self, guess: SoftPseudo, weak: Unlabeled, pixel: Pixel) -> SoftPseudo:
        there = largest_components(guess.predicted.masked_fill(~weak.valid, IGNORE))
        return relabeled(guess, torch.where(weak.valid, there, guess.predicted))
