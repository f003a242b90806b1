"""Smooth random fields: cubic B-splines over a regular grid of control points."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

SPANS = 3
"""How many more control points than intervals an axis has: four of them shape each interval."""


def control_points(side: int, interval: float) -> int:
    """How many control points, ``interval`` pixels apart, ``side`` pixels need along an axis."""
    return SPANS + max(1, math.ceil((side - 1) / interval))


def smooth(control: Tensor, sides: Sequence[int], intervals: Sequence[float]) -> Tensor:
    """The field that control points span: everywhere a weighted mean of those around [1, Eq. 1].

    So it is never larger than the largest of them, and twice differentiable. It lies below its
    control points: random ones of variance 1 span a field of variance near 1/9 in 3D.

    Args:
        control: Values ``(..., *G)`` at points of which the second lies on the first pixel.
        sides: Of the field, in pixels.
        intervals: Pixels from one control point to the next, along each axis.

    Returns:
        The field ``(..., *sides)``.

    [1] Rueckert et al., Nonrigid registration using free-form deformations, IEEE TMI 18(8), 1999.
    """
    field, dims = control, len(sides)
    for axis in reversed(range(dims)):  # most is taken along the first axis, where whole rows are
        place = torch.arange(sides[axis], device=field.device, dtype=field.dtype) / intervals[axis]
        first = place.floor().clamp(max=field.shape[axis - dims] - SPANS - 1)
        weights, first = _weights(place - first), first.long()
        shape = [-1, *[1] * (dims - axis - 1)]
        taps = [
            field.index_select(axis - dims, first + tap).mul_(weight.view(shape))
            for tap, weight in enumerate(weights)
        ]
        field = taps[0].add_(taps[1]).add_(taps[2]).add_(taps[3])
    return field


def _weights(within: Tensor) -> tuple[Tensor, ...]:
    """Of the four control points around places ``within`` [0, 1] of an interval; they sum to 1."""
    rest = 1 - within
    return (
        rest**3 / 6,
        (3 * within**3 - 6 * within**2 + 4) / 6,
        (3 * rest**3 - 6 * rest**2 + 4) / 6,
        within**3 / 6,
    )
