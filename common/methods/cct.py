"""Cross-consistency training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, ClassVar, Literal, TypeAlias

import torch
from pydantic import Field
from torch import nn

from common import perturb
from common.batch import Batch, Mask
from common.consistency import consistency
from common.labeling import Kit, soft_pseudo_label
from common.learners import Heads, decoded, encoded
from common.losses import supervised
from common.methods.base import Card, Method, NewNetwork, Outcome
from common.parts import Features, parted
from common.schedules import Sigmoid, Weight, value_at

Perturbation: TypeAlias = Literal["noise", "channels", "strongest", "cut_out", "context", "objects"]
PERTURBATIONS: Mapping[Perturbation, Callable[[Features, Mask], Features]] = {
    "noise": lambda features, objects: perturb.feature_noise(features, 0.3),
    "channels": lambda features, objects: perturb.channel_dropout(features, 0.5),
    "strongest": lambda features, objects: perturb.without_strongest(features, 0.6, 0.9),
    "cut_out": lambda features, objects: perturb.without_box(features, objects, 0.4),
    "context": lambda features, objects: perturb.only_where(features, objects),
    "objects": lambda features, objects: perturb.only_where(features, ~objects),
}
"""What is done to features; ``objects`` are the pixels predicted as another class than 0."""


class CCT(Method):
    """Auxiliary decoders learn from perturbed features what the main one says of whole ones [1].

    Each of ``perturbations`` has a decoder and head of its own. ``noise`` multiplies features by
    0.7 to 1.3, ``channels`` drops half of them, ``strongest`` the places most active, ``cut_out``
    a box within the objects, ``context`` keeps the objects alone, ``objects`` all but them.

    Networks: 1 with 1 + n decoders and heads, of which the main ones are shipped. Forward passes
    per step: 1 of encoder and main decoder on labeled and weak images together; 1 of each other
    decoder on weak.
    Divisor: the sum of trust (all valid pixels, unless a filter drops some), the classes and the
    decoders. Detached: the main decoder's probabilities, so labeled images alone teach it.
    Departures: [1] has several decoders of each kind, 30 in all, two of them on virtual
    adversarial features, which are not among these. It perturbs one map, the encoder's last; here
    all maps that the decoder sees. It cuts a box out of each connected object; here one out of
    all objects of an image, whose box needs no search on the host. Class 0 is the context.

    [1] Ouali et al., CCT, CVPR 2020, arXiv:2003.09005, Sec. 3, and the authors' code.
    """

    card: ClassVar[Card] = Card(
        paper="CCT",
        year=2020,
        family="heads",
        networks="1 with 7 decoders; 1",
        forwards="1, and 1 of each further decoder",
        needs="features",
    )

    name: Literal["cct"] = "cct"
    unlabeled_weight: Weight = Sigmoid(end=30.0, until=0.1)  # omega_u
    perturbations: Annotated[tuple[Perturbation, ...], Field(min_length=1)] = (*PERTURBATIONS,)

    def networks(self, new_network: NewNetwork) -> Heads:
        student = parted(new_network())
        fresh = (parted(new_network()) for _ in self.perturbations)
        return Heads(student, (nn.Sequential(each.decoder, each.head) for each in fresh))

    def losses(self, nets: Heads, batch: Batch, kit: Kit, progress: float) -> Outcome:
        truth, weak = batch.labeled, batch.unlabeled

        of_truth, of_weak = encoded(nets.student, truth.image, weak.image)
        on_truth, on_weak = decoded(nets.student, of_truth, of_weak)
        pseudo = soft_pseudo_label(on_weak, kit, weak)
        objects = (pseudo.predicted != 0) & weak.valid

        lessons = [
            consistency(decoder(PERTURBATIONS[kind](of_weak, objects)), pseudo)
            for kind, decoder in zip(self.perturbations, nets.others, strict=True)
        ]
        weight = value_at(self.unlabeled_weight, progress)
        return Outcome(
            losses={
                "supervised": supervised(self.supervised_loss, on_truth, truth),
                "unlabeled": weight * torch.stack(lessons).mean(),
            },
            pseudo=pseudo,
        )
