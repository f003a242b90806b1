"""RRN: two peers teach each other where discriminators judge their regions right."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch

from common.batch import Batch, Pseudo, Verdicts
from common.labeling import Kit, pseudo_label
from common.learners import crosswise, together
from common.localizer import Localizer
from common.losses import AnyLoss, CrossEntropy, supervised
from common.methods.base import Card, Method, NewNetwork, Outcome
from common.mixing import AnyMix, NoMix
from common.parts import parted
from common.regions import JudgedPeers, disputed, on_pixels, pull
from common.schedules import Share, Sigmoid, Weight, value_at
from common.settings import Positive


class RRN(Method):
    """Peers teach each other regions that a discriminator judges right, the reliable one more [1].

    The discriminator of a peer learns on labeled images what share of each region the peer gets
    right; regions below ``threshold`` teach nothing. Then both discriminators rate both peers, and
    the region of a teacher counts ``1 - d + d t / (t + l)``, for the mean ratings ``t`` of teacher
    and ``l`` of learner, and the share ``d`` of the region in which they name different classes.

    Networks: 2 peers, and for each a small plain network as in ELN; all learn; the mean of the
    peers' probabilities predicts. Forward passes per step: 2 on the weak view without gradient, in
    training mode; 2 on labeled and strong together; 2 of discriminators on labeled, and 4 without
    gradient on the weak view.
    Divisor: all valid pixels, kept or not; for discriminators annotated ones.
    Detached: the pseudo-labels, their trust, and predictions that discriminators see.
    Reconstructed from the abstract of [1], whose text was not at hand, and from [2], a release of
    the authors that has other rules: there discriminators learn to tell truth from predictions,
    judge whole images, and what they pass teaches the peer that said so, once more if the other
    discriminator passes it too, beside unfiltered CPS; features are matched. Ours are what
    discriminators learn and both formulas; that both rate both, 0.6 and 16 pixels are as in [2].

    [1] Chen et al., RRN, 2023, arXiv:2304.11539.
    [2] github.com/NUST-Machine-Intelligence-Laboratory/TorchSemiSeg2.
    """

    card: ClassVar[Card] = Card(
        paper="RRN",
        year=2023,
        family="learned correction",
        networks="2 with a small one each; all",
        forwards="2, 2 of the small ones, + 4 without gradient",
        needs="features",
    )
    takes_partners: ClassVar[bool] = True

    name: Literal["rrn"] = "rrn"
    unlabeled_loss: AnyLoss = CrossEntropy()
    unlabeled_weight: Weight = Sigmoid(end=1.5, until=0.2)  # as in CPS
    discriminator_weight: Weight = 1.0
    threshold: Share = 0.6  # of a region that must be right
    region_pixels: Positive = 16  # along each axis
    width: Positive = 8  # channels of a discriminator's finest level
    mix: AnyMix = NoMix()

    def networks(self, new_network: NewNetwork) -> JudgedPeers:
        peers = [parted(new_network(peer)) for peer in range(2)]
        return JudgedPeers(peers, (Localizer(peer, self.width) for peer in peers))

    def losses(self, nets: JudgedPeers, batch: Batch, kit: Kit, progress: float) -> Outcome:
        truth, weak = batch.labeled, batch.unlabeled

        with torch.no_grad():
            beliefs = [peer(weak.image) for peer in nets.peers]
            pseudos = [pseudo_label(belief, kit, weak) for belief in beliefs]
            verdicts = nets.verdicts(beliefs, weak, pixels=self.region_pixels)
        taught = self._weighed(pseudos, verdicts, value_at(self.threshold, progress))
        strong, cut = kit.strong(weak.image), self.mix.draw(weak.image, taught[0], progress)
        views = [together(peer, truth.image, cut.image(strong)) for peer in nets.peers]
        mixed = [cut.pseudo(pseudo) for pseudo in taught]
        crossed = crosswise(2, lambda i, k: self.unlabeled_loss(views[k][1], mixed[i]))

        judged = nets.judgements([said for said, _ in views], truth, pixels=self.region_pixels)
        on_truth = [supervised(self.supervised_loss, said, truth) for said, _ in views]
        return Outcome(
            losses={
                "supervised": torch.stack(on_truth).sum(),
                "supervised_discriminators": value_at(self.discriminator_weight, progress) * judged,
                "unlabeled": value_at(self.unlabeled_weight, progress) * crossed,
            },
            pseudo=taught[0],
        )

    def _weighed(self, pseudos: list[Pseudo], rated: Verdicts, least: float) -> list[Pseudo]:
        """What each peer teaches the other one: local selection times dynamic weight."""
        dispute, by_both = disputed(*pseudos, pixels=self.region_pixels), rated.mean(dim=0)
        return [
            mine._replace(weight=mine.weight * on_pixels(trust, mine.weight))
            for i, mine in enumerate(pseudos)
            for trust in [(rated[i, i] >= least) * pull(by_both[i], by_both[1 - i], dispute)]
        ]
