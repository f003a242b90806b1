"""How far two predictions are apart, over ``(B, K, *S)`` logits and any number of spatial axes."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from common.batch import IGNORE, Labels, Logits, Mask, Probs, Scalar, SoftPseudo, Weights, one_hot
from common.losses import TINY, per_class
from common.schedules import Exponential, Weight, value_at
from common.settings import Settings


class Consistency(Settings):
    """Draws predictions towards soft labels; the divisor is all valid pixels, trusted or not.

    So little trust makes a small loss [1]. Trust is 0 where ``valid`` is False.

    [1] French et al., CutMix-Seg, 2020, arXiv:1906.01916, Sec. 3.4.
    """

    @abstractmethod
    def __call__(
        self, logits: Logits, pseudo: SoftPseudo, valid: Mask, progress: float = 1.0
    ) -> Scalar:
        """A scalar; 0 where nothing is trusted."""


class Squares(Consistency):
    """Squared difference of class probabilities, averaged over classes [1].

    [1] Tarvainen and Valpola, Mean teachers, 2017, arXiv:1703.01780, Sec. 3.
    """

    name: Literal["squares"] = "squares"

    def __call__(
        self, logits: Logits, pseudo: SoftPseudo, valid: Mask, progress: float = 1.0
    ) -> Scalar:
        lost = _squares(logits, pseudo).mean(dim=1)
        return (lost * pseudo.weight).sum() / valid.sum().clamp_min(1)


class UncertaintyAware(Consistency):
    """Squared differences that count less where either is unsure, and the entropy of both [1].

    ``sum((p - q)^2) / (exp(beta H(p)) + exp(beta H(q))) + beta (H(p) + H(q))`` in nats: at first,
    with a large ``beta``, unsure pixels hardly pull, but are asked to become sure. It is larger
    than ``squares`` by about K, so a weight of 1 is a lot.

    [1] Assefa et al., DyCON, CVPR 2025, arXiv:2504.04566, UnCL.
    """

    name: Literal["uncertainty_aware"] = "uncertainty_aware"
    beta: Weight = Exponential(start=5.0, end=0.5)

    def __call__(
        self, logits: Logits, pseudo: SoftPseudo, valid: Mask, progress: float = 1.0
    ) -> Scalar:
        beta = value_at(self.beta, progress)
        own, other = _entropy(logits.float().softmax(dim=1)), _entropy(pseudo.probs)
        torn = (beta * own).exp() + (beta * other).exp()
        lost = _squares(logits, pseudo).sum(dim=1) / torn + beta * (own + other)
        return (lost * pseudo.weight).sum() / valid.sum().clamp_min(1)


class SoftDice(Consistency):
    """One minus the overlap of both with squares in the divisor, averaged over classes [1].

    ``1 - 2 sum(w p q) / sum(w (p^2 + q^2))`` over the batch, for each class that is the most
    probable one of some trusted pixel: 0 where both are equal, and a rare class pulls as much as a
    common one, which squares forget. Divisor: the trusted pixels of each class, so little trust
    does not make it small. A weight of 1 is a lot.

    [1] Milletari et al., V-Net, 2016, arXiv:1606.04797, Sec. 3, against soft labels.
    """

    name: Literal["soft_dice"] = "soft_dice"

    def __call__(
        self, logits: Logits, pseudo: SoftPseudo, valid: Mask, progress: float = 1.0
    ) -> Scalar:
        own, trust = logits.float().softmax(dim=1), pseudo.weight.unsqueeze(1)
        overlap = per_class(trust * own * pseudo.probs)
        size = per_class(trust * (own.square() + pseudo.probs.square()))
        named = per_class(one_hot(pseudo.predicted, logits.shape[1]) * trust) > 0
        lost = (1 - 2 * overlap / size.clamp_min(TINY)) * named
        return lost.sum() / named.sum().clamp_min(1)


AnyConsistency = Annotated[SoftDice | Squares | UncertaintyAware, Field(discriminator="name")]
"""What a loss against soft labels may be in a YAML file."""


def consistency(logits: Logits, pseudo: SoftPseudo) -> Scalar:
    """Squared difference of class probabilities, averaged over classes and trust [1].

    The divisor is the sum of the weights: with every valid pixel trusted, the valid pixels.

    [1] Tarvainen and Valpola, Mean teachers, 2017, arXiv:1703.01780, Sec. 3.
    """
    lost = _squares(logits, pseudo).mean(dim=1)
    return (lost * pseudo.weight).sum() / pseudo.weight.sum().clamp_min(1)


def divergence(logits: Logits, pseudo: SoftPseudo) -> Scalar:
    """Kullback-Leibler divergence of the prediction from soft labels, averaged over trust [1].

    The divisor is the sum of the weights: with every valid pixel trusted, the valid pixels.

    [1] Zhang et al., Deep mutual learning, 2018, arXiv:1706.00384, Eq. 4.
    """
    per_pixel = divergence_map(logits, pseudo.probs)
    return (per_pixel * pseudo.weight).sum() / pseudo.weight.sum().clamp_min(1)


def divergence_map(logits: Logits, probs: Probs) -> Weights:
    """``KL(probs || softmax(logits))`` of each pixel, in nats."""
    return F.kl_div(logits.float().log_softmax(dim=1), probs, reduction="none").sum(dim=1)


def likeness(first: Tensor, second: Tensor, where: Mask) -> Scalar:
    """How alike two maps of features ``(B, F, *T)`` are, from 0, opposed, to 2, the same [1].

    One plus the cosine, the mean of both directions: each moves only one of the two. ``where``
    is on the grid of the image; a pixel of features counts by the share of True under it.

    [1] Wang et al., CCVC, CVPR 2023, arXiv:2303.01276, Sec. 3.2.
    """
    shares = F.interpolate(where.float().unsqueeze(1), first.shape[2:], mode="area").squeeze(1)
    first, second = first.float(), second.float()
    pairs = (first.detach(), second), (first, second.detach())
    cosines = torch.stack([F.cosine_similarity(*pair, dim=1, eps=1e-6) for pair in pairs])
    return ((1 + cosines.mean(dim=0)) * shares).sum() / shares.sum().clamp_min(TINY)


def complementary(logits: Logits, target: Labels, weight: Weights) -> Scalar:
    """Mean of ``-log(1 - p[target])``, weighted: rewards every class but ``target``.

    The divisor is the sum of the weights. A target IGNORE does not exist.
    """
    known = target != IGNORE
    named = one_hot(target, logits.shape[1]).bool()
    others = logits.float().masked_fill(named, -torch.inf).logsumexp(dim=1)
    trust = weight * known
    return ((logits.float().logsumexp(dim=1) - others) * trust).sum() / trust.sum().clamp_min(1)


def _squares(logits: Logits, pseudo: SoftPseudo) -> Probs:
    return (logits.float().softmax(dim=1) - pseudo.probs).square()


def _entropy(probs: Probs) -> Weights:
    return -(probs * probs.clamp_min(TINY).log()).sum(dim=1)
