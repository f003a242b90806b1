"""Trust as much of every class as there is of it."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from common.batch import Labels, Probs, Weights
from common.errors import ConfigError
from common.filters.base import LiveFilter, SeesLabels
from common.ranking import largest
from common.schedules import Share, value_at
from common.settings import Fraction


class ClassPrior(LiveFilter):
    """Keep the surest pixels of each class, in the proportions of the labels [1].

    Of class ``c`` these are ``kept * prior_c * N`` of the ``N`` pixels of a batch, rounded down, or
    all that are predicted as ``c`` where these are fewer. So the histogram of what teaches is that
    of the prior, whatever the network prefers. Among equally sure pixels chance decides. A larger
    ratio keeps no less.

    ``prior`` is the share of each class, in the order of the classes (in any unit: their sum is
    made 1); empty, it is that of the labels seen in training so far, and before those uniform.

    Departure: [1] aligns a whole data set after a round of training, here each batch is.

    [1] He et al., DARS, ICCV 2021, arXiv:2107.11279.
    """

    name: Literal["class_prior"] = "class_prior"
    kept: Share = 0.5  # 0.4 in the first round of [1], more in later ones
    prior: tuple[Fraction, ...] = ()

    @property
    def learns(self) -> bool:
        """The prior, where none is given."""
        return not self.prior

    def start(self, num_classes: int) -> nn.Module:
        """The live filter.

        Raises:
            ConfigError: When the prior is not that of so many classes.
        """
        if problem := self.unfit(num_classes):
            raise ConfigError(problem)
        return _Aligning(self, num_classes)

    def unfit(self, num_classes: int) -> str:
        if self.prior and len(self.prior) != num_classes:
            return (
                f"method.filter.prior holds {len(self.prior)} shares, but there are {num_classes} "
                "classes. Give one for each, in the order of domain.classes, or none."
            )
        if self.prior and sum(self.prior) == 0:
            return "method.filter.prior is 0 for every class. Give some class a share, or no prior."
        return ""


class _Aligning(SeesLabels):
    pixels: Tensor  # (K,) of each class, in the prior or in labels

    def __init__(self, filter: ClassPrior, num_classes: int) -> None:
        super().__init__()
        self.filter = filter
        given = filter.prior or (0.0,) * num_classes
        self.register_buffer("pixels", torch.tensor(given, dtype=torch.float64))

    @torch.no_grad()
    def see(self, target: Labels) -> None:
        if not self.filter.prior:
            classes = torch.arange(len(self.pixels), device=target.device)
            self.pixels += (target.flatten() == classes[:, None]).sum(dim=1)

    @torch.no_grad()
    def forward(self, probs: Probs, progress: float = 1.0) -> Weights:
        confidence, label = (each.flatten() for each in probs.max(dim=1))
        classes, total, there = len(self.pixels), self.pixels.sum(), confidence > 0
        prior = torch.where(total > 0, self.pixels / total.clamp_min(1e-12), 1 / classes)
        quota = (value_at(self.filter.kept, progress) * prior * there.sum() + 1e-6).floor()
        any_turn = torch.randperm(len(label), device=label.device)
        kept = largest(confidence, torch.where(there, label, classes), quota, any_turn)
        return kept.view_as(probs[:, 0]).to(probs.dtype)
