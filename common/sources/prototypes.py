"""What the network says, where it looks like the rest of its class."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from common.batch import Probs, most_probable, one_hot
from common.parts import on_grid
from common.settings import PositiveReal
from common.sources.base import LooksInside


class Prototypes(LooksInside):
    """Weighs each class by how like its prototype the features of a pixel are [1].

    The prototype of a class is the mean of the features of the pixels predicted as that class,
    each by its probability. A pixel named like its neighbors but computed like another class
    changes over: ``p_k`` becomes ``p_k * softmax(cosine_k / temperature)``, normed to sum 1. A
    class that is not predicted has no prototype, and keeps out.

    Departures: [1] takes distances, here are cosines, which every network has in the same range;
    its prototypes move slowly over a training, these are of the images asked about together.

    [1] Zhang et al., ProDA, CVPR 2021, arXiv:2101.10979, Eqs. 5 to 7.
    """

    name: Literal["prototypes"] = "prototypes"
    temperature: PositiveReal = 0.1  # tau; 1, of distances, in [1]

    def corrected(self, probs: Probs, pixels: Tensor) -> Probs:
        alike = F.normalize(on_grid(pixels, probs), dim=1)
        named = one_hot(most_probable(probs), probs.shape[1]) * probs
        centers = torch.einsum("bk...,bf...->kf", named, alike)
        cosines = torch.einsum("bf...,kf->bk...", alike, F.normalize(centers, dim=1))
        there = (centers != 0).any(dim=1).view(-1, *[1] * (probs.ndim - 2))
        likeness = (cosines / self.temperature).masked_fill(~there, -torch.inf).softmax(dim=1)
        weighed = probs * likeness
        return weighed / weighed.sum(dim=1, keepdim=True)
