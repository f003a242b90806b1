"""Factors as functions of training progress in [0, 1]. Pure, so a run can resume anywhere."""

from __future__ import annotations

import math


def sigmoid_ramp(progress: float, until: float) -> float:
    """Rise from about 0 to 1 while ``progress`` goes from 0 to ``until`` [1].

    [1] Laine and Aila, Temporal ensembling, 2017, arXiv:1610.02242, Sec. 3.1.
    """
    if progress >= until:
        return 1.0
    return math.exp(-5.0 * (1.0 - progress / until) ** 2)


def poly(progress: float, power: float = 0.9) -> float:
    """Fall from 1 to 0 as ``(1 - progress) ** power`` [1].

    [1] Chen et al., DeepLab, 2017, arXiv:1606.00915, Sec. 4.1.2.
    """
    return float((1.0 - progress) ** power)


def cosine(progress: float) -> float:
    """Fall from 1 to 0 along half a cosine [1].

    [1] Loshchilov and Hutter, SGDR, 2017, arXiv:1608.03983, Eq. 5, without restarts.
    """
    return 0.5 * (1.0 + math.cos(math.pi * progress))


def one_cycle(progress: float, peak_at: float = 0.3) -> float:
    """Rise from 1/25 to 1 until ``peak_at``, then fall to 1e-5, both along half a cosine [1].

    [1] Smith and Topin, Super-convergence, 2018, arXiv:1708.07120.
    """
    first, last = 1.0 / 25.0, 1e-5
    if progress < peak_at:
        return first + (1.0 - first) * (1.0 - cosine(progress / peak_at))
    return last + (1.0 - last) * cosine((progress - peak_at) / (1.0 - peak_at))


def warm_up(progress: float, until: float) -> float:
    """Rise linearly from 0 to 1 while ``progress`` goes from 0 to ``until``."""
    return 1.0 if progress >= until else progress / until


def constant(progress: float) -> float:
    """1, always."""
    return 1.0
