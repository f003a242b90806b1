"""Dynamic mutual training."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field

from common.agreement import dynamic_trust
from common.batch import Batch, Pseudo
from common.labeling import Kit, hard, soft_pseudo_label
from common.learners import Peers, crosswise, together
from common.losses import AnyLoss, CrossEntropy, supervised
from common.methods.base import Card, Method, NewNetwork, Outcome
from common.mixing import AnyMix, NoMix
from common.schedules import Sigmoid, Weight, value_at
from common.settings import NonNegative


class DynamicMutual(Method):
    """Peers teach each other, and a learner weighs each lesson by what it makes of it itself [1].

    A label counts by the probability that the learner gives it, to the power ``agree_power`` where
    the learner would name the same class, ``differ_power`` where not, and nothing where the learner
    names another one more surely than the teacher.

    Networks: n, all learn; the mean of their probabilities predicts. Forward passes per step: n on
    the weak view without gradient, in training mode; n on labeled and strong together.
    Divisor: all valid pixels, and n - 1, as in the authors' code. Detached: labels and weights.
    Departures from the authors' code [2]: they train in rounds, one network at a time from stored
    labels of the other, whose share grows with the rounds (``class_ratio`` with a schedule is that
    here); a learner weighs by its weak view of the image, there by the view it learns from.

    [1] Feng et al., DMT, Pattern Recognition 2022, arXiv:2004.08514.
    [2] github.com/voldemortX/DST-CBC.
    """

    card: ClassVar[Card] = Card(
        paper="DMT",
        year=2022,
        family="mutual",
        networks="n; n",
        forwards="n + n without gradient",
    )
    takes_source: ClassVar[bool] = True
    takes_partners: ClassVar[bool] = True

    name: Literal["dmt"] = "dmt"
    num_peers: Annotated[int, Field(ge=2)] = 2
    agree_power: NonNegative = 5.0  # gamma_1; 3 on Cityscapes
    differ_power: NonNegative = 5.0  # gamma_2; 3 on Cityscapes
    unlabeled_loss: AnyLoss = CrossEntropy()
    unlabeled_weight: Weight = Sigmoid(end=1.0, until=0.2)
    mix: AnyMix = NoMix()

    def networks(self, new_network: NewNetwork) -> Peers:
        return Peers(new_network(peer) for peer in range(self.num_peers))

    def losses(self, nets: Peers, batch: Batch, kit: Kit, progress: float) -> Outcome:
        truth, weak = batch.labeled, batch.unlabeled
        powers = self.agree_power, self.differ_power

        with torch.no_grad():
            softs = [soft_pseudo_label(kit.ask(p, weak.image), kit, weak) for p in nets.peers]
        pseudos = [hard(soft, weak.valid) for soft in softs]
        strong, cut = kit.strong(weak.image), self.mix.draw(weak.image, pseudos[0], progress)
        views = [together(peer, truth.image, cut.image(strong)) for peer in nets.peers]

        def lesson(teacher: int, learner: int) -> torch.Tensor:
            trust = dynamic_trust(softs[teacher].probs, softs[learner].probs, powers)
            taught = Pseudo(pseudos[teacher].target, pseudos[teacher].weight * trust)
            return self.unlabeled_loss(views[learner][1], cut.pseudo(taught))

        weight = value_at(self.unlabeled_weight, progress)
        lessons = [supervised(self.supervised_loss, on_truth, truth) for on_truth, _ in views]
        return Outcome(
            losses={
                "supervised": torch.stack(lessons).sum(),
                "unlabeled": weight * crosswise(self.num_peers, lesson),
            },
            pseudo=pseudos[0],
        )
