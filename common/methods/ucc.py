"""UCC: two heads on one encoder teach each other."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import nn

from common.balance import TrueConfidence, classes_in_need
from common.batch import Batch, Image, Logits
from common.consistency import divergence_map
from common.labeling import Kit, hard, soft_pseudo_label
from common.learners import Heads, crosswise
from common.losses import AnyLoss, CrossEntropy, supervised
from common.methods.base import Card, Method, NewNetwork, Outcome
from common.mixing import Paste, drawn
from common.parts import parted
from common.schedules import Sigmoid, Weight, value_at
from common.settings import Fraction, Positive


class UCC(Method):
    """Two heads on one encoder teach each other as far as they agree, and on pasted classes [1].

    What one head says of the weak view teaches the strong view of the other, weighted by
    ``exp(-KL)``. Classes that the heads are unsure of are pasted from labeled images.

    Networks: 1 encoder with 2 decoders and heads, all learn; the first head is shipped. Forward
    passes per step: 1 on the weak view without gradient, in training mode; 1 on labeled and
    strong together.
    Divisor: all valid pixels, pasted ones among them; only valid pixels are pasted over.
    Detached: the pseudo-labels and their weights.
    Reconstructed, as there is no public code: KL, of the weak views and from teacher to learner,
    is a weight only; sureness is the mean probability of a class where it is true on labeled
    images, averaged over steps; classes are drawn in proportion to one minus that, from a labeled
    image drawn at random; labels are made before pasting; ``unlabeled_weight`` is that of CPS.

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
            views = nets.both(weak.image)
            softs = [soft_pseudo_label(view, kit, weak) for view in views]
            apart = [divergence_map(views[1 - i], softs[i].probs) for i in range(2)]
            trust = [soft.weight * (-kl).exp() for soft, kl in zip(softs, apart, strict=True)]
        pseudos = [hard(softs[i]._replace(weight=trust[i]), weak.valid) for i in range(2)]

        source, need = drawn(truth, len(weak.image)), 1 - nets.confidence.of(views[0].shape[1])
        paste = Paste(classes_in_need(source.target, need, self.pasted_classes) & weak.valid)
        strong, n = kit.strong(paste.image(source.image, weak.image)), len(truth.image)
        logits = nets.both(torch.cat([truth.image, strong]))
        nets.confidence(torch.cat([each[:n] for each in logits]), torch.cat([truth.target] * 2))
        taught = [paste.pseudo(source, pseudo) for pseudo in pseudos]
        crossed = crosswise(2, lambda i, k: self.unlabeled_loss(logits[k][n:], taught[i]))
        on_truth = [supervised(self.supervised_loss, each[:n], truth) for each in logits]
        return Outcome(
            losses={
                "supervised": torch.stack(on_truth).sum(),
                "unlabeled": value_at(self.unlabeled_weight, progress) * crossed,
            },
            pseudo=softs[0],
        )


class CoTrained(Heads):
    """A network with a second decoder and head, and how sure both are of each class."""

    confidence: TrueConfidence

    def both(self, image: Image) -> tuple[Logits, Logits]:
        """The logits of both heads."""
        features = self.student.encoder(image)
        return self.student.head(self.student.decoder(features)), self.others[0](features)
