"""UCC: two heads on one encoder teach each other."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import nn

from common.balance import TrueConfidence, classes_in_need
from common.batch import Batch, Labeled, Logits, Pseudo, SomeImage, SomeLogits
from common.labeling import pseudo_label
from common.learners import Heads, crosswise
from common.losses import AnyLoss, CrossEntropy, divergence_map, pseudo_supervised, supervised
from common.methods.base import Card, Kit, Method, NewNetwork, Outcome
from common.mixing import Paste
from common.parts import parted
from common.schedules import Sigmoid, Weight, value_at
from common.settings import Fraction, Positive


class UCC(Method):
    """Two heads on one encoder teach each other, less where they differ, and on pasted classes [1].

    What one head says of the weak view teaches the strong view of the other, weighted by
    ``exp(-KL)`` of their probabilities. Pixels of classes that the heads are not sure of are
    pasted from labeled images into unlabeled ones, with their true label.

    Networks: 1 encoder with 2 decoders and heads, all learn; the first head is shipped.
    Forward passes per step: 1 on the weak view without gradient, in training mode; 1 on labeled
    and strong together; the decoders run in both.
    Divisor: all valid pixels, pasted ones among them. Only valid pixels are pasted over.
    Detached: the pseudo-labels and their weights.
    Reconstructed, as there is no public code: the KL divergence is that of the weak views, from
    the one who teaches to the one who learns, and only weights; how sure the heads are of a class
    is their mean probability of it where it is true on labeled images, averaged over time;
    classes are drawn in proportion to one minus that, from a labeled image drawn at random;
    pseudo-labels are made before pasting; the weight of the unlabeled loss is that of CPS.

    [1] Fan et al., UCC, CVPR 2022, arXiv:2205.10334, Sec. 3.
    """

    card: ClassVar[Card] = Card(
        paper="UCC",
        year=2022,
        family="mutual",
        networks="1 with 2 decoders; 1",
        forwards="1 + 1 without gradient",
        needs="features",
    )

    name: Literal["ucc"] = "ucc"
    unlabeled_loss: AnyLoss = CrossEntropy()
    unlabeled_weight: Weight = Sigmoid(end=1.5, until=0.2)  # lambda
    pasted_classes: Positive = 1  # into each image
    confidence_decay: Fraction = 0.99

    def networks(self, new_network: NewNetwork) -> CoTrained:
        student, other = parted(new_network()), parted(new_network())
        nets = CoTrained(student, [nn.Sequential(other.decoder, other.head)])
        nets.confidence = TrueConfidence(self.confidence_decay)
        return nets

    def losses(self, nets: CoTrained, batch: Batch, kit: Kit, progress: float) -> Outcome:
        truth, weak = batch.labeled, batch.unlabeled

        with torch.no_grad():
            (on_weak,) = nets.both(weak.image)
            pseudos = [pseudo_label(logits, kit.keep, weak.valid) for logits in on_weak]
        source = _drawn(truth, len(weak.image))
        need = 1 - nets.confidence.of(on_weak[0].shape[1])
        paste = Paste(classes_in_need(source.target, need, self.pasted_classes) & weak.valid)
        strong = kit.strong(paste.image(source.image, weak.image))
        on_truth, on_strong = nets.both(truth.image, strong)
        nets.confidence(torch.cat(on_truth), torch.cat([truth.target] * 2))

        def lesson(teacher: int, learner: int) -> torch.Tensor:
            taught = _less_where_apart(pseudos[teacher], on_weak[teacher], on_weak[learner])
            return pseudo_supervised(
                self.unlabeled_loss, on_strong[learner], _pasted(paste, source, taught)
            )

        weight = value_at(self.unlabeled_weight, progress)
        return Outcome(
            losses={
                "supervised": torch.stack(
                    [supervised(self.supervised_loss, logits, truth) for logits in on_truth]
                ).sum(),
                "unlabeled": weight * crosswise(2, lesson),
            },
            pseudo=pseudos[0],
        )


class CoTrained(Heads):
    """A network with a second decoder and head, and how sure both are of each class."""

    confidence: TrueConfidence

    def both(self, *images: SomeImage) -> list[tuple[SomeLogits, SomeLogits]]:
        """The logits of both heads for each of several batches, in one forward pass."""
        features = self.student.encoder(torch.cat(images))
        counts = [len(image) for image in images]
        first = self.student.head(self.student.decoder(features)).split(counts)
        second = self.others[0](features).split(counts)
        return [*zip(first, second, strict=True)]


def _drawn(truth: Labeled, count: int) -> Labeled:
    """As many labeled images as asked for, each drawn at random."""
    index = torch.randint(len(truth.image), (count,), device=truth.image.device)
    return Labeled(truth.image[index], truth.target[index])


@torch.no_grad()
def _less_where_apart(pseudo: Pseudo, teacher: Logits, learner: Logits) -> Pseudo:
    apart = divergence_map(learner, teacher.float().softmax(dim=1))
    return pseudo._replace(weight=pseudo.weight * (-apart).exp())


def _pasted(paste: Paste, source: Labeled, pseudo: Pseudo) -> Pseudo:
    """The truth where it was pasted, the guess elsewhere."""
    return Pseudo(
        torch.where(paste.where, source.target, pseudo.target),
        torch.where(paste.where, 1.0, pseudo.weight),
    )
