"""Shapes that the image itself suggests."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from skimage.segmentation import slic

from common.batch import Pixel, SoftPseudo, Unlabeled
from common.refiners.base import Refiner, relabeled
from common.settings import Fraction, Positive, PositiveReal


class Superpixels(Refiner):
    """Give all pixels of a superpixel the class that most of its trust is in [1].

    A superpixel whose trust is divided, with less than ``majority`` in one class, stays as it is.
    In volumes these are supervoxels. Runs on the host.

    [1] Achanta et al., SLIC, IEEE TPAMI 2012, doi:10.1109/TPAMI.2012.120.
    """

    name: Literal["superpixels"] = "superpixels"
    count: Positive = 200  # of each image, about
    compactness: PositiveReal = 0.1  # of their shape, against likeness of normalized pixels
    majority: Fraction = 0.6

    def __call__(self, guess: SoftPseudo, weak: Unlabeled, pixel: Pixel) -> SoftPseudo:
        if not len(weak.image):
            return guess
        label = guess.predicted
        images = zip(weak.image, weak.valid, label, guess.weight, strict=True)
        voted = [self._voted(*each, guess.probs.shape[1], pixel) for each in images]
        return relabeled(guess, torch.stack(voted).to(label.device))

    def _voted(
        self,
        image: torch.Tensor,
        valid: torch.Tensor,
        label: torch.Tensor,
        weight: torch.Tensor,
        classes: int,
        pixel: Pixel,
    ) -> torch.Tensor:
        there = valid.cpu().numpy()
        own = label.cpu().numpy()
        if not there.any():
            return label.cpu()
        segments = slic(
            image.cpu().numpy(),
            n_segments=self.count,
            compactness=self.compactness,
            mask=there,
            channel_axis=0,
            spacing=pixel.along(there.ndim),
            start_label=1,
        )
        votes = np.zeros((segments.max() + 1, classes))
        np.add.at(votes, (segments, own), weight.cpu().numpy() * there)
        total = votes.sum(axis=1)
        clear = (votes.max(axis=1) >= self.majority * total) & (total > 0)
        chosen = np.where(clear[segments] & there, votes.argmax(axis=1)[segments], own)
        return torch.from_numpy(chosen)
