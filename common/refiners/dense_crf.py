"""What borders in the image and the neighbors of a pixel say."""

from __future__ import annotations

import math
from typing import Literal

import torch

from common.batch import Pixel, Probs, SoftPseudo, Unlabeled
from common.neighborhoods import Step, around, distance, steps_within
from common.refiners.base import Refiner
from common.settings import NonNegative, Positive, PositiveReal


class DenseCRF(Refiner):
    """Infer classes with a conditional random field that joins all pixels within ``reach`` [1].

    Mean field inference of Potts potentials with the two Gaussian kernels of [1]: pixels that are
    near and alike should agree, and pixels that are near should. As in [2], those farther apart
    than ``reach`` are independent, so that nothing but the window decides what it costs, and it
    runs on the device. Only valid pixels speak. Trust stays as it was, and so does a class of
    probability 0.

    A kernel is divided by what its distances alone add up to at the pixel: its weight then means
    the same at every size of pixels and at the edge of a patch, and unlike neighbors say little.
    So one class gains at most the sum of both weights on another, in logarithms, and a pixel
    surer than that keeps its class. This and the values of the settings are ours.

    [1] Krähenbühl and Koltun, NIPS 2011, arXiv:1210.5644.
    [2] Teichmann and Cipolla, ConvCRF, 2018, arXiv:1805.04777.
    """

    name: Literal["dense_crf"] = "dense_crf"
    reach: PositiveReal  # mm of volumes, metres of scenes, else pixels
    appearance_sigma: PositiveReal | None = None  # theta_alpha, as reach; absent: half of it
    smoothness_sigma: PositiveReal | None = None  # theta_gamma, as reach; absent: a quarter of it
    intensity_sigma: PositiveReal = 0.5  # theta_beta, of normalized pixels, all channels together
    appearance_weight: NonNegative = 3.0  # w(1)
    smoothness_weight: NonNegative = 1.0  # w(2)
    iterations: Positive = 5

    def __call__(self, guess: SoftPseudo, weak: Unlabeled, pixel: Pixel) -> SoftPseudo:
        sides = pixel.along(weak.valid.ndim - 1)
        steps = steps_within(self.reach, sides)
        unary, probs = guess.probs.log(), guess.probs
        for _ in range(self.iterations if steps else 0):
            heard = self._heard(probs * weak.valid.unsqueeze(1), weak, steps, sides)
            probs = torch.where(weak.valid.unsqueeze(1), (unary + heard).softmax(dim=1), probs)
        return guess._replace(probs=probs)

    def _heard(
        self, probs: Probs, weak: Unlabeled, steps: list[Step], sides: tuple[float, ...]
    ) -> Probs:
        """What the neighbors of each pixel add to the logarithm of its probabilities."""
        far, near = self.appearance_sigma or self.reach / 2, self.smoothness_sigma or self.reach / 4
        image, there = weak.image.float(), weak.valid.unsqueeze(1).to(probs.dtype)
        appearance, smoothness = torch.zeros_like(probs), torch.zeros_like(probs)
        of_far, of_near = torch.zeros_like(there), torch.zeros_like(there)
        seen = zip(
            steps, around(image, steps), around(there, steps), around(probs, steps), strict=True
        )
        for step, pixels, valid, theirs in seen:
            apart = distance(step, sides)
            by_far, by_near = (math.exp(-0.5 * (apart / each) ** 2) for each in (far, near))
            unlike = ((image - pixels) / self.intensity_sigma).square().sum(dim=1, keepdim=True)
            appearance.addcmul_((-unlike / 2).exp(), theirs, value=by_far)
            smoothness.add_(theirs, alpha=by_near)
            of_far.add_(valid, alpha=by_far)
            of_near.add_(valid, alpha=by_near)
        appearance *= self.appearance_weight / of_far.clamp_min(1e-30)
        return appearance + self.smoothness_weight * smoothness / of_near.clamp_min(1e-30)
