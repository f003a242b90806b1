"""Uncertainty rectified pyramid consistency."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field

from common.batch import Batch, Image, Logits, Mask, Scalar, SoftPseudo
from common.labeling import Kit
from common.learners import Heads
from common.losses import supervised
from common.methods.base import Card, Method, NewNetwork, Outcome
from common.parts import coarser, on_grid, parted, pixel_head
from common.schedules import Sigmoid, Weight, value_at


class URPC(Method):
    """Predictions at several scales agree with their mean, the less so where they are torn [1].

    The scales: the network's own prediction, and for each ``s`` up to ``coarser_scales`` one 1x1
    convolution on the pixel features averaged over ``2^s`` pixels along each axis, interpolated
    to the grid of the image. All networks have pixel features, so this is the same on every one.

    Networks: 1 with 4 heads, of which the network's own is shipped. Forward passes per step: 1,
    on labeled and weak images together.
    Divisor: for squares the sum of ``exp(-KL)`` over valid pixels, and the classes; for KL all
    valid pixels; the scales. Detached: nothing, neither the mean nor the weights.
    Departures: in [1, 2] the heads sit on the levels of the decoder, with dropout or noise; the
    authors' code [2] has KL(mean || scale), [1] and this KL(scale || mean). The authors halve
    the supervised loss and ramp to 0.1, here it is whole and the ramp ends at 0.2.

    [1] Luo et al., URPC, Medical Image Analysis 2022, arXiv:2012.07042, Sec. 3.
    [2] github.com/HiLab-git/SSL4MIS, train_uncertainty_rectified_pyramid_consistency_3D.py.
    """

    card: ClassVar[Card] = Card(
        paper="URPC",
        year=2021,
        family="heads",
        networks="1 with 4 heads; 1",
        forwards="1",
        needs="features",
    )
    makes_pseudo_labels: ClassVar[bool] = False

    name: Literal["urpc"] = "urpc"
    unlabeled_weight: Weight = Sigmoid(end=0.2, until=1.0)  # lambda, beside a whole L_sup
    coarser_scales: Annotated[int, Field(ge=1)] = 3  # S - 1

    def networks(self, new_network: NewNetwork) -> Heads:
        student = parted(new_network())
        heads = (pixel_head(student, student.num_classes) for _ in range(self.coarser_scales))
        return Heads(student, heads)

    def losses(self, nets: Heads, batch: Batch, kit: Kit, progress: float) -> Outcome:
        truth, weak = batch.labeled, batch.unlabeled
        image = torch.cat([truth.image, weak.image])

        counts = [len(truth.image), len(weak.image)]
        scales = [torch.split(each, counts) for each in _pyramid(nets, image)]
        lessons = [supervised(self.supervised_loss, on_truth, truth) for on_truth, _ in scales]
        torn = [on_weak.float() for _, on_weak in scales]
        mean = torch.stack([logits.softmax(dim=1) for logits in torn]).mean(dim=0)
        pulls = [rectified(logits, mean, weak.valid) for logits in torn]

        weight = value_at(self.unlabeled_weight, progress)
        return Outcome(
            losses={
                "supervised": torch.stack(lessons).mean(),
                "unlabeled": weight * torch.stack(pulls).mean(),
            },
            pseudo=SoftPseudo(mean.detach(), weak.valid.float()),
        )


def rectified(logits: Logits, mean: Logits, valid: Mask) -> Scalar:
    """Squares to ``mean``, weighted by ``exp(-KL)``, and the KL itself [1, Eqs. 4-6]."""
    probs = logits.softmax(dim=1)
    surprise = logits.log_softmax(dim=1) - mean.clamp_min(1e-12).log()
    divergence = (probs * surprise).sum(dim=1)
    trust = (-divergence).exp() * valid
    squares = ((probs - mean).square().mean(dim=1) * trust).sum() / trust.sum().clamp_min(1e-8)
    return squares + (divergence * valid).sum() / valid.sum().clamp_min(1)


def _pyramid(nets: Heads, image: Image) -> list[Logits]:
    pixels = nets.student.decoder(nets.student.encoder(image))
    further = (
        on_grid(head(coarser(pixels, 2**scale)), image)
        for scale, head in enumerate(nets.others, start=1)
    )
    return [nets.student.head(pixels), *further]
