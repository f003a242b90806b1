"""CCVC: two peers that must see different things and say the same."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import nn

from common.batch import IGNORE, Batch, Mask, Pseudo, SoftPseudo
from common.consistency import likeness
from common.labeling import Kit, hard, soft_pseudo_label
from common.learners import Peers, crosswise
from common.losses import AnyLoss, CrossEntropy, supervised
from common.methods.base import Card, Method, NewNetwork, Outcome
from common.mixing import AnyMix, NoMix
from common.parts import Parted, parted, pixel_head
from common.schedules import Share, Weight, value_at
from common.settings import NonNegative


class CCVC(Method):
    """Two peers whose pixel features are made to differ teach each other, most in conflict [1].

    A pixel counts ``conflict_weight`` times where the two name different classes and the
    probability of the teacher is above ``conflict_threshold``.

    Networks: 2, both learn; the mean of their probabilities predicts. The second has one more
    1x1 convolution, before its head. Forward passes per step: 2 on the weak view without
    gradient, in training mode; 2 on labeled and strong together.
    Divisor: all valid pixels; of features, the share of pixels under them that is annotated or
    valid. Every term is the mean of both directions.
    Detached: the pseudo-labels, and the other's features.
    Departures from the authors' code: the threshold is on the probability, not on the largest
    logit; the learner sees the strong view, not the teacher's; features are those the head gets.

    [1] Wang et al., CCVC, CVPR 2023, arXiv:2303.01276, Sec. 3.
    """

    card: ClassVar[Card] = Card(
        paper="CCVC",
        year=2023,
        family="mutual",
        networks="2; 2",
        forwards="2 + 2 without gradient",
        needs="features",
    )
    takes_source: ClassVar[bool] = True

    name: Literal["ccvc"] = "ccvc"
    supervised_weight: Weight = 5.0  # lambda_1; 1 with strong views, as the next two
    unlabeled_loss: AnyLoss = CrossEntropy()
    unlabeled_weight: Weight = 2.0  # lambda_2
    discrepancy_weight: Weight = 1.0  # lambda_3
    conflict_weight: NonNegative = 2.0  # omega_c
    conflict_threshold: Share = 0.9  # gamma
    mix: AnyMix = NoMix()

    def networks(self, new_network: NewNetwork) -> Peers:
        first, second = parted(new_network()), parted(new_network())
        decoder = nn.Sequential(second.decoder, pixel_head(second, second.pixel_channels))
        return Peers([first, Parted(second.encoder, decoder, second.head)])

    def losses(self, nets: Peers, batch: Batch, kit: Kit, progress: float) -> Outcome:
        truth, weak = batch.labeled, batch.unlabeled

        with torch.no_grad():
            softs = [soft_pseudo_label(kit.ask(p, weak.image), kit, weak) for p in nets.peers]
            differ = softs[0].predicted != softs[1].predicted
            stressed = [self._stressed(soft, differ, weak.valid, progress) for soft in softs]
        strong, cut = kit.strong(weak.image), self.mix.draw(weak.image, softs[0], progress)
        taught = [cut.pseudo(pseudo) for pseudo in stressed]

        images, n = torch.cat([truth.image, cut.image(strong)]), len(truth.image)
        peers = [parted(peer) for peer in nets.peers]
        one, two = (peer.decoder(peer.encoder(images)) for peer in peers)
        logits = [peer.head(pixels) for peer, pixels in zip(peers, (one, two), strict=True)]
        on_truth = [supervised(self.supervised_loss, each[:n], truth) for each in logits]
        crossed = crosswise(2, lambda i, k: self.unlabeled_loss(logits[k][n:], taught[i]))
        weight = value_at(self.discrepancy_weight, progress) / 2
        known, valid = truth.target != IGNORE, taught[0].target != IGNORE
        return Outcome(
            losses={
                "supervised": value_at(self.supervised_weight, progress)
                * torch.stack(on_truth).mean(),
                "supervised_discrepancy": weight * likeness(one[:n], two[:n], known),
                "unlabeled": value_at(self.unlabeled_weight, progress) * crossed / 2,
                "unlabeled_discrepancy": weight * likeness(one[n:], two[n:], valid),
            },
            pseudo=softs[0],
        )

    def _stressed(self, soft: SoftPseudo, differ: Mask, valid: Mask, progress: float) -> Pseudo:
        sure = soft.probs.amax(dim=1) > value_at(self.conflict_threshold, progress)
        times = torch.where(differ & sure, self.conflict_weight, 1.0)
        return hard(soft._replace(weight=soft.weight * times), valid)
