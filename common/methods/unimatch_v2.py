"""UniMatch, the second version."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch

from common.batch import Batch
from common.filters import AnyFilter, Confidence
from common.labeling import Kit, pseudo_label
from common.learners import TeacherStudent, decoded, encoded
from common.losses import AnyLoss, CrossEntropy, supervised
from common.methods.base import Card, Method, NewNetwork, Outcome
from common.mixing import AnyMix, CutMix
from common.parts import parted
from common.perturb import complementary_dropout
from common.schedules import Share, Weight, value_at


class UniMatchV2(Method):
    """Teach two strong views, each missing the channels the other has, what a teacher sees [1].

    The teacher is the student's average, and labels the weak view. Each strong view is cut and
    mixed for itself; half of the samples keep all channels.

    Networks: 2, of which 1 learns. Forward passes per step: 1 of the teacher on the weak view,
    without gradient; 1 of the student on labeled and both strong views together. Divisor: all
    valid pixels of a view, kept or not. Detached: the pseudo-label. Batch norm: the teacher in
    evaluation mode, its statistics averaged like its weights; labeled and strong share theirs.
    Departures from the authors' code: labeled images pass together with the strong views, which
    makes no difference to the layer norms there; the partner of a mix is never the image itself
    (there: the batch in reverse order, so the middle of an odd one is); each feature map has a
    dropout draw of its own, as widths differ. The teacher is what is validated and shipped.

    [1] Yang et al., UniMatch V2, 2024, arXiv:2410.10777, Sec. 3.
    """

    card: ClassVar[Card] = Card(
        paper="UniMatch V2",
        year=2024,
        family="teacher and student",
        networks="2; 1",
        forwards="1 + 1 without gradient",
        needs="features",
    )
    takes_source: ClassVar[bool] = True

    name: Literal["unimatch_v2"] = "unimatch_v2"
    filter: AnyFilter = Confidence(threshold=0.95)  # tau
    unlabeled_loss: AnyLoss = CrossEntropy()
    unlabeled_weight: Weight = 1.0  # half of it for each view
    decay: Share = 0.996  # gamma
    mix: AnyMix = CutMix(share_low=0.02, share_high=0.4, chance=0.5)

    def networks(self, new_network: NewNetwork) -> TeacherStudent:
        return TeacherStudent(parted(new_network()), decay=self.decay)

    def losses(self, nets: TeacherStudent, batch: Batch, kit: Kit, progress: float) -> Outcome:
        truth, weak, student = batch.labeled, batch.unlabeled, parted(nets.student)

        with torch.no_grad():
            pseudo = pseudo_label(kit.ask(nets.teacher, weak.image), kit, weak)
        one, other = (self.mix.draw(weak.image, pseudo, progress) for _ in range(2))
        views = (cut.image(kit.strong(weak.image)) for cut in (one, other))

        of_truth, of_one, of_other = encoded(student, truth.image, *views)
        dropped = complementary_dropout(of_one, of_other)
        on_truth, on_one, on_other = decoded(student, of_truth, *dropped)

        teach = self.unlabeled_loss
        strong = teach(on_one, one.pseudo(pseudo)) + teach(on_other, other.pseudo(pseudo))
        return Outcome(
            losses={
                "supervised": supervised(self.supervised_loss, on_truth, truth) / 2,
                "strong": value_at(self.unlabeled_weight, progress) / 2 * strong / 2,
            },
            pseudo=pseudo,
        )
