"""DHC: two peers with two ideas of which classes need help."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch

from common.balance import Difficulty, Rarity
from common.batch import Batch, most_probable
from common.labeling import Kit, pseudo_label
from common.learners import Peers, together
from common.losses import AnyLoss, CrossEntropy, supervised
from common.methods.base import Card, Method, NewNetwork, Outcome
from common.mixing import AnyMix, NoMix
from common.schedules import Sigmoid, Weight, value_at
from common.settings import Fraction, NonNegative


class DHC(Method):
    """Peers teach each other, to one of them hard classes count more, to the other rare ones [1].

    Hard: how low the first peer's Dice is on labeled images, and how much more it falls than it
    rises. Rare: how seldom the second peer names the class on unlabeled images.

    Networks: 2, both learn; the mean of their probabilities predicts. What is remembered of the
    classes lies in buffers.
    Forward passes per step: 2 on the weak view without gradient, in training mode; 2 on labeled
    and strong together.
    Divisor: the class weights of all annotated or valid pixels (Dice: of the classes present).
    Detached: the pseudo-labels and the class weights.
    Departures from the authors' code: learners see the domain's strong view; no pseudo-labels on
    labeled images; rarity begins equal, not as counted in all labels; a class missing from a
    batch counts as one pixel, not as 1e-8, and its Dice stands still instead of being 1; the
    first class is not left out of Dice; class weights scale no loss as a whole. The most
    frequent class ends with weight 0 for the second peer, so ``supervised_loss`` needs Dice.

    [1] Wang and Li, DHC, MICCAI 2023, arXiv:2307.11960, Sec. 2.
    """

    card: ClassVar[Card] = Card(
        paper="DHC",
        year=2023,
        family="mutual",
        networks="2; 2",
        forwards="2 + 2 without gradient",
    )
    takes_source: ClassVar[bool] = True
    takes_partners: ClassVar[bool] = True

    name: Literal["dhc"] = "dhc"
    unlabeled_loss: AnyLoss = CrossEntropy()
    unlabeled_weight: Weight = Sigmoid(end=0.1)
    difficulty_decay: Fraction = 0.98  # 1 - 1 / tau, tau = 50
    power: NonNegative = 0.2  # alpha
    rarity_decay: Fraction = 0.99  # beta
    mix: AnyMix = NoMix()

    def networks(self, new_network: NewNetwork) -> DebiasedPeers:
        nets = DebiasedPeers(new_network(peer) for peer in range(2))
        nets.difficulty = Difficulty(self.difficulty_decay, self.power)
        nets.rarity = Rarity(self.rarity_decay)
        return nets

    def losses(self, nets: DebiasedPeers, batch: Batch, kit: Kit, progress: float) -> Outcome:
        truth, weak = batch.labeled, batch.unlabeled

        with torch.no_grad():
            pseudos = [pseudo_label(kit.ask(peer, weak.image), kit, weak) for peer in nets.peers]
        strong, cut = kit.strong(weak.image), self.mix.draw(weak.image, pseudos[0], progress)
        (truth_1, strong_1), (truth_2, strong_2) = (
            together(peer, truth.image, cut.image(strong)) for peer in nets.peers
        )
        from_1, from_2 = (cut.pseudo(pseudo) for pseudo in pseudos)

        classes = truth_1.shape[1]
        hard = nets.difficulty(most_probable(truth_1), truth.target, classes)
        rare = nets.rarity(pseudos[1].target, classes)
        taught = self.supervised_loss
        on_truth = supervised(taught, truth_1, truth, hard) + supervised(
            taught, truth_2, truth, rare
        )
        crossed = self.unlabeled_loss(strong_1, from_2, hard) + self.unlabeled_loss(
            strong_2, from_1, rare
        )
        return Outcome(
            losses={
                "supervised": on_truth,
                "unlabeled": value_at(self.unlabeled_weight, progress) * crossed,
            },
            pseudo=pseudos[0],
        )


class DebiasedPeers(Peers):
    """Two peers, and what is remembered of the classes."""

    difficulty: Difficulty  # as the first peer finds them
    rarity: Rarity  # as the second peer names them
