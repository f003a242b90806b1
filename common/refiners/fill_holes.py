"""No holes."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from scipy import ndimage

from common.batch import IGNORE, Pixel, SoftPseudo, Unlabeled
from common.refiners.base import Refiner, relabeled
from common.settings import PositiveReal


class FillHoles(Refiner):
    """Give a hole the class of the piece around it.

    A hole is what a single connected piece of a class, other than the first, surrounds on all
    sides; at the edge of a patch there is none. Classes fill in the order of their list. Runs on
    the host.
    """

    name: Literal["fill_holes"] = "fill_holes"
    largest: PositiveReal | None = None  # mm^3, m^2, else pixels; absent: however large

    def __call__(self, guess: SoftPseudo, weak: Unlabeled, pixel: Pixel) -> SoftPseudo:
        label = guess.predicted.masked_fill(~weak.valid, IGNORE)
        filled = [self._filled(each, pixel.content) for each in label.cpu().numpy()]
        if not filled:
            return guess
        made = torch.from_numpy(np.stack(filled)).to(label.device)
        return relabeled(guess, torch.where(weak.valid, made, guess.predicted))

    def _filled(self, label: np.ndarray, content: float) -> np.ndarray:
        label = label.copy()
        for index in sorted({*np.unique(label).tolist()} - {0, IGNORE}):
            pieces, _ = ndimage.label(label == index)
            for piece, window in enumerate(ndimage.find_objects(pieces), start=1):
                own = pieces[window] == piece
                holes, _ = ndimage.label(ndimage.binary_fill_holes(own) & ~own)
                sizes = np.bincount(holes.ravel()) * content
                small = sizes <= (np.inf if self.largest is None else self.largest)
                small[0] = False
                label[window][small[holes]] = index
        return label
