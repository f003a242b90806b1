"""Dual-task consistency."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch

from common.batch import IGNORE, Batch, Mask, Scalar, Weights
from common.distances import signed_distances
from common.labeling import Kit, soft_pseudo_label
from common.learners import Heads
from common.losses import supervised
from common.methods.base import Card, Method, NewNetwork, Outcome
from common.parts import on_grid, parted, pixel_head
from common.schedules import Sigmoid, Weight, value_at
from common.settings import NonNegative, Positive, PositiveReal


class DTC(Method):
    """One head tells classes, another how far their borders are, and both must agree [1].

    A signed distance ``z``, negative inside, becomes a probability as ``sigmoid(-k z)``.

    Networks: 1 with 2 heads, of which the network's own is shipped. Forward passes per step: 1,
    on labeled and weak images together.
    Divisor: all valid pixels and the classes; agreement for labeled and unlabeled images apart,
    each weighted by their share of the batch's images. Detached: nothing but the true distances.
    Departures: the authors' code [2] computes true distances of one class on the host by SciPy
    and divides them by the largest in the image, inside and outside apart; here, for every class,
    on the device, exact up to ``reach_pixels`` and divided by them. There a border pixel is 0 and
    becomes one half, here the border lies between pixels. The supervised loss there is Dice.
    Pixels without annotation take no part.

    [1] Luo et al., DTC, AAAI 2021, arXiv:2009.04448, Sec. 3.
    [2] github.com/HiLab-git/DTC, code/train_la_dtc.py.
    """

    card: ClassVar[Card] = Card(
        paper="DTC",
        year=2021,
        family="more signals",
        networks="1 with 2 heads; 1",
        forwards="1",
        needs="features",
    )
    makes_pseudo_labels: ClassVar[bool] = False

    name: Literal["dtc"] = "dtc"
    unlabeled_weight: Weight = Sigmoid(end=1.0, until=1.0)  # also of agreement on labeled images
    distance_weight: NonNegative = 0.3  # beta
    steepness: PositiveReal = 1500.0  # k
    reach_pixels: Positive = 10  # where distances end

    def networks(self, new_network: NewNetwork) -> Heads:
        student = parted(new_network())
        return Heads(student, [pixel_head(student, student.num_classes)])

    def losses(self, nets: Heads, batch: Batch, kit: Kit, progress: float) -> Outcome:
        truth, weak, student = batch.labeled, batch.unlabeled, nets.student
        image, known = torch.cat([truth.image, weak.image]), truth.target != IGNORE

        pixels = student.decoder(student.encoder(image))
        logits = student.head(pixels)
        far = on_grid(nets.others[0](pixels), image).float().tanh()
        gap = (-self.steepness * far).sigmoid() - logits.float().softmax(dim=1)

        counts = [len(truth.image), len(weak.image)]
        on_truth, on_weak = torch.split(logits, counts)
        gap_truth, gap_weak = torch.split(gap.square().mean(dim=1), counts)
        true = signed_distances(truth.target, gap.shape[1], reach_pixels=self.reach_pixels)
        missed = (far[: counts[0]] - true).square().mean(dim=1)

        weight = value_at(self.unlabeled_weight, progress) / sum(counts)
        return Outcome(
            losses={
                "supervised": supervised(self.supervised_loss, on_truth, truth),
                "supervised_distance": self.distance_weight * _mean(missed, known),
                "supervised_agreement": weight * counts[0] * _mean(gap_truth, known),
                "unlabeled": weight * counts[1] * _mean(gap_weak, weak.valid),
            },
            pseudo=soft_pseudo_label(on_weak, kit, weak),
        )


def _mean(squares: Weights, valid: Mask) -> Scalar:
    return (squares * valid).sum() / valid.sum().clamp_min(1)
