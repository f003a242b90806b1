"""What the network says, and what it says of places that look alike."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from common.batch import Probs
from common.cells import cells, pooled
from common.parts import on_grid
from common.settings import Fraction, Positive, PositiveReal
from common.sources.base import LooksInside

LEAST = 1e-6
"""Of a class in a cell, so that nothing is divided by 0."""


class Propagation(LooksInside):
    """Lets probabilities flow between cells of an image whose features are alike [1].

    ``Z = (1 - alpha) (1 - alpha W)^-1 Y``: ``Y`` are the mean probabilities of the cells, ``W``
    their likenesses, ``max(cosine, 0)^gamma``, none with itself, normed by ``D^-1/2 W D^-1/2``.
    The pixels of a cell follow it: their probabilities change by the factor, ``Z`` by ``Y`` of each
    class, by which the cell changed, interpolated between cells. With ``alpha`` 0 nothing flows.

    Departures: [1] propagates labels to the images of a data set, by their nearest neighbors; [2]
    between places of one image, by features that learn to be compared (the method `corr_match`).

    [1] Iscen et al., Label propagation for deep semi-supervised learning, CVPR 2019,
        arXiv:1904.04717, Sec. 3.2.
    [2] Sun et al., CorrMatch, CVPR 2024, arXiv:2306.04300, Sec. 3.2.
    """

    name: Literal["propagation"] = "propagation"
    alpha: Annotated[Fraction, Field(lt=1)] = 0.5  # 0.99 in [1], where most begin without a label
    gamma: PositiveReal = 3.0
    places: Positive = 256  # cells of an image, at most

    def corrected(self, probs: Probs, pixels: Tensor) -> Probs:
        grid = cells(tuple(probs.shape[2:]), self.places)
        given = pooled(probs, grid).flatten(2).clamp_min(LEAST)  # Y, (B, K, N)
        rows = F.normalize(pooled(pixels, grid).flatten(2), dim=1)
        alike = (rows.transpose(1, 2) @ rows).clamp_min(0) ** self.gamma
        alike = alike - torch.diag_embed(alike.diagonal(dim1=1, dim2=2))
        length = alike.sum(dim=2).clamp_min(1e-12).rsqrt()
        walk = length[:, :, None] * alike * length[:, None, :]
        stays = torch.eye(alike.shape[1], device=alike.device) - self.alpha * walk
        flowed = torch.linalg.solve(stays, given, left=False) * (1 - self.alpha)
        flowed = flowed / flowed.sum(dim=1, keepdim=True) * given.sum(dim=1, keepdim=True)
        change = (flowed / given).unflatten(2, grid)
        changed = probs * on_grid(change, probs)
        return changed / changed.sum(dim=1, keepdim=True)
