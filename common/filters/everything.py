"""Trust every pixel."""

from __future__ import annotations

from typing import Literal

import torch

from common.batch import Probs, Weights
from common.filters.base import Filter


class All(Filter):
    """Keep every pixel, as cross pseudo supervision does [1].

    [1] Chen et al., CPS, CVPR 2021, arXiv:2106.01226, Eq. 2.
    """

    name: Literal["all"] = "all"

    def __call__(self, probs: Probs, progress: float = 1.0) -> Weights:
        return torch.ones_like(probs[:, 0])
