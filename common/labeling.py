"""From a prediction to a pseudo-label."""

from __future__ import annotations

from collections.abc import Callable

import torch

from common.batch import IGNORE, Logits, Mask, Probs, Pseudo, SoftPseudo, Weights

Keep = Callable[[Probs], Weights]
"""A live filter: class probabilities to trust. Outside of the image they are all 0."""


@torch.no_grad()
def soft_pseudo_label(logits: Logits, keep: Keep, valid: Mask) -> SoftPseudo:
    """The class probabilities of each pixel, trusted as far as ``keep`` says.

    Args:
        logits: Prediction. No gradient flows back through it.
        keep: Live filter, probabilities to weights.
        valid: False where there is nothing to label.
    """
    probs = logits.detach().float().softmax(dim=1)
    return SoftPseudo(probs=probs, weight=trust(probs, keep, valid))


def trust(probs: Probs, keep: Keep, valid: Mask) -> Weights:
    """How far ``keep`` trusts each pixel; 0 where it is not valid."""
    return keep(probs * valid.unsqueeze(1)) * valid


@torch.no_grad()
def pseudo_label(logits: Logits, keep: Keep, valid: Mask) -> Pseudo:
    """The most probable class of each pixel, trusted as far as ``keep`` says.

    Args:
        logits: Prediction. No gradient flows back through it.
        keep: Live filter, probabilities to weights.
        valid: False where there is nothing to label; the target is IGNORE there.
    """
    return hard(soft_pseudo_label(logits, keep, valid), valid)


def hard(soft: SoftPseudo, valid: Mask) -> Pseudo:
    """The most probable class of each valid pixel, trusted as before."""
    return Pseudo(target=torch.where(valid, soft.predicted, IGNORE), weight=soft.weight)


def without_dropped(pseudo: Pseudo) -> Pseudo:
    """``pseudo`` with IGNORE where nothing is trusted: a loss then divides by the kept pixels."""
    return pseudo._replace(target=torch.where(pseudo.weight > 0, pseudo.target, IGNORE))
