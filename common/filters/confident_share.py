"""Trust all alike, as far as the model is sure of many."""

from __future__ import annotations

from typing import Literal

import torch

from common.batch import Probs, Weights
from common.filters.base import Filter
from common.schedules import Share, value_at


class ConfidentShare(Filter):
    """Give every pixel of a batch one weight: the share of confident ones among them [1, 2].

    Confident is a pixel whose largest class probability reaches ``threshold``. No pixel is
    dropped for being unsure, which would drop all borders; instead trust grows with the training,
    in place of a ramp. A higher threshold trusts no more. The share is that of a whole batch, of
    each process by itself; where whole cases are judged, of a case.

    [1] French et al., CutMix-Seg, 2020, arXiv:1906.01916, Sec. 4.
    [2] Olsson et al., ClassMix, WACV 2021, arXiv:2007.07936, Sec. 3.3.
    """

    name: Literal["confident_share"] = "confident_share"
    threshold: Share = 0.968

    def __call__(self, probs: Probs, progress: float = 1.0) -> Weights:
        confidence = probs.amax(dim=1)
        there = confidence > 0
        sure = there & (confidence >= value_at(self.threshold, progress))
        return torch.ones_like(confidence) * (sure.sum() / there.sum().clamp_min(1))
