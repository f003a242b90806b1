"""Making a lesson harder: noise on images, dropout on features."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from common.batch import Image
from common.parts import Features


def noisy(image: Image, deviation: float, limit: float) -> Image:
    """Add Gaussian noise of ``deviation``, clipped at plus and minus ``limit`` [1].

    [1] Yu et al., UA-MT, 2019, arXiv:1907.07034, Sec. 3.1.
    """
    return image + (torch.randn_like(image) * deviation).clamp(-limit, limit)


def channel_dropout(features: Features, share: float) -> Features:
    """Set a random ``share`` of the channels of each map to 0, and scale the others up [1].

    [1] Yang et al., UniMatch, CVPR 2023, arXiv:2208.09910, Sec. 3.2.
    """
    return tuple(_drop_channels(each, share) for each in features)


def _drop_channels(map: Tensor, share: float) -> Tensor:
    kept = torch.ones(map.shape[:2], device=map.device, dtype=map.dtype)
    return map * F.dropout(kept, share).view(*map.shape[:2], *[1] * (map.ndim - 2))
