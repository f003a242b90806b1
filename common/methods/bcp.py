"""Bidirectional copy-paste."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field

from common.batch import Batch, Image, Labeled, Pseudo
from common.components import largest_components
from common.errors import ShapeError
from common.labeling import pseudo_label
from common.learners import TeacherStudent, together
from common.losses import AnyLoss, CrossEntropyDice, pseudo_supervised, supervised
from common.methods.base import Card, Kit, Method, NewNetwork, Outcome
from common.mixing import Mixture, Paste, box
from common.schedules import Weight, value_at
from common.settings import Fraction

Direction = Literal["labeled_into_unlabeled", "unlabeled_into_labeled"]


class BCP(Method):
    """Paste labeled images into unlabeled ones and the other way around, and learn both [1].

    The first ``pretrain`` of the steps paste labeled images into each other. With one of
    ``directions`` it is close to RanPaste [2].

    Networks: 2, of which 1 learns. Forward passes per step: 1 of the teacher on the unlabeled
    images, without gradient; 1 of the student on both mixtures together; in pre-training 1 of
    the student. Nothing is changed but by pasting: the strong view is not used.
    Pairing: as many pairs as the larger part of the batch has images, the smaller part repeated;
    in the second mixture each unlabeled image meets the next labeled one.
    Divisor: in each mixture the annotated pixels for true labels, the valid ones for pseudo-labels,
    each of its own region; then the number of mixtures, so that CE + Dice is (CE + Dice) / 2 of
    each, as in [1]. Detached: the pseudo-label.
    Batch norm: the student's statistics see mixtures alone; the teacher averages them and predicts
    in evaluation mode, where the authors' stays in training mode.
    Departures from the authors' code: the teacher follows from the first step, instead of starting
    as the pre-trained network that was best on the test cases; it predicts in the end, not the
    student; each pair has its own box. Pieces that are not the largest become class 0, as there;
    ``component: none`` is for classes that come in many pieces, as on maps.

    [1] Bai et al., BCP, CVPR 2023, arXiv:2305.00673, Eqs. 1-7.
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

    name: Literal["bcp"] = "bcp"
    pretrain: Fraction = 0.12  # share of the steps
    directions: Annotated[tuple[Direction, ...], Field(min_length=1)] = (
        "labeled_into_unlabeled",
        "unlabeled_into_labeled",
    )
    box_side: Annotated[float, Field(gt=0, lt=1)] = 2 / 3  # beta, of each side of the image
    component: Literal["none", "largest"] = "largest"  # piece of each class that is believed
    unlabeled_loss: AnyLoss = CrossEntropyDice()
    unlabeled_weight: Weight = 0.5  # alpha
    decay: Fraction = 0.99  # lambda of the teacher

    def networks(self, new_network: NewNetwork) -> TeacherStudent:
        return TeacherStudent(new_network(), decay=self.decay)

    def losses(self, nets: TeacherStudent, batch: Batch, kit: Kit, progress: float) -> Outcome:
        truth, weak = batch.labeled, batch.unlabeled
        if progress < self.pretrain:
            return self._pretrained(nets, truth)

        with torch.no_grad():
            pseudo = pseudo_label(nets.teacher(weak.image), kit.keep, weak.valid)
            if self.component == "largest":
                pseudo = pseudo._replace(target=largest_components(pseudo.target))
        mixtures = self._mixtures(truth, weak.image, pseudo)
        views = together(nets.student, *(mixture.truth.image for mixture in mixtures))

        taught, guessed = [], []
        for on_mixture, (known, guess) in zip(views, mixtures, strict=True):
            taught.append(supervised(self.supervised_loss, on_mixture, known))
            guessed.append(pseudo_supervised(self.unlabeled_loss, on_mixture, guess))
        weight = value_at(self.unlabeled_weight, progress)
        return Outcome(
            losses={
                "supervised": torch.stack(taught).mean(),
                "unlabeled": weight * torch.stack(guessed).mean(),
            },
            pseudo=pseudo,
        )

    def _pretrained(self, nets: TeacherStudent, truth: Labeled) -> Outcome:
        if len(truth.image) < 2:
            raise ShapeError(
                "bcp first pastes labeled images into each other, but the batch holds "
                f"{len(truth.image)}. Set domain.batch.labeled to 2 or more, "
                "or method.pretrain to 0."
            )
        next_one = Labeled(*(part.roll(1, dims=0) for part in truth))
        mixed = Paste(box(truth.image, self.box_side)).truth(truth, next_one)
        logits = nets.student(mixed.image)
        return Outcome({"supervised": supervised(self.supervised_loss, logits, mixed)})

    def _mixtures(self, truth: Labeled, image: Image, pseudo: Pseudo) -> list[Mixture]:
        pair = torch.arange(max(len(truth.image), len(image)), device=image.device)
        other, guess = image[pair % len(image)], Pseudo(*(p[pair % len(image)] for p in pseudo))
        inside = box(other, self.box_side)
        mixtures = []
        for turn, direction in enumerate(self.directions):
            mine = Labeled(*(part[(pair + turn) % len(truth.image)] for part in truth))
            paste = Paste(inside if direction == "labeled_into_unlabeled" else ~inside)
            mixtures.append(paste.mixture(mine, other, guess))
        return mixtures
