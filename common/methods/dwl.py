"""Decoupled and weighted learning."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch

from common.batch import Batch
from common.filters import AnyFilter, Rank
from common.labeling import Kit, pseudo_label
from common.learners import Heads, follow
from common.losses import AnyLoss, CrossEntropy, supervised
from common.methods.base import Card, Method, NewNetwork, Outcome
from common.parts import Parted, parted
from common.schedules import Jump, Weight, value_at
from common.settings import Fraction, Positive


class BlendedHeads(Heads):
    """A main head that now and then takes over a share of the pseudo head."""

    def __init__(self, student: Parted, pseudo_head: Parted, *, share: float, every: int) -> None:
        super().__init__(student, [pseudo_head.head])
        self.share, self.every = share, every

    def after_step(self, step: int, progress: float = 1.0) -> None:
        """Blend the heads after each ``every`` steps."""
        if (step + 1) % self.every == 0:
            follow(self.student.head, self.others[0], 1 - self.share)


class DecoupledWeighted(Method):
    """Labeled pixels teach one head, pseudo-labels another, by their rank in their class [1].

    Wrong pseudo-labels never reach the head that makes them, but for a share of the other head
    that it takes over every ``blend_every`` steps. The weight by rank is filter ``rank``.

    Networks: 1 with 2 equal heads, of which the main head is shipped. Forward passes per step: 1
    on labeled; 1 on weak without gradient, in training mode; 1 on strong.
    Divisor: all valid pixels. Detached: the pseudo-label and its weight.
    Departures: [1] blends after each epoch, all of it (share 1) on one network and half on three;
    the unlabeled loss is 0 for the first twentieth of the steps, in [1] for 50 batches, until the
    memory of the ranks is full.

    [1] Huang et al., DWL, ISPRS 2024, doi:10.1016/j.isprsjprs.2024.04.010, and the authors' code
    github.com/zhu-xlab/DWL, train.py.
    """

    card: ClassVar[Card] = Card(
        paper="DWL",
        year=2024,
        family="heads",
        networks="1 with 2 heads; 1",
        forwards="2 + 1 without gradient",
        needs="features",
    )
    takes_source: ClassVar[bool] = True

    name: Literal["dwl"] = "dwl"
    filter: AnyFilter = Rank()
    unlabeled_loss: AnyLoss = CrossEntropy()
    unlabeled_weight: Weight = Jump(end=1.0, until=0.05)
    blend_share: Fraction = 0.5  # alpha
    blend_every: Positive = 200  # optimizer steps

    def networks(self, new_network: NewNetwork) -> BlendedHeads:
        student, other = parted(new_network()), parted(new_network())
        return BlendedHeads(student, other, share=self.blend_share, every=self.blend_every)

    def losses(self, nets: BlendedHeads, batch: Batch, kit: Kit, progress: float) -> Outcome:
        truth, weak = batch.labeled, batch.unlabeled
        student, (pseudo_head,) = nets.student, nets.others

        with torch.no_grad():
            pseudo = pseudo_label(kit.ask(student, weak.image), kit, weak)
        on_truth = student(truth.image)
        strong = student.decoder(student.encoder(kit.strong(weak.image)))
        learned = self.unlabeled_loss(pseudo_head(strong), pseudo)

        return Outcome(
            losses={
                "supervised": supervised(self.supervised_loss, on_truth, truth),
                "unlabeled": value_at(self.unlabeled_weight, progress) * learned,
            },
            pseudo=pseudo,
        )
