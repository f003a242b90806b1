"""FixMatch, per pixel."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch

from common.batch import Batch
from common.filters import AnyFilter, Confidence
from common.labeling import Kit, pseudo_label
from common.learners import Solo, TeacherStudent, together
from common.losses import AnyLoss, CrossEntropy, supervised
from common.methods.base import Card, Method, NewNetwork, Outcome
from common.mixing import AnyMix, NoMix
from common.schedules import Share, Weight, value_at


class FixMatch(Method):
    """Teach the strong view what the weak view is sure of [1], per pixel.

    With ``mix``, on images cut from two [2]; with ``teacher_decay``, the student's average is
    the one to be sure [3].

    Networks: 1, or 2 with a teacher, of which 1 learns. Forward passes per step: 1 on the weak
    view without gradient (the teacher in evaluation mode; the student, where it labels for
    itself, in training mode, as in [2]); 1 of the student on labeled and strong together.
    Divisor: all valid pixels, kept or not. Detached: the pseudo-label.

    [1] Sohn et al., FixMatch, 2020, arXiv:2001.07685, Algorithm 1.
    [2] Yang et al., UniMatch, CVPR 2023, arXiv:2208.09910, Sec. 3.1.
    [3] Yang et al., UniMatch V2, 2024, arXiv:2410.10777, Sec. 3.
    """

    card: ClassVar[Card] = Card(
        paper="FixMatch; ClassMix",
        year=2020,
        family="teacher and student",
        networks="1 or 2; 1",
        forwards="1 + 1 without gradient",
    )
    takes_source: ClassVar[bool] = True

    name: Literal["fixmatch"] = "fixmatch"
    filter: AnyFilter = Confidence(threshold=0.95)
    unlabeled_loss: AnyLoss = CrossEntropy()
    unlabeled_weight: Weight = 1.0  # lambda_u
    teacher_decay: Share | None = None  # alpha; absent: the student labels for itself
    mix: AnyMix = NoMix()

    def networks(self, new_network: NewNetwork) -> Solo | TeacherStudent:
        student = new_network()
        if self.teacher_decay is None:
            return Solo(student)
        return TeacherStudent(student, decay=self.teacher_decay)

    def losses(
        self, nets: Solo | TeacherStudent, batch: Batch, kit: Kit, progress: float
    ) -> Outcome:
        truth, weak = batch.labeled, batch.unlabeled

        with torch.no_grad():
            pseudo = pseudo_label(kit.ask(nets.teacher, weak.image), kit, weak)
        strong, cut = kit.strong(weak.image), self.mix.draw(weak.image, pseudo, progress)
        on_truth, on_mixed = together(nets.student, truth.image, cut.image(strong))

        return Outcome(
            losses={
                "supervised": supervised(self.supervised_loss, on_truth, truth),
                "unlabeled": value_at(self.unlabeled_weight, progress)
                * self.unlabeled_loss(on_mixed, cut.pseudo(pseudo)),
            },
            pseudo=pseudo,
        )
