"""AD-MT: alternate diverse teaching."""

from __future__ import annotations

import functools
from typing import ClassVar, Literal

import torch

from common.agreement import mean_by_certainty
from common.batch import Batch, Probs, Pseudo, most_probable
from common.filters import AnyFilter, Confidence
from common.labeling import Kit, pseudo_label, without_dropped
from common.learners import TeachersStudent, random_turn, together
from common.losses import AnyLoss, CrossEntropy, supervised
from common.methods.base import Card, Method, NewNetwork, Outcome
from common.mixing import AnyMix, CutMix
from common.schedules import Share, Sigmoid, Weight, value_at
from common.settings import Positive


class ADMT(Method):
    """Two averages of the student move by turns of random length and teach together [1].

    The surer teacher counts for more; where the two conflict, and the student with both, the
    surest of all decides. One teacher follows a student that learns strong views, the other one
    that learns mixed weak views.

    Networks: 3, of which 1 learns; the mean of both teachers predicts. Forward passes per step: 1
    of each teacher and 1 of the student on the weak view, without gradient; 1 of the student on
    labeled and harder images together.
    Divisor: the kept pixels. Detached: the pseudo-label, all three opinions of it.
    Batch norm: the student's statistics see the weak view, then labeled and harder images
    together; teachers average them and predict in evaluation mode.
    Departures from the authors' code: conflicts are settled before mixing (there the student's
    opinion stays where it was while the teachers' moves); both teachers copy a young student; the
    teacher whose turn it is does not use statistics of the batch; two turns in a row share
    ``longest_turn_steps + 1`` steps; entropy in nats, not bits; the student was shipped there.

    [1] Zhao et al., AD-MT, ECCV 2024, arXiv:2311.17325, and its code.
    """

    card: ClassVar[Card] = Card(
        paper="AD-MT",
        year=2024,
        family="copy-paste",
        networks="3; 1",
        forwards="1 + 3 without gradient",
    )

    name: Literal["ad_mt"] = "ad_mt"
    filter: AnyFilter = Confidence(threshold=0.8)  # tau
    unlabeled_loss: AnyLoss = CrossEntropy()
    unlabeled_weight: Weight = Sigmoid(end=2.0, until=0.4)  # lambda
    decay: Share = 0.99  # alpha
    longest_turn_steps: Positive = 19  # about half a pass over the unlabeled images
    mix: AnyMix = CutMix()

    def networks(self, new_network: NewNetwork) -> TeachersStudent:
        turn = functools.partial(random_turn, longest_steps=self.longest_turn_steps)
        return TeachersStudent(new_network(), self.decay, turn=turn)

    def losses(self, nets: TeachersStudent, batch: Batch, kit: Kit, progress: float) -> Outcome:
        truth, weak = batch.labeled, batch.unlabeled

        with torch.no_grad():
            one, other = (teacher(weak.image).float().softmax(dim=1) for teacher in nets.teachers)
            student = nets.student(weak.image).float().softmax(dim=1)
            decided = settled(one, other, student)
            pseudo = pseudo_label(decided.clamp_min(1e-12).log(), kit, weak)
        strong, cut = kit.strong(weak.image), self.mix.draw(weak.image, pseudo, progress)

        first = nets.turn == 0  # stays on the device
        harder = torch.where(first, strong, cut.image(weak.image))
        both = zip(pseudo, cut.pseudo(pseudo), strict=True)
        taught = Pseudo(*(torch.where(first, plain, mixed) for plain, mixed in both))
        on_truth, on_harder = together(nets.student, truth.image, harder)

        weight, taught = value_at(self.unlabeled_weight, progress), without_dropped(taught)
        return Outcome(
            losses={
                "supervised": supervised(self.supervised_loss, on_truth, truth) / 2,
                "unlabeled": weight * self.unlabeled_loss(on_harder, taught),
            },
            pseudo=pseudo,
        )


def settled(one: Probs, other: Probs, student: Probs) -> Probs:
    """What two teachers and their student make of each pixel [1].

    The teachers' mean, weighted by exp(-entropy); but the student's own probabilities where both
    teachers differ, the student differs from their mean, and is surer than it.
    """
    ensemble = mean_by_certainty(torch.stack([one, other]))
    conflict = most_probable(one) != most_probable(other)
    differs = most_probable(student) != most_probable(ensemble)
    surer = student.amax(dim=1) > ensemble.amax(dim=1)
    return torch.where((conflict & differs & surer).unsqueeze(1), student, ensemble)
