"""Signed distances to the border of each class, on any device and without waiting for it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from common.batch import IGNORE, Grid, Labels, Probs, TrustMap, one_hot

NOWHERE = 1e9


@torch.no_grad()
def signed_distances(target: Labels, num_classes: int, *, reach_pixels: int) -> Probs:
    """How far each pixel lies outside of each class, negative inside, as a share of the reach.

    The Euclidean distance between pixel centers to the nearest pixel that is of the class (or,
    inside, known not to be), less half a pixel, so that the border lies between pixels; exact,
    and clipped to -1 and 1. Pixels that are IGNORE are nobody's neighbors, and what is said of
    them means nothing. A class that is absent lies at 1 everywhere.

    Args:
        target: Class of each pixel ``(B, *S)``.
        num_classes: K.
        reach_pixels: Distance at which values end. Costs ``2 * reach + 1`` minima for each axis.
    """
    inside = one_hot(target, num_classes) > 0
    outside = (target != IGNORE).unsqueeze(1) & ~inside
    to_class, to_others = (distance_to(each, reach=reach_pixels) for each in (inside, outside))
    signed = torch.where(inside, 0.5 - to_others, to_class - 0.5)
    return (signed / reach_pixels).clamp(-1, 1)


def distance_to(there: Tensor, *, reach: float, sides: Sequence[float] | None = None) -> Probs:
    """To the center of the nearest pixel ``there``, exact up to ``reach``, no smaller beyond it.

    Squares of distances add up over the axes, so each axis is searched by itself.

    Args:
        there: ``(B, K, *S)``, each channel for itself.
        reach: In the unit of ``sides``.
        sides: Of a pixel along each spatial axis; 1 by default.
    """
    squares = torch.where(there, 0.0, NOWHERE)
    for axis, side in enumerate(sides or [1.0] * (there.ndim - 2), start=2):
        far = math.ceil(reach / side)
        padded = F.pad(squares, [0, 0] * (there.ndim - 1 - axis) + [far, far], value=NOWHERE)
        length = squares.shape[axis]
        for step in range(1, far + 1):
            sides_of = (padded.narrow(axis, far + each, length) for each in (-step, step))
            torch.minimum(squares, torch.minimum(*sides_of).add_((step * side) ** 2), out=squares)
    return squares.sqrt()


@torch.no_grad()
def border_distance(truth: Grid, *, reach: float, sides: Sequence[float]) -> TrustMap:
    """How far each pixel lies from a border between classes; 0 for pixels that touch one.

    Center to center, to the nearest pixel one of whose neighbors along an axis is known to be of
    another class; exact up to ``reach``, no smaller beyond it, and there without any border.

    Args:
        truth: Class indices ``(*S)``; IGNORE makes no border.
        reach: In the unit of ``sides``.
        sides: Of a pixel along each axis.
    """
    touches = torch.zeros_like(truth, dtype=torch.bool)
    for axis, length in enumerate(truth.shape):
        one, other = truth.narrow(axis, 0, length - 1), truth.narrow(axis, 1, length - 1)
        differ = (one != other) & (one != IGNORE) & (other != IGNORE)
        touches.narrow(axis, 0, length - 1).logical_or_(differ)
        touches.narrow(axis, 1, length - 1).logical_or_(differ)
    return distance_to(touches[None, None], reach=reach, sides=sides)[0, 0]
