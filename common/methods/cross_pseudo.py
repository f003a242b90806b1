"""Cross pseudo supervision, between two or more peers."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field

from common.batch import Batch
from common.labeling import Kit, pseudo_label
from common.learners import Peers, crosswise, together
from common.losses import AnyLoss, CrossEntropy, supervised
from common.methods.base import Card, Method, NewNetwork, Outcome
from common.mixing import AnyMix, NoMix
from common.schedules import Sigmoid, Weight, value_at


class CrossPseudo(Method):
    """Each peer learns what every other peer predicts [1], for ``num_peers`` peers [2].

    Networks: n, all learn; the mean of their probabilities predicts [2] ([1] ships one branch).
    Forward passes per step: n on the weak view without gradient, in training mode; n on labeled
    and strong together.
    Divisor: all valid pixels, and n - 1 [2]; with two peers that is [1].
    Detached: the pseudo-labels.
    Departure: a peer learns from the domain's strong view of the image that the others labeled
    in its weak view, and a ramp eases the early steps; [1] gives all the same view. With
    ``mix``, labels are made on the two unmixed images, as in [1], Sec. 3.3.

    [1] Chen et al., CPS, CVPR 2021, arXiv:2106.01226, Eqs. 1-3.
    [2] Filipiak et al., n-CPS, 2021, arXiv:2112.07528, Eqs. 3-5.
    """

    card: ClassVar[Card] = Card(
        paper="CPS, n-CPS; CTCT with partners",
        year=2021,
        family="mutual",
        networks="n; n",
        forwards="n + n without gradient",
    )
    takes_source: ClassVar[bool] = True
    takes_partners: ClassVar[bool] = True

    name: Literal["cross_pseudo"] = "cross_pseudo"
    num_peers: Annotated[int, Field(ge=2)] = 2  # n
    unlabeled_loss: AnyLoss = CrossEntropy()
    unlabeled_weight: Weight = Sigmoid(end=1.5, until=0.2)  # lambda
    mix: AnyMix = NoMix()

    def networks(self, new_network: NewNetwork) -> Peers:
        return Peers(new_network(peer) for peer in range(self.num_peers))

    def losses(self, nets: Peers, batch: Batch, kit: Kit, progress: float) -> Outcome:
        truth, weak = batch.labeled, batch.unlabeled

        with torch.no_grad():
            pseudos = [pseudo_label(kit.ask(peer, weak.image), kit, weak) for peer in nets.peers]
        strong, cut = kit.strong(weak.image), self.mix.draw(weak.image, pseudos[0], progress)
        views = [together(peer, truth.image, cut.image(strong)) for peer in nets.peers]

        taught = [cut.pseudo(pseudo) for pseudo in pseudos]
        cross = crosswise(
            self.num_peers,
            lambda teacher, learner: self.unlabeled_loss(views[learner][1], taught[teacher]),
        )
        weight = value_at(self.unlabeled_weight, progress)
        return Outcome(
            losses={
                "supervised": torch.stack(
                    [supervised(self.supervised_loss, on_truth, truth) for on_truth, _ in views]
                ).sum(),
                "unlabeled": weight * cross,
            },
            pseudo=pseudos[0],
        )
