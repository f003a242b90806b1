"""Trust the surest part of every class."""

from __future__ import annotations

from typing import Literal

import torch

from common.batch import Probs, Weights
from common.filters.base import Filter
from common.ranking import largest
from common.schedules import Share, value_at


class ClassRatio(Filter):
    """Keep the ``kept`` surest pixels of each class that an image is predicted to show [1].

    So every class teaches, however unsure the network is of it. A larger ratio keeps no less.
    Of a class that is predicted at all one pixel is kept at least, unless the ratio is 0. Ties are
    broken by place.

    Departure: [2] takes the ratio over all images of a data set, here and in [1] over one.

    [1] Lu et al., LSST, IEEE TGRS 2023, and the authors' code github.com/xiaoqiang-lu/LSST.
    [2] Zou et al., CBST, ECCV 2018, arXiv:1810.07911.
    """

    name: Literal["class_ratio"] = "class_ratio"
    kept: Share = 0.5

    @torch.no_grad()
    def __call__(self, probs: Probs, progress: float = 1.0) -> Weights:
        confidence, label = probs.flatten(2).max(dim=1)
        images = torch.arange(len(probs), device=probs.device).unsqueeze(1)
        groups, there = probs.shape[0] * probs.shape[1], confidence > 0
        group = torch.where(there, images * probs.shape[1] + label, groups).flatten()
        count = group.new_zeros(groups + 1).scatter_add_(0, group, torch.ones_like(group))[:-1]
        wanted = (value_at(self.kept, progress) * count).ceil()
        kept = largest(confidence.flatten(), group, wanted)
        return kept.view_as(probs[:, 0]).to(probs.dtype)
