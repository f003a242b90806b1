"""Bidirectional copy-paste."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field

from common.batch import Batch
from common.labeling import Kit, pseudo_label
from common.learners import TeacherStudent, together
from common.losses import AnyLoss, CrossEntropyDice, supervised
from common.methods.base import Card, Method, NewNetwork, Outcome
from common.mixing import box, mixed_truth, mixtures
from common.refiners import AnyRefiner, LargestComponent
from common.schedules import Share, Weight, value_at
from common.settings import Fraction

Direction = Literal["labeled_into_unlabeled", "unlabeled_into_labeled"]


class BCP(Method):
    """Paste labeled images into unlabeled ones and the other way around, and learn both [1].

    The first ``pretrain`` of the steps paste labeled images into each other. With one of the
    ``directions`` it is close to RanPaste [2].

    Networks: 2, of which 1 learns. Forward passes per step: 1 of the teacher on the unlabeled
    images, without gradient; 1 of the student on both mixtures together; while pre-training 1.
    Views: nothing but pasting is done to an image; how batches are paired says ``mixtures``.
    Divisor: in the region of each part of a mixture, its annotated or valid pixels; then the
    number of mixtures, so that CE + Dice becomes (CE + Dice) / 2 of each. Detached: the
    pseudo-label. Batch norm: the student's statistics see mixtures only; the teacher averages
    them and predicts in evaluation mode (in training mode in the authors' code).
    Departures: the teacher follows from the first step on, instead of starting as the pre-trained
    network that was best on the test cases, and it is shipped, not the student; each pair has its
    own box. ``refiners: []`` is for classes that come in many pieces, as on maps.

    [1] Bai et al., BCP, CVPR 2023, arXiv:2305.00673, and its code.
    [2] Wang et al., RanPaste, IEEE TGRS 60, 2022.
    """

    card: ClassVar[Card] = Card(
        paper="BCP; RanPaste",
        year=2023,
        family="copy-paste",
        networks="2; 1",
        forwards="1 + 1 without gradient",
        needs="2 labeled images a batch",
    )
    takes_source: ClassVar[bool] = True

    name: Literal["bcp"] = "bcp"
    pretrain: Fraction = 0.12  # share of the steps
    directions: Annotated[tuple[Direction, ...], Field(min_length=1)] = (
        "labeled_into_unlabeled",
        "unlabeled_into_labeled",
    )
    box_side: Annotated[float, Field(gt=0, lt=1)] = 2 / 3  # beta, of each side of the image
    refiners: tuple[AnyRefiner, ...] = (LargestComponent(),)
    unlabeled_loss: AnyLoss = CrossEntropyDice()
    unlabeled_weight: Weight = 0.5  # alpha
    decay: Share = 0.99  # lambda of the teacher

    def networks(self, new_network: NewNetwork) -> TeacherStudent:
        return TeacherStudent(new_network(), decay=self.decay)

    def losses(self, nets: TeacherStudent, batch: Batch, kit: Kit, progress: float) -> Outcome:
        truth, weak = batch.labeled, batch.unlabeled
        if progress < self.pretrain:
            mixed = mixed_truth(truth, box(truth.image, self.box_side))
            logits = nets.student(mixed.image)
            return Outcome({"supervised": supervised(self.supervised_loss, logits, mixed)})

        with torch.no_grad():
            pseudo = pseudo_label(kit.ask(nets.teacher, weak.image), kit, weak)
        inside = box(max(truth.image, weak.image, key=len), self.box_side)
        labeled_at = {"labeled_into_unlabeled": inside, "unlabeled_into_labeled": ~inside}
        pairs = mixtures(truth, weak.image, pseudo, [labeled_at[each] for each in self.directions])
        views = together(nets.student, *(each.truth.image for each in pairs))

        taught, guessed = [], []
        for on_mixture, (known, guess) in zip(views, pairs, strict=True):
            taught.append(supervised(self.supervised_loss, on_mixture, known))
            guessed.append(self.unlabeled_loss(on_mixture, guess))
        weight = value_at(self.unlabeled_weight, progress)
        return Outcome(
            losses={
                "supervised": torch.stack(taught).mean(),
                "unlabeled": weight * torch.stack(guessed).mean(),
            },
            pseudo=pseudo,
        )
