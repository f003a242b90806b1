"""CPCL: a conservative and a progressive peer."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch

from common.agreement import intersection, union
from common.batch import Batch, Probs, Weights
from common.labeling import Keep, Kit, pseudo_label
from common.learners import Peers, together
from common.losses import AnyLoss, CrossEntropy, supervised
from common.methods.base import Card, Method, NewNetwork, Outcome
from common.mixing import AnyMix, CutMix
from common.schedules import Weight, value_at


class CPCL(Method):
    """One peer learns where both agree, the other also the disputed class in every conflict [1].

    The conservative peer is taught the intersection of both predictions. The progressive one is
    taught their union: in conflict, of the two classes the one more often in conflict. Trust is
    confidence: the mean of both in agreement, the winner's in conflict.

    Networks: 2, both learn; the mean of their probabilities predicts.
    Forward passes per step: 2 on the weak view without gradient, in training mode; 2 on labeled
    and strong together.
    Divisor: all valid pixels, in agreement or not.
    Detached: the pseudo-labels and their trust.
    Departures from the authors' code: it ships the conservative peer; it counts conflicts after
    mixing, here before; its peers learn from the weak view, cut and mixed, here from a strong one.

    [1] Fan et al., CPCL, IEEE TIP 2023, arXiv:2211.16701, Sec. III.
    """

    card: ClassVar[Card] = Card(
        paper="CPCL",
        year=2023,
        family="mutual",
        networks="2; 2",
        forwards="2 + 2 without gradient",
    )
    takes_partners: ClassVar[bool] = True

    name: Literal["cpcl"] = "cpcl"
    unlabeled_loss: AnyLoss = CrossEntropy()
    unlabeled_weight: Weight = 1.0  # lambda
    mix: AnyMix = CutMix()

    def networks(self, new_network: NewNetwork) -> Peers:
        return Peers(new_network(peer) for peer in range(2))

    def losses(self, nets: Peers, batch: Batch, kit: Kit, progress: float) -> Outcome:
        truth, weak = batch.labeled, batch.unlabeled

        with torch.no_grad():
            logits = [peer(weak.image) for peer in nets.peers]
            own = kit._replace(keep=_by_confidence(kit.keep))
            first, second = (pseudo_label(each, own, weak) for each in logits)
            agreed = intersection(first, second)
            either = union(first, second, num_classes=logits[0].shape[1])
        strong, cut = kit.strong(weak.image), self.mix.draw(weak.image, either, progress)
        views = [together(peer, truth.image, cut.image(strong)) for peer in nets.peers]

        (_, conservative), (_, progressive) = views
        weight = value_at(self.unlabeled_weight, progress)
        return Outcome(
            losses={
                "supervised": torch.stack(
                    [supervised(self.supervised_loss, on_truth, truth) for on_truth, _ in views]
                ).sum(),
                "unlabeled_conservative": weight
                * self.unlabeled_loss(conservative, cut.pseudo(agreed)),
                "unlabeled_progressive": weight
                * self.unlabeled_loss(progressive, cut.pseudo(either)),
            },
            pseudo=either,
        )


def _by_confidence(keep: Keep) -> Keep:
    def trust(probs: Probs) -> Weights:
        return keep(probs) * probs.amax(dim=1)

    return trust
