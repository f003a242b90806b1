"""The floor: labeled data only."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

from torch import nn

from common.batch import Batch
from common.learners import Solo
from common.losses import supervised
from common.methods.base import Kit, Method, Outcome


class Supervised(Method):
    """Ignore the unlabeled images. Every other method must beat this.

    Networks: 1. Forward passes per step: 1, on the labeled images.
    """

    needs_unlabeled: ClassVar[bool] = False

    name: Literal["supervised"] = "supervised"

    def networks(self, new_network: Callable[[], nn.Module]) -> Solo:
        return Solo(new_network())

    def losses(self, nets: Solo, batch: Batch, kit: Kit, progress: float) -> Outcome:
        truth = batch.labeled
        logits = nets.student(truth.image)
        return Outcome({"supervised": supervised(self.supervised_loss, logits, truth)})
