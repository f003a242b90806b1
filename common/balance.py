"""Which classes need more: rare ones, hard ones, such that nobody is sure of.

Memories for classes, kept in buffers so that checkpoints carry them. They begin as if all
classes were alike. A memory has a slot for every class that a label map can name, since it is
made before anybody tells their number; the slots that the task lacks are never looked at.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from common.agreement import cross_table
from common.batch import IGNORE, Labels, Logits, Mask, PerClass, one_hot

SMALL = 1e-8
"""Keeps logarithms and ratios finite."""


class Rarity(nn.Module):
    """The logarithm of how many times more pixels the most frequent class has, averaged [1].

    Between 0, for the most frequent class, and 1 for the rarest. A class without a pixel counts
    as if it had one.

    Args:
        decay: Share of the memory that stays at each look.

    [1] Wang and Li, DHC, MICCAI 2023, arXiv:2307.11960, Eq. 1.
    """

    average: Tensor

    def __init__(self, decay: float) -> None:
        super().__init__()
        self.decay = decay  # beta
        self.register_buffer("average", torch.ones(IGNORE))

    @torch.no_grad()
    def forward(self, target: Labels, num_classes: int) -> PerClass:
        """How much each class counts now that ``target`` was seen; IGNORE is left out."""
        counts = cross_table(target, target, num_classes).diagonal()
        memory = self.average[:num_classes]
        times = ((counts.max() + 1) / counts.clamp_min(1)).log()
        seen = torch.where(counts.sum() > 0, _up_to_one(times), memory)
        return memory.lerp_(seen, 1 - self.decay).clone()


class Difficulty(nn.Module):
    """One minus Dice, times how much Dice falls compared to how much it rises, averaged [1].

    Between 0 and 1, for the hardest class. A class that is not in the truth keeps what is
    remembered of it.

    Args:
        decay: Share of the memory that stays at each look.
        power: Exponent of the ratio of falls to rises; 0 leaves them out.

    [1] Wang and Li, DHC, MICCAI 2023, arXiv:2307.11960, Eqs. 2-4.
    """

    dice: Tensor
    risen: Tensor
    fallen: Tensor
    missed: Tensor

    def __init__(self, decay: float, power: float) -> None:
        super().__init__()
        self.decay = decay  # 1 - 1 / tau
        self.power = power  # alpha
        for name, value in (("dice", 0.0), ("risen", 0.0), ("fallen", 0.0), ("missed", 1.0)):
            self.register_buffer(name, torch.full((IGNORE,), value))

    @torch.no_grad()
    def forward(self, predicted: Labels, truth: Labels, num_classes: int) -> PerClass:
        """How much each class counts now that ``predicted`` was held against ``truth``."""
        table = cross_table(predicted, truth, num_classes)
        there = table.sum(dim=0) > 0
        size = (table.sum(dim=0) + table.sum(dim=1)).clamp_min(1)
        dice = 2 * table.diagonal() / size

        before = self.dice[:num_classes].clone()
        change = dice - before
        steps = change * ((dice + SMALL) / (before + SMALL)).log()  # never below 0
        self._remember("risen", torch.where(change > 0, steps, 0), there)
        self._remember("fallen", torch.where(change > 0, 0, steps), there)
        self._remember("missed", 1 - dice, there)
        self.dice[:num_classes] = torch.where(there, dice, before)

        ratio = (self.fallen + SMALL) / (self.risen + SMALL)
        return _up_to_one((ratio**self.power * self.missed)[:num_classes])

    def _remember(self, name: str, seen: PerClass, there: Tensor) -> None:
        memory = self.get_buffer(name)[: len(seen)]
        memory.lerp_(torch.where(there, seen, memory), 1 - self.decay)


class TrueConfidence(nn.Module):
    """The mean probability of each class where it is true, averaged over looks.

    Args:
        decay: Share of the memory that stays at each look.
    """

    average: Tensor

    def __init__(self, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("average", torch.zeros(IGNORE))

    def of(self, num_classes: int) -> PerClass:
        """What is remembered, in [0, 1]."""
        return self.average[:num_classes].clone()

    @torch.no_grad()
    def forward(self, logits: Logits, truth: Labels) -> PerClass:
        """The same after a look at ``logits``; a class that is not in ``truth`` stays."""
        num_classes = logits.shape[1]
        mine = one_hot(truth, num_classes)
        count = mine.movedim(1, 0).flatten(1).sum(dim=1)
        total = (mine * logits.float().softmax(dim=1)).movedim(1, 0).flatten(1).sum(dim=1)
        memory = self.average[:num_classes]
        memory.lerp_(torch.where(count > 0, total / count.clamp_min(1), memory), 1 - self.decay)
        return memory.clone()


def classes_in_need(truth: Labels, need: PerClass, count: int) -> Mask:
    """The pixels of up to ``count`` of the classes of each label map; never IGNORE.

    Classes are drawn without putting back, in proportion to ``need``, among those there.
    """
    flat = torch.where(truth == IGNORE, len(need), truth).flatten(1)
    there = torch.zeros((len(flat), len(need) + 1), dtype=torch.bool, device=flat.device)
    there.scatter_(1, flat, torch.ones_like(flat, dtype=torch.bool))
    there = there[:, :-1]
    gumbel = -torch.empty(there.shape, device=flat.device).exponential_().log()
    keys = torch.where(there, need.clamp_min(SMALL).log() + gumbel, -torch.inf)
    rank = keys.argsort(dim=1, descending=True).argsort(dim=1)
    chosen = there & (rank < count)
    chosen = torch.cat([chosen, torch.zeros_like(chosen[:, :1])], dim=1)
    return chosen.gather(1, flat).view_as(truth)


def _up_to_one(weights: PerClass) -> PerClass:
    """``weights`` divided by their largest; all 1 where that is 0."""
    largest = weights.max()
    return torch.where(largest > 0, weights / largest, 1.0)
