"""No specks."""

from __future__ import annotations

from typing import Literal

from common.batch import IGNORE, Pixel, SoftPseudo, Unlabeled
from common.components import piece_sizes
from common.refiners.base import Refiner, without_class
from common.settings import PositiveReal


class MinimumComponent(Refiner):
    """Give every connected piece smaller than ``smallest`` its next most probable class.

    A larger ``smallest`` leaves no more pieces alone. A piece is cut by the edge of its patch and
    by what is not valid, so ``smallest`` should be well below the size of a patch.
    """

    name: Literal["minimum_component"] = "minimum_component"
    smallest: PositiveReal  # mm^3 of volumes, m^2 of scenes, else pixels

    def __call__(self, guess: SoftPseudo, weak: Unlabeled, pixel: Pixel) -> SoftPseudo:
        label = guess.predicted.masked_fill(~weak.valid, IGNORE)
        specks = piece_sizes(label) * pixel.content < self.smallest
        return without_class(guess, specks & weak.valid)
