"""Trust that fades below what the network is usually sure of."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from common.batch import Probs, Weights
from common.filters.base import LiveFilter, mean_of_valid
from common.settings import Fraction


class Soft(LiveFilter):
    """Trust in full a pixel surer than the mean, below it by a Gaussian of the distance [1].

    Mean and variance of confidence run along with training. Confidence is that of probabilities
    aligned to a uniform mean over classes, so a class predicted rarely is not trusted less.

    Departure: [1] counts images; pixels are many, so the means settle within fewer steps.

    [1] Chen et al., SoftMatch, ICLR 2023, arXiv:2301.10921.
    """

    name: Literal["soft"] = "soft"
    decay: Fraction = 0.999  # m

    def start(self, num_classes: int) -> nn.Module:
        return _Fading(self, num_classes)


class _Fading(nn.Module):
    share: Tensor  # (K,), mean probabilities
    mean: Tensor  # (), mu
    variance: Tensor  # (), sigma squared

    def __init__(self, filter: Soft, num_classes: int) -> None:
        super().__init__()
        self.decay = filter.decay
        self.register_buffer("share", torch.full((num_classes,), 1 / num_classes))
        self.register_buffer("mean", torch.tensor(1 / num_classes))
        self.register_buffer("variance", torch.tensor(1.0))

    @torch.no_grad()
    def forward(self, probs: Probs, progress: float = 1.0) -> Weights:
        there = probs.amax(dim=1) > 0
        if self.training:
            self._follow({"share": mean_of_valid(probs, there)}, there)
        aligned = probs / self.share.view(-1, *[1] * (probs.ndim - 2)).clamp_min(1e-12)
        confidence = (aligned / aligned.sum(dim=1, keepdim=True).clamp_min(1e-12)).amax(dim=1)
        if self.training:
            mean = mean_of_valid(confidence.unsqueeze(1), there)[0]
            spread = mean_of_valid((confidence - mean).square().unsqueeze(1), there)[0]
            self._follow({"mean": mean, "variance": spread}, there)
        below = (self.mean - confidence).clamp_min(0)
        return torch.exp(-below.square() / (2 * self.variance).clamp_min(1e-12)) * there

    def _follow(self, seen: dict[str, Tensor], there: Tensor) -> None:
        for name, value in seen.items():
            held: Tensor = getattr(self, name)
            value = torch.where(there.any(), value, held)
            held.lerp_(value.to(held.dtype), 1 - self.decay)
