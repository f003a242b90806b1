"""CorrMatch: labels flow along how alike the places of an image are."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch

from common.batch import IGNORE, Batch
from common.consistency import divergence_map
from common.correlation import Correlating, propagated
from common.filters import AnyFilter, EmaGlobal
from common.labeling import Kit, hard, soft_pseudo_label
from common.learners import Solo, encoded
from common.losses import AnyLoss, CrossEntropy, supervised
from common.methods.base import Card, Method, NewNetwork, Outcome
from common.mixing import AnyMix, CutMix
from common.parts import parted
from common.perturb import channel_dropout
from common.schedules import Weight, value_at
from common.settings import Fraction, Positive


class CorrMatch(Method):
    """Spread confident labels to pixels that a correlation map holds to be alike [1].

    Networks: 1, with a head that correlates places. Forward passes per step: 1 of the encoder
    on labeled and weak, decoded with the weak features once more, channels dropped; 1 on the
    strong view. Divisor: all valid pixels of a view. Detached: pseudo-labels, regions, and the
    logits that flow along the map. Batch norm: in training mode, strong apart from the others.
    Departures from the authors' code: places are cells of decoder features; regions spread
    before mixing, over whole images and all at once, by a fixed ``agreement`` instead of the
    bound of the filter; the target of the divergence is mixed as its input and trust are; the
    bound judges the images whose valid pixels it reads, and survives a restart; a partner is
    never the image itself, and labeled in the same pass.

    [1] Sun et al., CorrMatch, CVPR 2024, arXiv:2306.04300, Eqs. 1-12.
    """

    card: ClassVar[Card] = Card(
        paper="CorrMatch",
        year=2024,
        family="teacher and student",
        networks="1; 1",
        forwards="2",
        needs="features",
    )

    name: Literal["corr_match"] = "corr_match"
    filter: AnyFilter = EmaGlobal()
    unlabeled_loss: AnyLoss = CrossEntropy()
    hard_weight: Weight = 0.25
    soft_weight: Weight = 0.25  # of the divergence
    feature_weight: Weight = 0.25
    correlation_weight: Weight = 0.25
    agreement: Fraction = 0.85
    regions: Positive = 128
    places: Positive = 512  # cells of a map at most
    size: Positive = 64  # numbers that a place is compared by
    dropout: Fraction = 0.5  # of the channels of each map
    mix: AnyMix = CutMix(share_low=0.02, share_high=0.4, chance=0.5)

    def networks(self, new_network: NewNetwork) -> Solo:
        return Solo(Correlating(parted(new_network()), places=self.places, size=self.size))

    def losses(self, nets: Solo, batch: Batch, kit: Kit, progress: float) -> Outcome:
        truth, weak, network = batch.labeled, batch.unlabeled, nets.student
        assert isinstance(network, Correlating)
        teach, sizes = self.unlabeled_loss, [len(truth.image), *[len(weak.image)] * 2]

        seen, weakly = encoded(network, truth.image, weak.image)
        levels = zip(seen, weakly, channel_dropout(weakly, self.dropout), strict=True)
        pixels = network.decoder(tuple(map(torch.cat, levels)))
        on_truth, on_weak, on_dropped = torch.split(network.head(pixels), sizes)
        of_truth, of_weak, _ = map(network.correlation, torch.split(pixels, sizes))

        soft = soft_pseudo_label(on_weak, kit, weak)
        sure = hard(soft, weak.valid)
        regions = of_weak.regions(self.regions, weak.image)
        pseudo = propagated(sure, regions, network.num_classes, agreement=self.agreement)
        cut = self.mix.draw(weak.image, sure, progress)
        taught, belief = cut.pseudo(pseudo), cut.pseudo(soft)

        pixels = network.decoder(network.encoder(cut.image(kit.strong(weak.image))))
        on_mixed, of_mixed = network.head(pixels), network.correlation(pixels)
        drift = (divergence_map(on_mixed, belief.probs) * belief.weight).sum()
        flowed = teach(of_mixed.spread(on_mixed), taught)
        flowed = flowed + teach(of_weak.spread(on_weak), sure)
        terms = {
            "hard": (self.hard_weight, teach(on_mixed, taught)),
            "soft": (self.soft_weight, drift / (taught.target != IGNORE).sum().clamp_min(1)),
            "feature": (self.feature_weight, teach(on_dropped, sure)),
            "correlation": (self.correlation_weight, flowed / 2),
        }
        on_both = {"supervised": on_truth, "supervised_correlation": of_truth.spread(on_truth)}
        losses = {k: supervised(self.supervised_loss, v, truth) / 4 for k, v in on_both.items()}
        for name, (weight, term) in terms.items():
            losses[name] = value_at(weight, progress) * term / 2
        return Outcome(losses=losses, pseudo=pseudo)
