"""UniMatch, the first version."""

from __future__ import annotations

from typing import ClassVar, Literal

from common.batch import Batch
from common.filters import AnyFilter, Confidence
from common.labeling import Kit, pseudo_label
from common.learners import Solo, decoded, encoded, together
from common.losses import AnyLoss, CrossEntropy, supervised
from common.methods.base import Card, Method, NewNetwork, Outcome
from common.mixing import AnyMix, CutMix
from common.parts import parted
from common.perturb import channel_dropout
from common.schedules import Weight, value_at
from common.settings import Fraction


class UniMatch(Method):
    """Teach two strong views and dropped-out features what the weak view is sure of [1].

    Each strong view is cut and mixed for itself. CAFS is this method with the filter
    class_calibrated, whose ``oversampling`` is 10 there.

    Networks: 1. Forward passes per step: 1 of the encoder on labeled and weak, whose features
    are decoded in one pass with those of the weak view again, channels dropped out of every map;
    1 on both strong views. Divisor: all valid pixels of a view, kept or not. Detached: the
    pseudo-label; where it is made, the decoder gets no gradient. Batch norm: in training mode;
    labeled, weak and dropped share one set of statistics, the strong views another.
    Departures from the authors' code: the partner of a mix is another image of the batch, never
    the image itself, and its pseudo-label is the one it learns from (there: of a second loader
    that may bring the same image, labeled in evaluation mode). Dropped features of labeled
    images, which nothing learns from, are not decoded. There, features are the two maps that
    DeepLabV3+ decodes; here, all that the network at hand decodes.

    [1] Yang et al., UniMatch, CVPR 2023, arXiv:2208.09910, Eq. 7 and Algorithm 1.
    """

    card: ClassVar[Card] = Card(
        paper="UniMatch; CAFS with filter class_calibrated",
        year=2023,
        family="teacher and student",
        networks="1; 1",
        forwards="2",
        needs="features",
    )

    name: Literal["unimatch"] = "unimatch"
    filter: AnyFilter = Confidence(threshold=0.95)  # tau
    unlabeled_loss: AnyLoss = CrossEntropy()
    strong_weight: Weight = 0.5  # mu, half of it for each view
    feature_weight: Weight = 0.5  # lambda
    dropout: Fraction = 0.5  # of the channels of each map
    mix: AnyMix = CutMix(share_low=0.02, share_high=0.4, chance=0.5)

    def networks(self, new_network: NewNetwork) -> Solo:
        return Solo(parted(new_network()))

    def losses(self, nets: Solo, batch: Batch, kit: Kit, progress: float) -> Outcome:
        truth, weak, network = batch.labeled, batch.unlabeled, parted(nets.student)

        of_truth, of_weak = encoded(network, truth.image, weak.image)
        dropped = channel_dropout(of_weak, self.dropout)
        on_truth, on_weak, on_dropped = decoded(network, of_truth, of_weak, dropped)
        pseudo = pseudo_label(on_weak, kit, weak)

        one, other = (self.mix.draw(weak.image, pseudo, progress) for _ in range(2))
        views = (cut.image(kit.strong(weak.image)) for cut in (one, other))
        on_one, on_other = together(network, *views)

        teach = self.unlabeled_loss
        strong = teach(on_one, one.pseudo(pseudo)) + teach(on_other, other.pseudo(pseudo))
        feature = teach(on_dropped, pseudo)
        return Outcome(
            losses={
                "supervised": supervised(self.supervised_loss, on_truth, truth) / 2,
                "strong": value_at(self.strong_weight, progress) / 2 * strong / 2,
                "feature": value_at(self.feature_weight, progress) * feature / 2,
            },
            pseudo=pseudo,
        )
