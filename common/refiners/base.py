"""What a refiner is."""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Callable, Sequence

import torch

from common.batch import Labels, Mask, Pixel, SoftPseudo, Unlabeled, one_hot
from common.settings import Settings


class Refiner(Settings):
    """Decides which shapes of a pseudo-label are right.

    It may give pixels another class, or less trust, and never more. Lengths, areas and volumes are
    those of the world: mm of volumes, metres of scenes, pixels where nobody knows better.
    """

    name: str

    @abstractmethod
    def __call__(self, guess: SoftPseudo, weak: Unlabeled, pixel: Pixel) -> SoftPseudo:
        """Refine what is guessed of ``weak``, whose pixels are as large as ``pixel``."""


def chained(
    refiners: Sequence[Refiner], pixel: Callable[[], Pixel]
) -> Callable[[SoftPseudo, Unlabeled], SoftPseudo]:
    """All ``refiners``, one after the other.

    A class that a weak label rules out they cannot bring in: such a pixel stays as it was.

    Args:
        refiners: In this order.
        pixel: How large pixels are; asked when something is refined for the first time.
    """
    ask = functools.cache(pixel)

    @torch.no_grad()
    def refine(guess: SoftPseudo, weak: Unlabeled) -> SoftPseudo:
        refined = guess
        for each in refiners:
            refined = each(refined, weak, ask())
        possible = weak.possible.expand_as(guess.probs).gather(1, refined.predicted.unsqueeze(1))
        return refined._replace(probs=torch.where(possible, refined.probs, guess.probs))

    return refine


def relabeled(guess: SoftPseudo, label: Labels) -> SoftPseudo:
    """``guess``, certain of ``label`` where that is another class than it predicts."""
    other = (label != guess.predicted).unsqueeze(1)
    certain = one_hot(label, guess.probs.shape[1])
    return guess._replace(probs=torch.where(other, certain, guess.probs))


def without_class(guess: SoftPseudo, where: Mask) -> SoftPseudo:
    """``guess``, of the next most probable class ``where`` it is True."""
    loses = guess.predicted.unsqueeze(1)
    left = guess.probs.scatter(1, loses, 0.0)
    total = left.sum(dim=1, keepdim=True)
    none = total == 0  # then all others are alike
    left = torch.where(none, torch.ones_like(left).scatter(1, loses, 0.0), left)
    next_best = left / torch.where(none, left.shape[1] - 1.0, total)
    return guess._replace(probs=torch.where(where.unsqueeze(1), next_best, guess.probs))
