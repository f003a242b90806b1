"""From a prediction to a pseudo-label."""

from __future__ import annotations

from collections.abc import Callable

import torch

from common.batch import IGNORE, Logits, Mask, Probs, Pseudo, SoftPseudo, Weights

Keep = Callable[[Probs], Weights]
"""A live filter: class probabilities to trust."""


@torch.no_grad()
def soft_pseudo_label(logits: Logits, keep: Keep, valid: Mask) -> SoftPseudo:
    """The class probabilities of each pixel, trusted as far as ``keep`` says.

    Args:
        logits: Prediction. No gradient flows back through it.
        keep: Live filter, probabilities to weights.
        valid: False where there is nothing to label.
    """
    probs = logits.detach().float().softmax(dim=1)
    return SoftPseudo(probs=probs, weight=keep(probs) * valid)


@torch.no_grad()
def pseudo_label(logits: Logits, keep: Keep, valid: Mask) -> Pseudo:
    """The most probable class of each pixel, trusted as far as ``keep`` says.

    Args:
        logits: Prediction. No gradient flows back through it.
        keep: Live filter, probabilities to weights.
        valid: False where there is nothing to label; the target is IGNORE there.
    """
    probs, weight = soft_pseudo_label(logits, keep, valid)
    return Pseudo(target=torch.where(valid, probs.argmax(dim=1), IGNORE), weight=weight)
