"""U2PL: unreliable pixels teach what they are not."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch

from common.batch import IGNORE, Batch
from common.contrast import ClassMemory, Contrast, Describing, Remembering, lattice, sample
from common.filters import AnyFilter, EntropyPercentile
from common.labeling import Kit, pseudo_label, without_dropped
from common.losses import AnyLoss, CrossEntropy, supervised
from common.methods.base import Card, Method, NewNetwork, Outcome
from common.mixing import AnyMix, CutMix
from common.parts import parted
from common.schedules import Jump, Share, Weight, value_at
from common.settings import Fraction, Positive


class U2PL(Method):
    """Teach reliable pixels their class, and unreliable ones which classes they are not [1].

    Reliable is what the filter keeps. A dropped pixel is a negative of the classes that the
    teacher ranks from ``rank_low`` to ``rank_high``, a labeled one of wrong classes before.

    Networks: 2, of which 1 learns, both with a projection head. Forward passes per step: 2 of
    the teacher without gradient, in evaluation mode (weak; labeled and mixed), 1 of the student
    on labeled and mixed together.
    Divisor: the kept pixels, times valid / kept; of the contrast: anchors, and classes present.
    Detached: pseudo-labels, class means and negatives, all of the teacher.
    Departures from the authors' code: ranks are shares of the classes (3 and 20 of 21 there);
    the filter judges the weak view; the strong view is the domain's, each mixed by chance; the
    teacher follows from the first step, statistics too; every fourth pixel along an axis is
    contrasted, and a class remembers fewer; an absent class does not shift the others. Anchors
    in labeled images make a term of their own.

    [1] Wang et al., U2PL, CVPR 2022, arXiv:2203.03884, Eqs. 1-14.
    """

    card: ClassVar[Card] = Card(
        paper="U2PL",
        year=2022,
        family="teacher and student",
        networks="2; 1",
        forwards="1 + 2 without gradient",
        needs="features",
    )
    takes_source: ClassVar[bool] = True

    name: Literal["u2pl"] = "u2pl"
    filter: AnyFilter = EntropyPercentile()
    unlabeled_loss: AnyLoss = CrossEntropy()
    unlabeled_weight: Weight = Jump(end=1.0, until=1 / 80)  # lambda_u over its base
    contrast_weight: Weight = Jump(end=1.0, until=1 / 80)  # lambda_c; one epoch of 80 before
    mix: AnyMix = CutMix(chance=0.5)
    decay: Share = 0.99  # alpha
    rank_low: Fraction = 3 / 21  # r_l over K
    rank_high: Fraction = 20 / 21  # r_h over K
    anchor_threshold: Fraction = 0.3  # delta_p
    memory: Positive = 4096  # descriptions of each class
    contrast: Contrast = Contrast(anchors=256, negatives=50)  # M, N

    def networks(self, new_network: NewNetwork) -> Remembering:
        student = Describing(parted(new_network()), self.contrast.size)
        memory = ClassMemory(student.num_classes, self.memory, self.contrast.size)
        return Remembering(student, self.decay, memory)

    def losses(self, nets: Remembering, batch: Batch, kit: Kit, progress: float) -> Outcome:
        truth, weak = batch.labeled, batch.unlabeled

        with torch.no_grad():
            pseudo = pseudo_label(kit.ask(nets.teacher, weak.image), kit, weak)
        strong, cut = kit.strong(weak.image), self.mix.draw(weak.image, pseudo, progress)
        taught, images = cut.pseudo(pseudo), torch.cat([truth.image, cut.image(strong)])
        at = lattice(images, self.contrast.stride)
        logits, pixels = nets.student.describe(images, at)
        with torch.no_grad():
            belief, keys = nets.teacher.describe(images, at)
        on_truth, on_mixed = torch.split(logits, [len(truth.image), len(weak.image)])

        kept = without_dropped(taught)
        enlarged = (taught.target != IGNORE).sum() / (kept.target != IGNORE).sum().clamp_min(1)
        lesson = enlarged * self.unlabeled_loss(on_mixed, kept)
        seen, probs = sample(at, truth, taught), at.rows(belief.float().softmax(dim=1)).T
        nets.memory.remember(keys, seen.unlike(probs, self.rank_low, self.rank_high))
        others = nets.memory.others(self.contrast.anchors, self.contrast.negatives)
        anchors = seen.members(len(probs)) & (probs > self.anchor_threshold)
        apart = self.contrast(pixels, keys, seen, anchors, others=others)
        weight = value_at(self.contrast_weight, progress)
        return Outcome(
            losses={
                "supervised": supervised(self.supervised_loss, on_truth, truth),
                "supervised_contrast": weight * apart[0],
                "unlabeled": value_at(self.unlabeled_weight, progress) * lesson,
                "contrast": weight * apart[1],
            },
            pseudo=pseudo,
        )
