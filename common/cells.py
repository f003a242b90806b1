"""A coarse grid of cells over an image: few enough to compare each with each."""

from __future__ import annotations

import math
from typing import cast

import torch.nn.functional as F
from torch import Tensor


def cells(sides: tuple[int, ...], most: int) -> tuple[int, ...]:
    """The finest grid of cells, equally long along all axes, with at most ``most`` of them."""
    for length in range(1, max(sides) + 1):
        grid = tuple(math.ceil(side / length) for side in sides)
        if math.prod(grid) <= most:
            break
    return grid


def pooled(maps: Tensor, grid: tuple[int, ...]) -> Tensor:
    """The mean of ``maps`` in each cell of ``grid``."""
    if maps.ndim == 4:
        return F.adaptive_avg_pool2d(maps, cast(tuple[int, int], grid))
    return F.adaptive_avg_pool3d(maps, cast(tuple[int, int, int], grid))
