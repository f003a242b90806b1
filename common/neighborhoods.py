"""What lies around each pixel, on any device and without waiting for it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product
from typing import TypeAlias

import torch.nn.functional as F
from torch import Tensor

Step: TypeAlias = tuple[int, ...]
"""From a pixel to another: pixels along each spatial axis."""


def steps_within(reach: float, sides: Sequence[float]) -> list[Step]:
    """To every other pixel whose center is at most ``reach`` away.

    Args:
        reach: In the unit of ``sides``.
        sides: Of a pixel along each spatial axis.
    """
    reach *= 1 + 1e-9  # three pixels of 0.1 are 0.3
    spans = [range(-(far := int(reach / side)), far + 1) for side in sides]
    return [step for step in product(*spans) if any(step) and distance(step, sides) <= reach]


def distance(step: Step, sides: Sequence[float]) -> float:
    """How long ``step`` is, between centers of pixels."""
    return math.hypot(*(count * side for count, side in zip(step, sides, strict=True)))


def around(maps: Tensor, steps: Sequence[Step]) -> Iterator[Tensor]:
    """What each pixel finds one of ``steps`` away, step after step; 0 beyond the edge.

    Args:
        maps: Any axes, then the spatial ones. Each yielded tensor is a view, of the same shape.
        steps: All of the same number of axes.
    """
    if not steps:
        return
    dims = len(steps[0])
    far = [max(abs(step[axis]) for step in steps) for axis in range(dims)]
    padded = F.pad(maps, [each for side in reversed(far) for each in (side, side)])
    for step in steps:
        seen = padded
        for axis, (count, most) in enumerate(zip(step, far, strict=True), start=-dims):
            seen = seen.narrow(axis, most + count, maps.shape[axis])
        yield seen
