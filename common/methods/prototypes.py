"""Prototype-based consistency regularization."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch

from common.batch import Batch, Labeled, Pseudo
from common.contrast import lattice, sample
from common.filters import AnyFilter, Confidence
from common.labeling import Kit, pseudo_label
from common.losses import AnyLoss, CrossEntropy, supervised
from common.methods.base import Card, Method, NewNetwork, Outcome
from common.mixing import AnyMix, CutMix
from common.parts import parted
from common.prototypes import Comparing, Prototypes
from common.schedules import Jump, Share, Weight, value_at
from common.settings import Fraction, Positive, PositiveReal


class PrototypeConsistency(Method):
    """Teach features to lie near a prototype of the class that a linear head sees in them [1].

    The teacher's linear head teaches both heads of the student: the linear one, and one that
    compares pixel features with several prototypes of each class, of which the nearest counts.

    Networks: 2, of which 1 learns, and prototypes of its pixel features, which follow those of
    annotated and trusted pixels. Forward passes per step: 1 of the teacher without gradient, in
    evaluation mode (weak); 1 of the student on labeled and mixed together.
    Divisor: all valid pixels; for prototypes, those looked at: every fourth along an axis.
    Detached: pseudo-labels and prototypes.
    Departures from the authors' code [2], of which the training is not published, so that
    divisors and what moves a prototype are our reading. Prototypes start from random annotated
    pixels, not by k-means from a file over a network trained before: anew in each step while
    ``prototype_weight`` is 0, from then on once for each class. They follow closely while young;
    one that is the nearest to nothing stays. A pixel in each of 32 x 32 cells is looked at there.
    A pseudo-label of a class that nobody has annotated yet teaches the linear head alone.

    [1] Xu et al., Prototype-based consistency regularization, NeurIPS 2022, arXiv:2210.04388.
    [2] github.com/HeimingX/semi_seg_proto, core/models and experiments.
    """

    card: ClassVar[Card] = Card(
        paper="Prototype consistency",
        year=2022,
        family="more signals",
        networks="2; 1",
        forwards="1 + 1 without gradient",
        needs="features",
    )
    takes_source: ClassVar[bool] = True

    name: Literal["prototypes"] = "prototypes"
    filter: AnyFilter = Confidence(threshold=0.8)
    unlabeled_loss: AnyLoss = CrossEntropy()
    unlabeled_weight: Weight = Jump(end=1.0, until=1 / 80)  # one epoch of 80 before
    prototype_weight: Weight = Jump(end=1.0, until=1 / 80)
    prototypes: Positive = 4  # of each class
    prototype_decay: Fraction = 0.99
    temperature: PositiveReal = 0.1
    stride: Positive = 4  # every so many pixels along each axis, one meets the prototypes
    mix: AnyMix = CutMix()
    decay: Share = 0.99

    def networks(self, new_network: NewNetwork) -> Comparing:
        student = parted(new_network())
        shape = student.num_classes, self.prototypes, student.pixel_channels
        known = Prototypes(shape, decay=self.prototype_decay, temperature=self.temperature)
        return Comparing(student, self.decay, known)

    def losses(self, nets: Comparing, batch: Batch, kit: Kit, progress: float) -> Outcome:
        truth, weak, teach = batch.labeled, batch.unlabeled, self.unlabeled_loss
        factor = value_at(self.unlabeled_weight, progress)
        weight = value_at(self.prototype_weight, progress)
        sizes = [len(truth.image), len(weak.image)]

        with torch.no_grad():
            pseudo = pseudo_label(kit.ask(nets.teacher, weak.image), kit, weak)
        strong, cut = kit.strong(weak.image), self.mix.draw(weak.image, pseudo, progress)
        taught, images = cut.pseudo(pseudo), torch.cat([truth.image, cut.image(strong)])
        pixels = nets.student.decoder(nets.student.encoder(images))
        on_truth, on_mixed = torch.split(nets.student.head(pixels), sizes)

        at, prototypes = lattice(images, self.stride), nets.prototypes
        if weight == 0:
            prototypes.forget()
        near = prototypes.meet(pixels, at, sample(at, truth, taught))
        near_truth, near_mixed = torch.split(near, sizes)
        few = Labeled(at.of(truth.image), at.labels(truth.target))
        some = prototypes.known(Pseudo(*map(at.labels, taught)))

        by_likeness = teach(near_mixed, some)
        losses = {
            "supervised": supervised(self.supervised_loss, on_truth, truth),
            "supervised_prototypes": weight * supervised(self.supervised_loss, near_truth, few),
            "unlabeled": factor * teach(on_mixed, taught),
            "prototypes": factor * weight * by_likeness,
        }
        return Outcome(losses=losses, pseudo=pseudo)
