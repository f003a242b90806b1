"""From a prediction to a pseudo-label."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn

from common.batch import (
    IGNORE,
    Image,
    Logits,
    Mask,
    Possible,
    Probs,
    Pseudo,
    SoftPseudo,
    Unlabeled,
    Weights,
)

Keep = Callable[[Probs], Weights]
"""A live filter: class probabilities to trust. Outside of the image they are all 0."""

Ask = Callable[[nn.Module, Image], Logits]
"""A live source: a network and what it is asked about, to its answer."""

Refine = Callable[[SoftPseudo, Unlabeled], SoftPseudo]
"""Live refiners: what is guessed of images to what is better guessed."""


class Kit(NamedTuple):
    """What a run lends its method."""

    strong: Callable[[Image], Image]  # to a harder image, pixel for pixel aligned
    ask: Ask
    keep: Keep
    refine: Refine


def some_strong(strong: Callable[[Image], Image], image: Image, share: float) -> Image:
    """``image``, of which a random ``share`` of the samples is in its strong view."""
    if share == 0:
        return image
    chosen = torch.rand(len(image), device=image.device) < share
    return torch.where(chosen.view(-1, *[1] * (image.ndim - 1)), strong(image), image)


def as_guessed(guess: SoftPseudo, weak: Unlabeled) -> SoftPseudo:
    """No refiner."""
    return guess


@torch.no_grad()
def soft_pseudo_label(logits: Logits, kit: Kit, weak: Unlabeled) -> SoftPseudo:
    """The probabilities of the classes still possible, trusted as far as the filter says.

    Where a weak label leaves one class, that class is certain. Refiners come last.

    Args:
        logits: Prediction. No gradient flows back through it.
        kit: Holds the filter and the refiners of the run.
        weak: What was predicted: where there is something to label, and which classes can be.
    """
    probs = among(logits.detach().float(), weak.possible).softmax(dim=1)
    return kit.refine(SoftPseudo(probs, trust(probs, kit.keep, weak.valid)), weak)


@torch.no_grad()
def pseudo_label(logits: Logits, kit: Kit, weak: Unlabeled) -> Pseudo:
    """The most probable of the classes still possible, trusted as far as the filter says.

    Args:
        logits: Prediction. No gradient flows back through it.
        kit: Holds the filter and the refiners of the run.
        weak: What was predicted. The target is IGNORE where there is nothing to label.
    """
    return hard(soft_pseudo_label(logits, kit, weak), weak.valid)


def among(logits: Logits, possible: Possible) -> Logits:
    """``logits`` with no chance for a class that is not possible."""
    return logits.masked_fill(~possible, -torch.inf)


def trust(probs: Probs, keep: Keep, valid: Mask) -> Weights:
    """How far ``keep`` trusts each pixel; 0 where it is not valid."""
    return keep(probs * valid.unsqueeze(1)) * valid


def hard(soft: SoftPseudo, valid: Mask) -> Pseudo:
    """The most probable class of each valid pixel, trusted as before."""
    return Pseudo(target=torch.where(valid, soft.predicted, IGNORE), weight=soft.weight)


def without_dropped(pseudo: Pseudo) -> Pseudo:
    """``pseudo`` with IGNORE where nothing is trusted: a loss then divides by the kept pixels."""
    return pseudo._replace(target=torch.where(pseudo.weight > 0, pseudo.target, IGNORE))
