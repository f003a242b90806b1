"""No holes."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from scipy import ndimage

from common.batch import IGNORE, Pixel, SoftPseudo, Unlabeled
from common.components import classes_in
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
        for index in (each for each in classes_in(label) if each not in {0, IGNORE}):
            pieces, _ = ndimage.label(label == index)
            for piece, window in enumerate(ndimage.find_objects(pieces), start=1):
                own = pieces[window] == piece
                if min(own.shape) < 3:  # too small to surround anything
                    continue
                gaps, _ = ndimage.label(~own)
                sizes = np.bincount(gaps.ravel()) * content
                filled = sizes <= (np.inf if self.largest is None else self.largest)
                filled[[0, *_at_the_edge(gaps)]] = False
                label[window][filled[gaps]] = index
        return label


def _at_the_edge(gaps: np.ndarray) -> set[int]:
    """Those that touch a side of the window, and so may go on beyond it."""
    sides = (gaps.take([0, -1], axis=axis) for axis in range(gaps.ndim))
    return {int(each) for side in sides for each in np.unique(side)}
