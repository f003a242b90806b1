"""MC-Net+, mutual consistency of decoders."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from common.batch import IGNORE, Batch, Logits, Mask, Scalar, SoftPseudo
from common.consistency import consistency
from common.labeling import Kit, soft_pseudo_label
from common.learners import Heads
from common.losses import AnyLoss, Dice, supervised
from common.methods.base import Card, Method, NewNetwork, Outcome
from common.parts import Interpolation, Upsampled, parted
from common.schedules import Sigmoid, Weight, value_at
from common.settings import NonNegative, PositiveReal


class MCNet(Method):
    """Pull each of several decoders towards what every other one says, sharpened [1].

    Decoders differ in where they start and in how they make maps larger: the main one as the
    network has it (often by transposed convolutions), the others by ``decoders``.

    Networks: 1 with 3 decoders and heads, of which the network's own is shipped. Forward passes
    per step: 1 of the encoder and 1 of each decoder, on labeled and weak images together.
    Divisor: all valid pixels and the classes, for labeled and unlabeled images apart, each
    weighted by their share of the batch's images; pairs of decoders are summed.
    Detached: the sharpened probabilities.
    Departures: the authors' code [2] lets gradients flow into the sharpened probabilities, too;
    it sharpens one of two classes, here all classes by a softmax at ``temperature``, which is
    the same for two; pixels without annotation take no part. Where a network interpolates
    already, decoders of that kind differ only in where they start.

    [1] Wu et al., MC-Net+, Medical Image Analysis 2022, arXiv:2109.09960v3, Sec. 3.
    [2] github.com/ycwu1997/MC-Net, code/train_mcnet_3d.py.
    """

    card: ClassVar[Card] = Card(
        paper="MC-Net+; MC-Net with one more decoder",
        year=2022,
        family="heads",
        networks="1 with 3 decoders; 1",
        forwards="1, of each decoder",
        needs="features",
    )
    makes_pseudo_labels: ClassVar[bool] = False

    name: Literal["mc_net"] = "mc_net"
    supervised_loss: AnyLoss = Dice()
    supervised_weight: NonNegative = 0.5  # lambda
    unlabeled_weight: Weight = Sigmoid(end=1.0, until=0.4)  # also of agreement on labeled images
    temperature: PositiveReal = 0.1  # T
    decoders: Annotated[tuple[Interpolation, ...], Field(min_length=1)] = ("linear", "nearest")

    def networks(self, new_network: NewNetwork) -> Heads:
        student = parted(new_network())
        fresh = [(parted(new_network()), kind) for kind in self.decoders]
        return Heads(
            student, (Upsampled(nn.Sequential(net.decoder, net.head), kind) for net, kind in fresh)
        )

    def losses(self, nets: Heads, batch: Batch, kit: Kit, progress: float) -> Outcome:
        truth, weak, student = batch.labeled, batch.unlabeled, nets.student

        features = student.encoder(torch.cat([truth.image, weak.image]))
        votes = [student.head(student.decoder(features)), *(each(features) for each in nets.others)]
        counts = [len(truth.image), len(weak.image)]
        on_truth, on_weak = zip(*(torch.split(vote, counts) for vote in votes), strict=True)

        weight = value_at(self.unlabeled_weight, progress) / sum(counts)
        lessons = [supervised(self.supervised_loss, logits, truth) for logits in on_truth]
        return Outcome(
            losses={
                "supervised": self.supervised_weight * torch.stack(lessons).sum(),
                "supervised_agreement": weight
                * counts[0]
                * self._agreement(on_truth, truth.target != IGNORE),
                "unlabeled": weight * counts[1] * self._agreement(on_weak, weak.valid),
            },
            pseudo=soft_pseudo_label(on_weak[0], kit, weak),
        )

    def _agreement(self, votes: Sequence[Logits], valid: Mask) -> Scalar:
        sharp = [
            SoftPseudo((vote.detach().float() / self.temperature).softmax(dim=1), valid.float())
            for vote in votes
        ]
        pairs = permutations(range(len(votes)), 2)
        return torch.stack([consistency(votes[i], sharp[j]) for i, j in pairs]).sum()
