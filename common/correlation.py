"""How alike the places of one image are, and what a prediction becomes when it flows along."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.batch import Image, Logits, Pseudo, one_hot
from common.cells import cells, pooled
from common.parts import Parted, on_grid, pointwise
from common.precision import full_precision


class Correlation(NamedTuple):
    """What share each place of an image gives to each other one; places are cells of a grid."""

    shares: Tensor  # (B, N, N), rows sum to 1
    grid: tuple[int, ...]  # cells along each axis, N in all

    def spread(self, logits: Logits) -> Logits:
        """Logits that flowed from place to place, on their own grid again [1].

        No gradient flows back through ``logits``: they teach where to flow to, not what.

        [1] Sun et al., CorrMatch, CVPR 2024, arXiv:2306.04300, Sec. 3.2.
        """
        given = pooled(logits.detach(), self.grid).flatten(2)
        flowed = given.float() @ self.shares
        return on_grid(flowed.view(*flowed.shape[:2], *self.grid), logits)

    @torch.no_grad()
    def regions(self, number: int, image: Image) -> Tensor:
        """For ``number`` random places, the pixels each gives most to, ``(B, R, *S)`` bool.

        Most is more than halfway between the least and the largest share.
        """
        drawn = torch.randint(self.shares.shape[1], (number,), device=image.device)
        rows = self.shares[:, drawn]
        fine = on_grid(rows.view(*rows.shape[:2], *self.grid), image)
        axes = tuple(range(2, fine.ndim))
        least, most = fine.amin(dim=axes, keepdim=True), fine.amax(dim=axes, keepdim=True)
        return fine > (least + most) / 2


class Correlating(Parted):
    """A network that also tells how alike places are.

    Args:
        network: Its pixel features are averaged in cells, of which there are few.
        places: The most cells an image is cut into: the cost grows with their square.
        size: Numbers that a place is compared by.
    """

    def __init__(self, network: Parted, *, places: int, size: int) -> None:
        super().__init__(network.encoder, network.decoder, network.head)
        layer = pointwise(network)
        self.describe = nn.Sequential(
            layer(network.pixel_channels, size, 3, padding=1), nn.ReLU(), layer(size, 2 * size, 1)
        )
        self.places = places

    def correlation(self, pixels: Tensor) -> Correlation:
        """How alike the cells of pixel features ``(B, F, *S)`` are [1].

        [1] Sun et al., CorrMatch, CVPR 2024, arXiv:2306.04300, Sec. 3.2.
        """
        grid = cells(tuple(pixels.shape[2:]), self.places)
        giving, taking = self.describe(pooled(pixels, grid)).flatten(2).chunk(2, dim=1)
        with full_precision(pixels.device):
            alike = giving.float().transpose(1, 2) @ taking.float() / math.sqrt(giving.shape[1])
            return Correlation(shares=alike.softmax(dim=2), grid=grid)


@torch.no_grad()
def propagated(pseudo: Pseudo, regions: Tensor, num_classes: int, *, agreement: float) -> Pseudo:
    """A pseudo-label that confident regions have spread over [1].

    A region of which a share of at least ``agreement`` is trusted, and of that more than
    ``agreement`` is one class, becomes that class, trusted. Where several do, the class of most
    of them counts.

    Args:
        pseudo: Of the image as it is; IGNORE where there is nothing, which stays so.
        regions: ``(B, R, *S)``, True inside.
        num_classes: ``K``.
        agreement: What share is enough.

    [1] Sun et al., CorrMatch, CVPR 2024, arXiv:2306.04300, Sec. 3.3.
    """
    named = one_hot(pseudo.target, num_classes).flatten(2)
    trusted = named * (pseudo.weight > 0).flatten(1).unsqueeze(1)
    inside = regions.flatten(2).float()
    with full_precision(regions.device):
        size = (inside @ named.sum(dim=1).unsqueeze(2)).squeeze(2)  # (B, R), what is valid
        counts = inside @ trusted.transpose(1, 2)  # (B, R, K)
        most, winner = counts.max(dim=2)
        sure = counts.sum(dim=2)
        wins = (sure > 0) & (sure >= agreement * size) & (most > agreement * sure)
        votes = (F.one_hot(winner, num_classes) * wins.unsqueeze(2)).float()
        found, label = (votes.transpose(1, 2) @ inside).max(dim=1)
    spread = (found > 0).view_as(pseudo.target) & (named.sum(dim=1) > 0).view_as(pseudo.target)
    return Pseudo(
        target=torch.where(spread, label.view_as(pseudo.target), pseudo.target),
        weight=torch.where(spread, 1.0, pseudo.weight),
    )
