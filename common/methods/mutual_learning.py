"""Deep mutual learning."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field

from common.batch import IGNORE, Batch, Labeled, Logits, SoftPseudo
from common.consistency import divergence
from common.labeling import Kit, soft_pseudo_label
from common.learners import Peers, crosswise, together
from common.losses import supervised
from common.methods.base import Card, Method, NewNetwork, Outcome
from common.mixing import AnyMix, NoMix
from common.schedules import Weight, value_at


class MutualLearning(Method):
    """Draw each peer's probabilities towards those of every other [1], on all images.

    Networks: n, all learn, of any architectures; the mean of their probabilities predicts.
    Forward passes per step: n on the weak view without gradient, in training mode; n on labeled
    and strong together.
    Divisor: the sum of trust (annotated pixels; all valid ones, unless a filter drops some),
    and n - 1.
    Detached: the probabilities that are drawn towards, as the alternating updates of [1] do.
    Departure: on unlabeled images a peer sees the domain's strong view of what the others see
    weakly; in [1] all see the same. All peers move in one step, where [1] moves one by one.

    [1] Zhang et al., Deep mutual learning, CVPR 2018, arXiv:1706.00384, Eqs. 4-8 and Sec. 2.4.
    """

    card: ClassVar[Card] = Card(
        paper="DML",
        year=2018,
        family="mutual",
        networks="n; n",
        forwards="n + n without gradient",
    )
    takes_source: ClassVar[bool] = True
    takes_partners: ClassVar[bool] = True

    name: Literal["mutual_learning"] = "mutual_learning"
    num_peers: Annotated[int, Field(ge=2)] = 2  # K
    labeled_weight: Weight = 1.0
    unlabeled_weight: Weight = 1.0
    mix: AnyMix = NoMix()

    def networks(self, new_network: NewNetwork) -> Peers:
        return Peers(new_network(peer) for peer in range(self.num_peers))

    def losses(self, nets: Peers, batch: Batch, kit: Kit, progress: float) -> Outcome:
        truth, weak = batch.labeled, batch.unlabeled

        with torch.no_grad():
            softs = [soft_pseudo_label(kit.ask(peer, weak.image), kit, weak) for peer in nets.peers]
        strong, cut = kit.strong(weak.image), self.mix.draw(weak.image, softs[0], progress)
        views = [together(peer, truth.image, cut.image(strong)) for peer in nets.peers]

        taught = [cut.pseudo(soft) for soft in softs]
        known = [_where_annotated(on_truth, truth) for on_truth, _ in views]
        on_labeled = crosswise(
            self.num_peers, lambda teacher, learner: divergence(views[learner][0], known[teacher])
        )
        on_unlabeled = crosswise(
            self.num_peers, lambda teacher, learner: divergence(views[learner][1], taught[teacher])
        )
        return Outcome(
            losses={
                "supervised": torch.stack(
                    [supervised(self.supervised_loss, on_truth, truth) for on_truth, _ in views]
                ).sum(),
                "supervised_mutual": value_at(self.labeled_weight, progress) * on_labeled,
                "unlabeled": value_at(self.unlabeled_weight, progress) * on_unlabeled,
            },
            pseudo=softs[0],
        )


def _where_annotated(logits: Logits, truth: Labeled) -> SoftPseudo:
    probs = logits.detach().float().softmax(dim=1)
    return SoftPseudo(probs=probs, weight=(truth.target != IGNORE).float())
