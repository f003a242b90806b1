"""Labels that walk from where they are sure."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from scipy import ndimage
from skimage.segmentation import random_walker

from common.batch import Mask, Pixel, SoftPseudo, Unlabeled
from common.refiners.base import Refiner, relabeled
from common.settings import Fraction, PositiveReal


class RandomWalker(Refiner):
    """Give a pixel the class of the seed that a random walk from it reaches first [1].

    Seeds are trusted pixels whose probability reaches ``seed``. Where the image changes by its
    standard deviation from one pixel to the next, a walk is ``exp(-beta)`` times as likely to go
    there; along axes with larger pixels, a change counts as spread over their length. What can
    reach no seed stays as it is, and so does an image without contrast, or whose seeds are of one
    class. Trust never rises, so what a filter dropped does not teach afterwards: of use
    where the filter trusts pixels below ``seed``. Runs on the host, a sparse system of equations
    for each class of each image.

    [1] Grady, Random walks for image segmentation, IEEE TPAMI 2006, doi:10.1109/TPAMI.2006.233.
    """

    name: Literal["random_walker"] = "random_walker"
    seed: Fraction = 0.95
    beta: PositiveReal = 2.0  # of [1], for steps in standard deviations, channels averaged

    def __call__(self, guess: SoftPseudo, weak: Unlabeled, pixel: Pixel) -> SoftPseudo:
        if not len(weak.image):
            return guess
        sure = weak.valid & (guess.weight > 0) & (guess.probs.amax(dim=1) >= self.seed)
        label = guess.predicted
        images = zip(weak.image, weak.valid, sure, label, strict=True)
        walked = [self._walked(*each, pixel) for each in images]
        return relabeled(guess, torch.stack(walked).to(label.device))

    def _walked(
        self, image: torch.Tensor, valid: Mask, sure: Mask, label: torch.Tensor, pixel: Pixel
    ) -> torch.Tensor:
        there, own, seeds = valid.cpu().numpy(), label.cpu().numpy(), sure.cpu().numpy()
        linked = ndimage.binary_propagation(seeds, mask=there)
        linked = ndimage.binary_propagation(linked & ~seeds, mask=linked)  # a lone seed upsets it
        marks = np.where(linked, np.where(seeds, own + 1, 0), -1)
        named = np.unique(own[linked & seeds])
        pixels = image.float().cpu().numpy()
        contrast = pixels[:, there].std() if there.any() else 0.0
        if len(named) < 2 or not (marks == 0).any() or contrast < 1e-6:
            return label.cpu()
        pixels = np.where(there, pixels / contrast, 0.0)
        chances = random_walker(
            pixels,
            marks,
            beta=self.beta * 10 * pixels.std() / math.sqrt(len(pixels)),  # its own scale undone
            spacing=np.array(pixel.along(there.ndim)) / pixel.content ** (1 / there.ndim),
            channel_axis=0,
            return_full_prob=True,
            tol=1e-6,
            prob_tol=np.inf,  # what has no solution is left alone here
        )
        solved = (marks == 0) & (np.abs(chances.sum(axis=0) - 1) < 0.01)
        return torch.from_numpy(np.where(solved, named[chances.argmax(axis=0)], own))
