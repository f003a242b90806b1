"""CCVC: two peers that must see different things and say the same."""

from __future__ import annotations

from typing import ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.agreement import conflict
from common.batch import (
    IGNORE,
    Batch,
    Mask,
    Scalar,
    SoftPseudo,
    SomeImage,
    SomeLogits,
    Weights,
)
from common.labeling import hard, soft_pseudo_label
from common.learners import Peers, crosswise
from common.losses import TINY, AnyLoss, CrossEntropy, pseudo_supervised, supervised
from common.methods.base import Card, Kit, Method, NewNetwork, Outcome
from common.mixing import AnyMix, NoMix
from common.parts import Parted, parted, pixel_head
from common.schedules import Share, Weight, value_at
from common.settings import NonNegative


class CCVC(Method):
    """Two peers with features made to differ teach each other, most of all in conflict [1].

    A pixel counts ``conflict_weight`` times where the peers name different classes and the
    teacher's probability is above ``conflict_threshold``.

    Networks: 2, both learn; the mean of their probabilities predicts. Pixel features are what a
    decoder hands to its head; those of the second peer pass a 1x1 convolution on their way.
    Forward passes per step: 2 on the weak view without gradient, in training mode; 2 on labeled
    and strong together.
    Divisor: all valid pixels; for the discrepancy, pixels of features by the share of them that
    is annotated or valid. Everything is a mean over both directions, as in [1].
    Detached: the pseudo-labels, and in each direction of the discrepancy the other's features.
    Departures from the authors' code: the threshold is on the probability, theirs on the largest
    logit; a peer learns from the domain's strong view of what the other labeled weakly, theirs
    in one view; features are compared behind the decoder, theirs before its last convolutions.

    [1] Wang et al., CCVC, CVPR 2023, arXiv:2303.01276, Eqs. 1-8.
    """

    card: ClassVar[Card] = Card(
        paper="CCVC",
        year=2023,
        family="mutual",
        networks="2; 2",
        forwards="2 + 2 without gradient",
        needs="features",
    )

    name: Literal["ccvc"] = "ccvc"
    supervised_weight: Weight = 5.0  # lambda_1; 1 with strong views, as the two below
    unlabeled_loss: AnyLoss = CrossEntropy()
    unlabeled_weight: Weight = 2.0  # lambda_2
    discrepancy_weight: Weight = 1.0  # lambda_3
    conflict_weight: NonNegative = 2.0  # omega_c
    conflict_threshold: Share = 0.9  # gamma
    mix: AnyMix = NoMix()

    def networks(self, new_network: NewNetwork) -> Peers:
        first, second = parted(new_network()), parted(new_network())
        mapping = pixel_head(second, second.pixel_channels)
        decoder = nn.Sequential(second.decoder, mapping)
        return Peers([first, Parted(second.encoder, decoder, second.head)])

    def losses(self, nets: Peers, batch: Batch, kit: Kit, progress: float) -> Outcome:
        truth, weak = batch.labeled, batch.unlabeled

        with torch.no_grad():
            softs = [soft_pseudo_label(p(weak.image), kit.keep, weak.valid) for p in nets.peers]
            pseudos = [hard(soft, weak.valid) for soft in softs]
            differ = conflict(*pseudos)
            stressed = [self._stressed(soft, differ, progress) for soft in softs]
        strong, cut = kit.strong(weak.image), self.mix.draw(weak.image, pseudos[0])
        taught = [
            cut.pseudo(pseudo._replace(weight=weight))
            for pseudo, weight in zip(pseudos, stressed, strict=True)
        ]
        views = [_two_views(peer, truth.image, cut.image(strong)) for peer in nets.peers]
        (first_labeled, first_strong), (second_labeled, second_strong) = views

        on_truth = torch.stack(
            [supervised(self.supervised_loss, view.logits, truth) for view, _ in views]
        )
        crossed = crosswise(
            2,
            lambda teacher, learner: pseudo_supervised(
                self.unlabeled_loss, views[learner][1].logits, taught[teacher]
            ),
        )
        known, valid = truth.target != IGNORE, taught[0].target != IGNORE
        half = value_at(self.discrepancy_weight, progress) / 2
        return Outcome(
            losses={
                "supervised": value_at(self.supervised_weight, progress) * on_truth.mean(),
                "supervised_discrepancy": half
                * discrepancy(first_labeled.pixels, second_labeled.pixels, known),
                "unlabeled": value_at(self.unlabeled_weight, progress) * crossed / 2,
                "unlabeled_discrepancy": half
                * discrepancy(first_strong.pixels, second_strong.pixels, valid),
            },
            pseudo=pseudos[0],
        )

    def _stressed(self, soft: SoftPseudo, differ: Mask, progress: float) -> Weights:
        """The trust of a teacher, ``conflict_weight`` times where it is sure and contradicted."""
        sure = soft.probs.amax(dim=1) > value_at(self.conflict_threshold, progress)
        return soft.weight * torch.where(differ & sure, self.conflict_weight, 1.0)


def discrepancy(first: Tensor, second: Tensor, where: Mask) -> Scalar:
    """How alike two maps of features ``(B, F, *T)`` are: 0 where they oppose, 2 where they agree.

    One plus the cosine, the mean of both directions: each moves only one of the two. ``where``
    is on the grid of the image; a pixel of features counts by its share of that.
    """
    shares = F.interpolate(where.float().unsqueeze(1), first.shape[2:], mode="area").squeeze(1)
    directions = torch.stack(
        [
            1 + F.cosine_similarity(first.detach().float(), second.float(), dim=1, eps=1e-6),
            1 + F.cosine_similarity(second.detach().float(), first.float(), dim=1, eps=1e-6),
        ]
    )
    return (directions.mean(dim=0) * shares).sum() / shares.sum().clamp_min(TINY)


class _View(NamedTuple):
    pixels: Tensor
    logits: SomeLogits


def _two_views(peer: nn.Module, labeled: SomeImage, strong: SomeImage) -> tuple[_View, _View]:
    """What a peer makes of two batches in one forward pass."""
    body = parted(peer)
    pixels = body.decoder(body.encoder(torch.cat([labeled, strong])))
    counts = [len(labeled), len(strong)]
    (first, second), (third, fourth) = pixels.split(counts), body.head(pixels).split(counts)
    return _View(first, third), _View(second, fourth)
