"""Debiased self-training, per pixel."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch

from common.batch import IGNORE, Batch, most_probable
from common.consistency import complementary
from common.filters import AnyFilter, Confidence
from common.labeling import Kit, pseudo_label
from common.learners import Heads
from common.losses import AnyLoss, CrossEntropy, supervised
from common.methods.base import Card, Method, NewNetwork, Outcome
from common.parts import on_grid, parted, pixel_head
from common.perturb import gradient_reversed
from common.schedules import Linear, Weight, value_at
from common.settings import NonNegative, Positive


class DebiasedSelfTraining(Method):
    """One head makes the pseudo-labels, another learns them, a third seeks the worst of them [1].

    The worst-case head agrees with the main head on labeled pixels and contradicts it on
    unlabeled ones as far as it can; the features learn to leave it no room.

    Networks: 1 with 3 heads, of which the main head alone is shipped. Forward passes per step: 1
    on labeled and weak together, 1 on strong, both in training mode.
    Divisor: all valid pixels, kept or not; for the worst case, all valid pixels.
    Detached: the pseudo-label, and the main head's prediction wherever it serves as a label, so
    labeled pixels alone move the main head. Other gradients reach the features, those of the
    worst-case head times minus ``reversal``.
    Departures: [1] classifies images. Here both further heads are 1x1 convolutions on pixel
    features, interpolated to the grid of the image, and narrower; no bottleneck comes before the
    heads; the main head does not see strong views of labeled images (weight 0.1 in [1]).

    [1] Chen et al., Debiased self-training, NeurIPS 2022, arXiv:2202.07136, Sec. 4, and the
    authors' code.
    """

    card: ClassVar[Card] = Card(
        paper="DST",
        year=2022,
        family="heads",
        networks="1 with 3 heads; 1",
        forwards="2",
        needs="features",
    )

    name: Literal["dst"] = "dst"
    filter: AnyFilter = Confidence(threshold=0.7)
    unlabeled_loss: AnyLoss = CrossEntropy()
    unlabeled_weight: Weight = 1.0
    worst_case_weight: Weight = 1.0  # eta
    labeled_share: NonNegative = 2.0  # eta'
    reversal: Weight = Linear(end=0.1, until=0.1)
    width: Positive = 256  # of the hidden layer of the further heads; [1], for 1024 features: 2048

    def networks(self, new_network: NewNetwork) -> Heads:
        student = parted(new_network())
        heads = (pixel_head(student, student.num_classes, width=self.width) for _ in range(2))
        return Heads(student, heads)

    def losses(self, nets: Heads, batch: Batch, kit: Kit, progress: float) -> Outcome:
        truth, weak = batch.labeled, batch.unlabeled
        body, (pseudo_head, worst_head) = nets.student, nets.others

        pixels = body.decoder(body.encoder(torch.cat([truth.image, weak.image])))
        counts = [len(truth.image), len(weak.image)]
        on_truth, on_weak = torch.split(body.head(pixels), counts)
        pseudo = pseudo_label(on_weak, kit, weak)

        adverse = gradient_reversed(pixels, value_at(self.reversal, progress))
        worst = on_grid(worst_head(adverse), truth.image)
        worst_truth, worst_weak = torch.split(worst, counts)
        known = truth.target != IGNORE
        believed = truth._replace(target=torch.where(known, most_probable(on_truth), IGNORE))

        strong = kit.strong(weak.image)
        on_strong = on_grid(pseudo_head(body.decoder(body.encoder(strong))), strong)
        eta = value_at(self.worst_case_weight, progress)
        return Outcome(
            losses={
                "supervised": supervised(self.supervised_loss, on_truth, truth),
                "supervised_worst_case": eta
                * self.labeled_share
                * supervised(CrossEntropy(), worst_truth, believed),
                "worst_case": eta * complementary(worst_weak, pseudo.target, weak.valid.float()),
                "unlabeled": value_at(self.unlabeled_weight, progress)
                * self.unlabeled_loss(on_strong, pseudo),
            },
            pseudo=pseudo,
        )
