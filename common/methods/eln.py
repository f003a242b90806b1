"""ELN, error localization."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from common.batch import Batch
from common.labeling import Kit, pseudo_label, without_dropped
from common.localizer import Localizer, Localizing, localization, while_above
from common.losses import AnyLoss, CrossEntropy, supervised
from common.methods.base import Card, Method, NewNetwork, Outcome
from common.parts import parted
from common.schedules import Jump, Share, Weight, value_at
from common.settings import Positive, PositiveReal


class ELN(Method):
    """Teach a pseudo-label where a network that learned to find errors finds none [1].

    This localizer learns on labeled images, from what the main decoder gets wrong and further
    ones that are kept worse: they learn only while their loss is ``worse_by`` times the main one.

    Networks: 2, of which 1 learns; 2 further decoders; the localizer, a small plain network.
    Forward passes per step: 1 of the student on labeled, weak and strong together; 1 of each
    further decoder on labeled features; 3 of the localizer, on their predictions and the main
    one; without gradient 1 of the teacher, in evaluation mode, and 1 of the localizer.
    Divisor: kept pixels, for each view; for the localizer annotated ones, right and wrong alike.
    Detached: the pseudo-label and its trust, predictions that the localizer judges, and features
    that further decoders start from. Batch norm: labeled, weak and strong share statistics;
    further decoders see labeled ones; the localizer has none.
    Departures from the authors' code: no contrast of pixels; their localizer is a ResNet-34 and
    sees logits, ours probabilities; pixels without annotation have no say, there they
    count as wrong; the teacher follows from the first step, is never copied back, and is shipped.
    An untrained decoder has a loss of about ln K: fewer classes than 21 need a lower ``worse_by``.

    [1] Kwon and Kwak, ELN, CVPR 2022, arXiv:2204.02078, and the authors' code, kinux98/SSL_ELN.
    """

    card: ClassVar[Card] = Card(
        paper="ELN",
        year=2022,
        family="learned correction",
        networks="2 with 2 more decoders, and a small one; all but the teacher",
        forwards="1 of each, 2 more of the small one, + 2 without gradient",
        needs="features",
    )

    name: Literal["eln"] = "eln"
    unlabeled_loss: AnyLoss = CrossEntropy()
    unlabeled_weight: Weight = Jump(end=1.0, until=90 / 500)  # of weak and strong views alike
    localizer_weight: Weight = Jump(end=1.0, until=40 / 500)  # also of the further decoders
    worse_by: Annotated[tuple[PositiveReal, ...], Field(min_length=1)] = (20.0, 50.0)
    threshold: Share = 0.5  # on the probability of being right
    decay: Share = 0.995
    width: Positive = 8  # channels of the localizer's finest level

    def networks(self, new_network: NewNetwork) -> Localizing:
        student, *others = [parted(new_network()) for _ in (1, *self.worse_by)]
        erring = [nn.Sequential(other.decoder, other.head) for other in others]
        localizer = Localizer(student, self.width)
        return Localizing(student, self.decay, erring=erring, localizer=localizer)

    def losses(self, nets: Localizing, batch: Batch, kit: Kit, progress: float) -> Outcome:
        truth, weak, student = batch.labeled, batch.unlabeled, nets.student

        with torch.no_grad():
            belief = nets.teacher(weak.image)
            pseudo = pseudo_label(belief, kit, weak)
            sound = nets.localizer(weak.image, belief).sigmoid()
        kept = sound > value_at(self.threshold, progress)
        pseudo = pseudo._replace(weight=pseudo.weight * kept)

        views = truth.image, weak.image, kit.strong(weak.image)
        features = student.encoder(torch.cat(views))
        logits = student.head(student.decoder(features))
        on_truth, *on_views = torch.split(logits, [len(view) for view in views])
        lessons = [self.unlabeled_loss(each, without_dropped(pseudo)) for each in on_views]

        start = tuple(level[: len(truth.image)].detach() for level in features)
        votes = [on_truth, *(decoder(start) for decoder in nets.erring)]
        found = [localization(nets.localizer(truth.image, v), v, truth.target) for v in votes]
        main, *others = [supervised(CrossEntropy(), vote, truth) for vote in votes]
        limits = [by * main for by in self.worse_by]
        worse = [while_above(*pair) for pair in zip(limits, others, strict=True)]
        return Outcome(
            losses={
                "supervised": supervised(self.supervised_loss, on_truth, truth),
                "supervised_localizer": value_at(self.localizer_weight, progress)
                * torch.stack([*found, *worse]).sum(),
                "unlabeled": value_at(self.unlabeled_weight, progress) * torch.stack(lessons).sum(),
            },
            pseudo=pseudo,
        )
