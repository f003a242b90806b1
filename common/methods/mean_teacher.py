"""Mean Teacher."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch

from common.batch import Batch
from common.consistency import AnyConsistency, Squares
from common.labeling import Kit, soft_pseudo_label
from common.learners import TeacherStudent, together
from common.losses import supervised
from common.methods.base import Card, Method, NewNetwork, Outcome
from common.mixing import AnyMix, NoMix
from common.schedules import Share, Sigmoid, Weight, value_at


class MeanTeacher(Method):
    """Draw the student's probabilities towards those of its own average [1].

    With ``mix``, on images cut from two, and with filter ``confident_share`` [2].

    Networks: 2, of which 1 learns. Forward passes per step: 1 of the teacher on the weak view,
    without gradient and in evaluation mode; 1 of the student on labeled and strong together.
    Divisor: all valid pixels, kept or not, and the classes.
    Departure from [1]: the student sees the domain's strong view instead of input noise, and
    the teacher a clean one.

    [1] Tarvainen and Valpola, Mean teachers, 2017, arXiv:1703.01780, Sec. 2.
    [2] French et al., CutMix-Seg, 2020, arXiv:1906.01916, Sec. 3.3.
    """

    card: ClassVar[Card] = Card(
        paper="Mean Teacher; CutMix-Seg",
        year=2017,
        family="teacher and student",
        networks="2; 1",
        forwards="1 + 1 without gradient",
    )
    takes_source: ClassVar[bool] = True

    name: Literal["mean_teacher"] = "mean_teacher"
    unlabeled_loss: AnyConsistency = Squares()
    unlabeled_weight: Weight = Sigmoid(end=10.0, until=0.2)  # lambda: K squares are small
    decay: Share = 0.99  # alpha
    mix: AnyMix = NoMix()

    def networks(self, new_network: NewNetwork) -> TeacherStudent:
        return TeacherStudent(new_network(), decay=self.decay)

    def losses(self, nets: TeacherStudent, batch: Batch, kit: Kit, progress: float) -> Outcome:
        truth, weak = batch.labeled, batch.unlabeled

        with torch.no_grad():
            pseudo = soft_pseudo_label(kit.ask(nets.teacher, weak.image), kit, weak)
        strong, cut = kit.strong(weak.image), self.mix.draw(weak.image, pseudo, progress)
        on_truth, on_mixed = together(nets.student, truth.image, cut.image(strong))

        weight, valid = value_at(self.unlabeled_weight, progress), cut.valid(weak.valid)
        return Outcome(
            losses={
                "supervised": supervised(self.supervised_loss, on_truth, truth),
                "unlabeled": weight
                * self.unlabeled_loss(on_mixed, cut.pseudo(pseudo), valid, progress),
            },
            pseudo=pseudo,
        )
