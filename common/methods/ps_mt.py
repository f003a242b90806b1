"""PS-MT: perturbed and strict mean teachers."""

from __future__ import annotations

import functools
from typing import ClassVar, Literal

import torch

from common.batch import Batch, Logits
from common.filters import AnyFilter, Confidence
from common.labeling import Kit, pseudo_label, without_dropped
from common.learners import TeachersStudent, regular_turn, soft_vote
from common.losses import AnyLoss, CrossEntropy, supervised
from common.methods.base import Card, Method, NewNetwork, Outcome
from common.mixing import AnyMix, CutMix
from common.parts import Features, parted
from common.perturb import virtual_adversarial
from common.schedules import Cosine, Share, Weight, value_at
from common.settings import Positive


class PSMT(Method):
    """Two averages of the student teach it, whose features move to where they would err most [1].

    The teachers follow the student by turns. Each kept pixel counts by their confidence.

    Networks: 3, of which 1 learns; the mean of both teachers predicts, as in [1]. Forward passes
    per step: 1 of each teacher on the weak view and 1 of their decoders on features of the
    student, both without gradient; 1 of their decoders, forward and backward, to find where to
    move; 1 of the student on labeled and strong together.
    Divisor: the kept pixels. Detached: the pseudo-label and the step in feature space.
    Batch norm: the student's statistics see labeled and strong together, the decoder's with moved
    features; teachers average them and predict and judge in evaluation mode.
    Departures from the authors' code: the teachers start as copies of the student and follow it
    together while young, instead of three supervised networks; the mean is of probabilities, not
    of logits; features move by a share of their length, not by 2; labeled images stay in the weak
    view; no class is taken from one teacher alone.

    [1] Liu et al., PS-MT, CVPR 2022, arXiv:2111.12903, and its code.
    """

    card: ClassVar[Card] = Card(
        paper="PS-MT",
        year=2022,
        family="teacher and student",
        networks="3; 1",
        forwards="1 + 2 without gradient + 4 of decoders",
        needs="features",
    )

    name: Literal["ps_mt"] = "ps_mt"
    filter: AnyFilter = Confidence(threshold=0.6)  # tau
    unlabeled_loss: AnyLoss = CrossEntropy()
    unlabeled_weight: Weight = Cosine(end=1.5, until=0.15)  # lambda
    decay: Share = 0.996  # alpha
    turn_steps: Positive = 100  # [1]: one pass over the unlabeled images
    perturbation: Weight = 0.02  # of the length of the features; a tenth can break training
    mix: AnyMix = CutMix()

    def networks(self, new_network: NewNetwork) -> TeachersStudent:
        turn = functools.partial(regular_turn, period_steps=self.turn_steps)
        return TeachersStudent(parted(new_network()), self.decay, turn=turn)

    def losses(self, nets: TeachersStudent, batch: Batch, kit: Kit, progress: float) -> Outcome:
        truth, weak = batch.labeled, batch.unlabeled

        with torch.no_grad():
            logits = nets.predictor(weak.image)
            pseudo = pseudo_label(logits, kit, weak)
            confidence = logits.softmax(dim=1).amax(dim=1)
        strong, cut = kit.strong(weak.image), self.mix.draw(weak.image, pseudo, progress)

        student, num_labeled = parted(nets.student), len(truth.image)
        features = student.encoder(torch.cat([truth.image, cut.image(strong)]))
        share = value_at(self.perturbation, progress)
        judge = functools.partial(judged, nets)
        moved = virtual_adversarial(features, judge, share=share)
        on_both = student.head(student.decoder(moved))
        on_truth, on_mixed = on_both[:num_labeled], on_both[num_labeled:]

        sure = without_dropped(pseudo._replace(weight=pseudo.weight * confidence))
        weight = value_at(self.unlabeled_weight, progress)
        return Outcome(
            losses={
                "supervised": supervised(self.supervised_loss, on_truth, truth),
                "unlabeled": weight * self.unlabeled_loss(on_mixed, cut.pseudo(sure)),
            },
            pseudo=pseudo,
        )


def judged(nets: TeachersStudent, features: Features) -> Logits:
    """What the teachers together would predict from features of the student."""
    teachers = [parted(teacher) for teacher in nets.teachers]
    return soft_vote(each.head(each.decoder(features)) for each in teachers)
