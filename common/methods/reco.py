"""ReCo: regional contrast, where it is hard."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch

from common.batch import Batch
from common.contrast import Contrast, Describing, lattice, sample
from common.filters import AnyFilter, Confidence, ConfidentShare
from common.labeling import Kit, hard, soft_pseudo_label
from common.learners import TeacherStudent
from common.losses import AnyLoss, CrossEntropy, supervised
from common.methods.base import Card, Method, NewNetwork, Outcome
from common.mixing import AnyMix, ClassMix
from common.parts import parted
from common.schedules import Share, Weight, value_at
from common.settings import Fraction


class ReCo(Method):
    """Draw unsure pixels to the mean of their class, and away from the classes most alike [1].

    A base of ClassMix with an averaged teacher. Contrasted are annotated pixels and those whose
    pseudo-label ``contrast_filter`` believes; queries are the ones to whose label the student
    gives less than ``query_threshold``.

    Networks: 2, of which 1 learns, both with a representation head. Forward passes per step: 1
    of the teacher without gradient, in evaluation mode (weak); 1 of the student on labeled and
    mixed together.
    Divisor: all valid pixels; of the contrast: queries, and classes present.
    Detached: pseudo-labels, class means and negatives; the latter two are the student's own.
    Departures from the authors' code [2]: trust of the lesson is the confident share of the
    batch, not of each image; what ``filter`` drops is not contrasted either; their lesson is
    divided by the pixels whose loss is not 0; every fourth pixel along an axis is contrasted;
    the head has no 3x3 convolution; their teacher predicts in training mode. Queries in labeled
    images make a term of their own.

    [1] Liu et al., ReCo, ICLR 2022, arXiv:2104.04465.
    [2] github.com/lorenmt/reco, train_semisup.py and module_list.py.
    """

    card: ClassVar[Card] = Card(
        paper="ReCo",
        year=2022,
        family="more signals",
        networks="2; 1",
        forwards="1 + 1 without gradient",
        needs="features",
    )
    takes_source: ClassVar[bool] = True

    name: Literal["reco"] = "reco"
    filter: AnyFilter = ConfidentShare(threshold=0.97)  # delta_s
    unlabeled_loss: AnyLoss = CrossEntropy()
    unlabeled_weight: Weight = 1.0
    contrast_weight: Weight = 1.0
    contrast_filter: Confidence = Confidence(threshold=0.7)  # delta_w
    query_threshold: Fraction = 0.97  # delta_s
    contrast: Contrast = Contrast(anchors=256, negatives=512, temperature=0.5, size=256)
    mix: AnyMix = ClassMix()
    decay: Share = 0.99

    def networks(self, new_network: NewNetwork) -> TeacherStudent:
        return TeacherStudent(Describing(parted(new_network()), self.contrast.size), self.decay)

    def losses(self, nets: TeacherStudent, batch: Batch, kit: Kit, progress: float) -> Outcome:
        truth, weak, student = batch.labeled, batch.unlabeled, nets.student
        assert isinstance(student, Describing)

        with torch.no_grad():
            soft = soft_pseudo_label(kit.ask(nets.teacher, weak.image), kit, weak)
        pseudo, believed = hard(soft, weak.valid), self.contrast_filter(soft.probs, progress)
        contrasted = pseudo._replace(weight=pseudo.weight * believed)
        strong, cut = kit.strong(weak.image), self.mix.draw(weak.image, pseudo, progress)
        images = torch.cat([truth.image, cut.image(strong)])
        at = lattice(images, self.contrast.stride)
        logits, pixels = student.describe(images, at)
        on_truth, on_mixed = torch.split(logits, [len(truth.image), len(weak.image)])

        seen = sample(at, truth, cut.pseudo(contrasted))
        probs = at.rows(logits.detach().float().softmax(dim=1)).T
        members = seen.members(len(probs))
        queries = members & (probs < self.query_threshold)
        others = self.contrast.similar_others(pixels, members)
        apart = self.contrast(pixels, pixels, seen, queries, others=others)

        lesson = self.unlabeled_loss(on_mixed, cut.pseudo(pseudo))
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
