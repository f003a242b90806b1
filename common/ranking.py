"""The largest values of each group, on any device, without sorting and without waiting for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

import torch
from torch import Tensor

DIGIT_BITS = 11
DIGITS = 2**DIGIT_BITS


def largest(values: Tensor, group: Tensor, wanted: Tensor, turn: Tensor | None = None) -> Tensor:
    """Which values are among the ``wanted`` largest of their group, ``(N,)`` bool.

    Exactly so many of each group, or all of one that has fewer; of equal values those whose turn
    is first.

    Args:
        values: ``(N,)``, compared as 32-bit floats.
        group: ``(N,)``, from 0 to ``G`` - 1; ``G`` for values that are in no group.
        wanted: ``(G,)`` whole numbers, 0 or more.
        turn: ``(N,)``, each of 0 to ``N`` - 1 once; the order of the values by default.
    """
    order = torch.arange(len(values), device=values.device) if turn is None else turn
    earlier = _digits(len(values) - 1 - order, len(values).bit_length())
    return _largest(chain(_digits_of_floats(values), earlier), group, wanted)


def nth_largest(values: Tensor, there: Tensor, number: Tensor) -> Tensor:
    """The smallest of the ``number`` largest values that are ``there``; ``inf`` if that is 0.

    Args:
        values: Of any shape, compared as 32-bit floats.
        there: Which of them count, of the same shape.
        number: A whole number without axes.
    """
    flat = values.flatten()
    kept = _largest(_digits_of_floats(flat), (~there).flatten().long(), number[None])
    return torch.where(kept, flat, torch.inf).amin()


def _largest(digits: Iterable[Tensor], group: Tensor, wanted: Tensor) -> Tensor:
    """Which numbers are among the ``wanted`` largest of their group, and those equal to the last.

    A selection by radix: from the highest digit on it counts which digits the numbers of a group
    have, and so finds that of the last one wanted. What has a larger digit is in, what has a
    smaller one is out, and the next digit decides among the others.
    """
    groups, left, one = len(wanted), wanted.long(), torch.ones_like(group)
    undecided, chosen = group < groups, torch.zeros_like(group, dtype=torch.bool)
    for digit in digits:
        place = torch.where(undecided, group * DIGITS + digit, groups * DIGITS)
        counts = group.new_zeros(groups * DIGITS + 1).scatter_add_(0, place, one)
        count = counts[:-1].view(groups, DIGITS)
        or_larger = count.flip(1).cumsum(1).flip(1)
        last = (or_larger >= left[:, None]).sum(dim=1) - 1  # -1 where all are wanted
        left = left - (or_larger - count).gather(1, last.clamp_min(0)[:, None])[:, 0]
        here = _of_group(last, group)
        chosen |= undecided & (digit > here)
        undecided &= digit == here
    return chosen | (undecided & _of_group(left > 0, group))


def _of_group(values: Tensor, group: Tensor) -> Tensor:
    """The value of the group of each; 0 where it is in none."""
    return torch.cat([values, values.new_zeros(1)])[group]


def _digits_of_floats(values: Tensor) -> Iterator[Tensor]:
    bits = values.float().view(torch.int32)
    # floats of a sign are ordered as whole numbers are, the negative ones backwards
    return _digits((bits ^ ((bits >> 31) & 0x7FFFFFFF)).long() + 2**31, 32)


def _digits(number: Tensor, bits: int) -> Iterator[Tensor]:
    """The digits of whole numbers, the highest first."""
    for shift in reversed(range(0, bits, DIGIT_BITS)):
        yield (number >> shift) & (DIGITS - 1)
