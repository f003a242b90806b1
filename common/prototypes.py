"""Prototypes: a few typical descriptions of each class, and a prediction by likeness to them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.batch import IGNORE, Image, Logits, Pseudo
from common.contrast import Lattice, Sample, draw
from common.learners import TeacherStudent
from common.parts import Parted
from common.precision import full_precision
from common.schedules import Schedule

SHORTEST = 1e-4
"""Length of a description below which its direction counts less, so that gradients stay finite."""


class Prototypes(nn.Module):
    """``M`` prototypes of each class, in buffers: checkpoints carry them.

    A class starts from random members, and then each prototype is a slow average of the members
    that are more like it than like the others of their class. While young it follows closely,
    decay = min(decay, n / (n + 1)) at its update ``n``, counted from 0: the first is a step of
    k-means. Nothing is learned, and no gradient flows into it. Of several processes, all go on
    with what the first one saw.

    Args:
        shape: ``(K, M, F)``: classes, prototypes of each, numbers that describe a pixel.
        decay: Share of itself that a prototype keeps in each step.
        temperature: Of the predictions.
    """

    held: Tensor  # (K, M, F)
    updates: Tensor  # (K, M)
    started: Tensor  # (K,)

    def __init__(self, shape: tuple[int, int, int], *, decay: float, temperature: float) -> None:
        super().__init__()
        self.decay, self.temperature = decay, temperature
        self.register_buffer("held", torch.zeros(shape))
        self.register_buffer("updates", torch.zeros(shape[:2], dtype=torch.int64))
        self.register_buffer("started", torch.zeros(shape[0], dtype=torch.bool))

    def forward(self, pixels: Image) -> Logits:
        """Cosines to the nearest prototype of each class, by temperature.

        A class that has not started is as unlike as can be.

        Args:
            pixels: Descriptions ``(B, F, *T)``.

        Returns:
            ``(B, K, *T)``.
        """
        rows = pixels.movedim(1, -1)
        likest = self._cosines(rows.flatten(0, -2)).amax(dim=1)  # (K, N)
        absent = ~self.started[:, None]
        logits = torch.where(absent, -1.0, likest) / self.temperature
        return logits.T.view(*rows.shape[:-1], len(logits)).movedim(-1, 1)

    def meet(self, pixels: Tensor, at: Lattice, seen: Sample) -> Logits:
        """Predict pixels at a lattice; new classes start before, and all follow after it.

        Args:
            pixels: Descriptions ``(B, F, *S')`` of any resolution.
            at: Which of them are looked at.
            seen: What they are. Classes start in labeled images only.
        """
        rows, members = at.rows(pixels.detach()), seen.members(len(self.held))
        self.start(rows, members & ~seen.unlabeled)
        logits: Logits = self(at.of(pixels))
        self.follow(rows, members)
        return logits

    @torch.no_grad()
    def start(self, rows: Tensor, members: Tensor) -> None:
        """Classes that have not started take random members, where there are any.

        Args:
            rows: Descriptions ``(N, F)``.
            members: ``(K, N)``, which of them stand for which class.
        """
        fresh = members.any(dim=1) & ~self.started
        drawn = rows.float()[draw(members, self.held.shape[1])]
        self.held.copy_(torch.where(fresh[:, None, None], drawn, self.held))
        self.started |= fresh

    @torch.no_grad()
    def follow(self, rows: Tensor, members: Tensor) -> None:
        """Move each prototype towards the mean of the members that are nearest to it."""
        nearest = self._cosines(rows).argmax(dim=1)  # (K, N)
        number = torch.arange(self.held.shape[1], device=rows.device)[:, None]
        mine = (nearest[:, None] == number) & (members & self.started[:, None])[:, None]
        count = mine.sum(dim=2)
        with full_precision(rows.device):
            means = mine.float() @ rows.float() / count[..., None].clamp_min(1)
        pace = (1 / (self.updates + 1)).clamp_min(1 - self.decay) * (count > 0)
        self.held.lerp_(means, pace[..., None].to(means.dtype))
        self.updates += count > 0

    def known(self, pseudo: Pseudo) -> Pseudo:
        """``pseudo`` without trust in classes that have not started: no prototype is theirs."""
        here = pseudo.target != IGNORE
        started = self.started[torch.where(here, pseudo.target, 0)]
        return pseudo._replace(weight=pseudo.weight * started)

    @torch.no_grad()
    def forget(self) -> None:
        """Let every class start anew."""
        self.started.zero_()
        self.updates.zero_()

    def _cosines(self, rows: Tensor) -> Tensor:
        """Of rows ``(N, F)`` with each prototype, ``(K, M, N)``."""
        with full_precision(rows.device):
            held = F.normalize(self.held, dim=2)  # a copy: what is held goes on, in place
            return held @ F.normalize(rows.float(), dim=1, eps=SHORTEST).T


class Comparing(TeacherStudent):
    """A teacher, a student, and prototypes of the student's pixel features."""

    student: Parted
    teacher: Parted

    def __init__(self, student: Parted, decay: float | Schedule, prototypes: Prototypes) -> None:
        super().__init__(student, decay)
        self.prototypes = prototypes
