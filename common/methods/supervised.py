"""The floor: labeled data only."""

from __future__ import annotations

from typing import ClassVar, Literal

from common.batch import Batch
from common.labeling import Kit
from common.learners import Solo
from common.losses import supervised
from common.methods.base import Card, Method, NewNetwork, Outcome


class Supervised(Method):
    """Ignore the unlabeled images. Every other method must beat this.

    Networks: 1. Forward passes per step: 1, on the labeled images.
    """

    card: ClassVar[Card] = Card(
        paper="supervised only", year=2015, family="baseline", networks="1; 1", forwards="1"
    )
    needs_unlabeled: ClassVar[bool] = False
    makes_pseudo_labels: ClassVar[bool] = False

    name: Literal["supervised"] = "supervised"

    def networks(self, new_network: NewNetwork) -> Solo:
        return Solo(new_network())

    def losses(self, nets: Solo, batch: Batch, kit: Kit, progress: float) -> Outcome:
        truth = batch.labeled
        logits = nets.student(truth.image)
        return Outcome({"supervised": supervised(self.supervised_loss, logits, truth)})
