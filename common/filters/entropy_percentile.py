"""Trust all but the pixels that the model is most torn about."""

from __future__ import annotations

from typing import Literal

import torch

from common.batch import Probs, Weights
from common.filters.base import Filter, least_left, normalized_entropy
from common.schedules import Linear, Share, value_at


class EntropyPercentile(Filter):
    """Drop the share ``dropped`` of the pixels, those with the largest entropy [1].

    Of ``n`` pixels of the batch that lie in an image, ``floor(dropped * n)`` are dropped, and
    fewer where entropies tie. A larger share keeps no more; 0 keeps everything. The percentile
    is exact.

    [1] Wang et al., U2PL, CVPR 2022, arXiv:2203.03884, Eqs. 3, 5 and 6.
    """

    name: Literal["entropy_percentile"] = "entropy_percentile"
    dropped: Share = Linear(start=0.2, end=0.0)  # alpha_t

    def __call__(self, probs: Probs, progress: float = 1.0) -> Weights:
        dropped = value_at(self.dropped, progress)
        if dropped == 0:
            return torch.ones_like(probs[:, 0])
        certainty, there = -normalized_entropy(probs), probs.sum(dim=1) > 0
        return (certainty >= least_left(certainty, there, dropped)).to(probs.dtype)
