"""Making a lesson harder: noise on images, dropout on features."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.batch import Image, Logits, Mask
from common.parts import Features

DROPOUTS = (
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Dropout3d,
    nn.AlphaDropout,
    nn.FeatureAlphaDropout,
)


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


def complementary_dropout(one: Features, other: Features) -> tuple[Features, Features]:
    """Drop a random half of the channels in one view, and in the other the other half [1].

    What is kept is doubled, so the two factors of a channel sum to 2. A random half of the
    samples (rounded down) keeps all channels in both views, as in the authors' code. Each map
    has channels of its own and so a draw of its own; the authors' maps are equally wide and
    share one.

    [1] Yang et al., UniMatch V2, 2024, arXiv:2410.10777, Sec. 3.3.
    """
    batch = one[0].shape[0]
    whole = torch.randperm(batch, device=one[0].device) < batch // 2
    factors = [_zero_or_two(each, whole) for each in one]
    return (
        tuple(each * factor for each, factor in zip(one, factors, strict=True)),
        tuple(each * (2 - factor) for each, factor in zip(other, factors, strict=True)),
    )


@contextlib.contextmanager
def dropping(network: nn.Module) -> Iterator[None]:
    """Let the dropout of ``network`` work, and nothing else, though it is in evaluation mode."""
    asleep = [m for m in network.modules() if isinstance(m, DROPOUTS) and not m.training]
    for module in asleep:
        module.train()
    try:
        yield
    finally:
        for module in asleep:
            module.eval()


def gradient_reversed(features: Tensor, coefficient: float) -> Tensor:
    """``features`` themselves; backward, their gradient times minus ``coefficient`` [1].

    [1] Ganin et al., Domain-adversarial training, 2016, arXiv:1505.07818, Sec. 4.2.
    """
    same: Tensor = _GradientReversal.apply(features, coefficient)
    return same


class _GradientReversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, coefficient: float) -> Tensor:  # noqa: ANN401
        ctx.coefficient = coefficient
        return features.view_as(features)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        return -ctx.coefficient * gradients[0], None


def virtual_adversarial(
    features: Features, predict: Callable[[Features], Logits], *, share: float, rounds: int = 1
) -> Features:
    """Move features by ``share`` of their length to where ``predict`` changes the most [1].

    Each map of each sample moves by that share of its own length, so that the strength depends
    neither on the size of an image nor on the width of a network; a map of which ``predict``
    reads nothing stays where it is. The direction is searched by ``rounds`` power iterations,
    at the distance where it will be used: the 1e-6 of published code is lost in rounding.

    Args:
        features: Where to start. Gradients flow through them, not through the step.
        predict: Features to logits (or log-probabilities). The search leaves no gradient in its
            weights; it should be in evaluation mode, or samples and statistics mix.
        share: Length of the step, as a share of that of the features.
        rounds: Forward and backward passes of ``predict``, beside one forward pass.

    [1] Miyato et al., Virtual adversarial training, 2018, arXiv:1704.03976.
    """
    start = tuple(each.detach() for each in features)
    with torch.no_grad():
        belief = predict(start).float().softmax(dim=1)
    step = tuple(_of_length(torch.randn_like(each), each, share) for each in start)
    for _ in range(rounds):
        with torch.enable_grad():
            for each in step:
                each.requires_grad_()
            moved = predict(tuple(map(torch.add, start, step))).float().log_softmax(dim=1)
            change = F.kl_div(moved, belief, reduction="sum")
        uphill = torch.autograd.grad(change, step, allow_unused=True, materialize_grads=True)
        step = tuple(_of_length(each, at, share) for each, at in zip(uphill, start, strict=True))
    return tuple(map(torch.add, features, step))


def feature_noise(features: Features, limit: float) -> Features:
    """Multiply each value by a random factor between ``1 - limit`` and ``1 + limit`` [1].

    [1] Ouali et al., CCT, CVPR 2020, arXiv:2003.09005, Sec. 3.3, as all of the following.
    """
    return tuple(each + each * (2 * torch.rand_like(each) - 1) * limit for each in features)


def without_strongest(features: Features, low: float, high: float) -> Features:
    """Set to 0 where the mean over channels passes a random share of its maximum.

    The share lies between ``low`` and ``high``, one for each map of each sample. Where that
    maximum is not above 0, nothing is lost.
    """
    return tuple(each * _is_below(each, low, high) for each in features)


def without_box(features: Features, objects: Mask, share: float) -> Features:
    """Set a box to 0 that covers ``share`` of the extent of ``objects`` along each axis.

    It lies at random within their bounding box, the same in all maps. A sample without objects
    loses nothing.
    """
    inside = torch.ones_like(objects)
    for axis in range(1, objects.ndim):
        others = [each for each in range(1, objects.ndim) if each != axis]
        inside &= _within(objects.sum(dim=others) > 0, share).view(
            [side if each in (0, axis) else 1 for each, side in enumerate(objects.shape)]
        )
    found = objects.flatten(1).any(dim=1).view(-1, *[1] * (objects.ndim - 1))
    return only_where(features, ~(inside & found))


def only_where(features: Features, kept: Mask) -> Features:
    """Set features to 0 outside of ``kept``, a mask on the grid of the image."""
    mask = kept.unsqueeze(1).float()
    return tuple(
        each * F.interpolate(mask, size=each.shape[2:], mode="nearest").to(each.dtype)
        for each in features
    )


def _is_below(map: Tensor, low: float, high: float) -> Tensor:
    """1 where the mean over channels is below the bound of :func:`without_strongest`, else 0."""
    activity = map.mean(dim=1, keepdim=True)
    strongest = activity.flatten(1).amax(dim=1)
    share = low + (high - low) * torch.rand_like(strongest)
    bound = torch.where(strongest > 0, strongest * share, torch.inf)
    return (activity < bound.view(-1, *[1] * (map.ndim - 1))).to(map.dtype)


def _within(present: Tensor, share: float) -> Tensor:
    """Along one axis ``(B, side)``: a random stretch, ``share`` of the way from first to last."""
    side = present.shape[1]
    index = torch.arange(side, device=present.device)
    first = torch.where(present, index, side).amin(dim=1)
    last = torch.where(present, index, -1).amax(dim=1)
    length = (share * (last - first + 1)).round().clamp_min(1)
    room = (last - first + 1 - length).clamp_min(0) + 1
    start = first + (torch.rand_like(length) * room).floor().clamp_max(side)
    return (index >= start[:, None]) & (index < (start + length)[:, None])


def _of_length(direction: Tensor, features: Tensor, share: float) -> Tensor:
    """``direction`` of each sample, ``share`` as long as its features; nothing stays nothing."""
    flat = direction.float().flatten(1)
    flat = flat / flat.abs().amax(dim=1, keepdim=True).clamp_min(torch.finfo(flat.dtype).tiny)
    length = share * features.float().flatten(1).norm(dim=1, keepdim=True)
    step: Tensor = length * F.normalize(flat)
    return step.view_as(features).to(features.dtype)


def _zero_or_two(map: Tensor, whole: Tensor) -> Tensor:
    """A factor for each channel, ``(B, F, 1, ...)``: 1 in samples that stay ``whole``."""
    drawn = 2 * torch.randint(2, map.shape[:2], device=map.device)
    factor = torch.where(whole.unsqueeze(1), 1, drawn).to(map.dtype)
    return factor.view(*map.shape[:2], *[1] * (map.ndim - 2))


def _drop_channels(map: Tensor, share: float) -> Tensor:
    kept = torch.ones(map.shape[:2], device=map.device, dtype=map.dtype)
    return map * F.dropout(kept, share).view(*map.shape[:2], *[1] * (map.ndim - 2))
