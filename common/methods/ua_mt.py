"""Uncertainty-aware mean teacher."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch

from common.batch import Batch, Logits, Probs, SoftPseudo, Unlabeled
from common.consistency import consistency
from common.filters import AnyFilter, Entropy
from common.labeling import Kit, among, trust
from common.learners import TeacherStudent, together
from common.losses import supervised
from common.methods.base import Card, Method, NewNetwork, Outcome
from common.perturb import dropping, noisy
from common.schedules import Share, Sigmoid, Weight, value_at
from common.settings import NonNegative, Positive


class UncertaintyAwareMeanTeacher(Method):
    """Draw the student towards its own average where several noisy looks of that agree [1].

    The entropy of the mean of ``looks`` predictions, each of the image under new noise and new
    dropout where the network has any, must stay below a ceiling that rises to ``ln K``.

    Networks: 2, of which 1 learns. Forward passes per step: 1 + ``looks`` of the teacher on noisy
    images, without gradient; 1 of the student on labeled and weak together. Divisor: the sum of
    trust (the kept pixels) times K, the number of classes. Detached: target and trust. Batch
    norm: the teacher in evaluation mode, its statistics averaged like its weights; labeled and
    weak share theirs.
    Departures from the authors' code: ``ln K`` and ``K`` where it says ``ln 2`` and 2, which is
    the same for their two classes; the teacher's statistics (there: of each batch, in training
    mode).

    [1] Yu et al., UA-MT, MICCAI 2019, arXiv:1907.07034, Eqs. 2-4 and Sec. 3.1.
    """

    card: ClassVar[Card] = Card(
        paper="UA-MT",
        year=2019,
        family="teacher and student",
        networks="2; 1",
        forwards="1 + 9 without gradient",
    )

    name: Literal["ua_mt"] = "ua_mt"
    filter: AnyFilter = Entropy(ceiling=Sigmoid(start=0.75, end=1.0))  # H, of the mean
    supervised_weight: Weight = 0.5
    unlabeled_weight: Weight = Sigmoid(end=0.1)  # lambda
    looks: Positive = 8  # T
    noise: NonNegative = 0.1  # standard deviation, in units of the normalized image
    noise_limit: NonNegative = 0.2
    decay: Share = 0.99  # alpha

    def networks(self, new_network: NewNetwork) -> TeacherStudent:
        return TeacherStudent(new_network(), decay=self.decay)

    def losses(self, nets: TeacherStudent, batch: Batch, kit: Kit, progress: float) -> Outcome:
        truth, weak = batch.labeled, batch.unlabeled

        with torch.no_grad(), dropping(nets.teacher):
            target = self._look(nets, weak)
            mean = torch.zeros_like(target)
            for _ in range(self.looks):
                mean += self._look(nets, weak) / self.looks
            pseudo = kit.refine(SoftPseudo(target, trust(mean, kit.keep, weak.valid)), weak)
        on_truth, on_weak = together(nets.student, truth.image, weak.image)

        return Outcome(
            losses={
                "supervised": value_at(self.supervised_weight, progress)
                * supervised(self.supervised_loss, on_truth, truth),
                "unlabeled": value_at(self.unlabeled_weight, progress)
                * consistency(on_weak, pseudo),
            },
            pseudo=pseudo,
        )

    def _look(self, nets: TeacherStudent, weak: Unlabeled) -> Probs:
        logits: Logits = nets.teacher(noisy(weak.image, self.noise, self.noise_limit))
        return among(logits.float(), weak.possible).softmax(dim=1)
