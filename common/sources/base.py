"""What a source is."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from common.agreement import mean_by_certainty
from common.batch import Image, Logits, Probs
from common.learners import SoftVote, soft_vote
from common.parts import Parted, parted
from common.precision import full_precision
from common.settings import Settings

Combine = Literal["mean", "vote", "by_certainty"]
"""How several answers become one."""

Mirrors = Sequence[int]
"""Spatial axes, counted from 0, along which a domain takes images and their mirror images alike."""


class Source(Settings):
    """Decides how a network is asked for what becomes a pseudo-label."""

    name: str

    @abstractmethod
    def __call__(self, network: nn.Module, image: Image, mirrors: Mirrors) -> Logits:
        """The answer of ``network`` about ``image``, as logits."""

    def unfit(self, network: nn.Module, mirrors: Mirrors) -> str:
        """Why it cannot ask this network, in a sentence; empty where it can, as most do."""
        return ""


class SeveralLooks(Source):
    """Asks several times, and makes one answer of all.

    The answer is the mean of the probabilities, or the share of looks that name a class (of
    ``vote``), or the mean in which a look of low entropy counts for more (``by_certainty``,
    AD-MT). A network in training mode takes its batch-norm statistics from the first look alone.
    """

    combine: Combine = "mean"

    @abstractmethod
    def looks(self, network: nn.Module, image: Image, mirrors: Mirrors) -> Iterator[Logits]:
        """The answers; the first one is asked for before, the others after it was taken."""

    def __call__(self, network: nn.Module, image: Image, mirrors: Mirrors) -> Logits:
        looks = self.looks(network, image, mirrors)
        answers = [next(looks).float().softmax(dim=1)]
        with _statistics_kept(network):
            answers += [look.float().softmax(dim=1) for look in looks]
        return COMBINED[self.combine](torch.stack(answers)).clamp_min(1e-12).log()


class LooksInside(Source):
    """Asks once, and corrects the answer by what the network computed of each pixel.

    Of networks that vote, each is asked so.
    """

    @abstractmethod
    def corrected(self, probs: Probs, pixels: Tensor) -> Probs:
        """Better probabilities, by pixel features ``(B, F, *S')``, on the grid of ``probs``."""

    def __call__(self, network: nn.Module, image: Image, mirrors: Mirrors) -> Logits:
        if isinstance(network, SoftVote):
            return soft_vote(self(voter, image, mirrors) for voter in network.voters)
        body = parted(network)
        pixels = body.decoder(body.encoder(image))
        probs = body.head(pixels).float().softmax(dim=1)
        with full_precision(image.device):
            return self.corrected(probs, pixels.float()).clamp_min(1e-12).log()

    def unfit(self, network: nn.Module, mirrors: Mirrors) -> str:
        if any(isinstance(each, Parted) for each in network.modules()):
            return ""
        return (
            f"source {self.name!r} looks at features inside the network, but this one is in one "
            "piece. Let it be a common.parts.Parted(encoder, decoder, head), choose a network by "
            "name, or choose another source."
        )


def share_of_votes(answers: Tensor) -> Tensor:
    """For each class the share of the answers ``(looks, B, K, *S)`` that find it most probable."""
    first = answers.argmax(dim=2, keepdim=True)
    return torch.zeros_like(answers).scatter_(2, first, 1.0).mean(dim=0)


COMBINED: Mapping[Combine, Callable[[Tensor], Tensor]] = {
    "mean": lambda answers: answers.mean(dim=0),
    "vote": share_of_votes,
    "by_certainty": mean_by_certainty,
}


@contextlib.contextmanager
def _statistics_kept(network: nn.Module) -> Iterator[None]:
    """Let batch norm in training mode normalize by the batch, but not remember it."""
    tracking = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    for module in tracking:
        module.track_running_stats = False
    try:
        yield
    finally:
        for module in tracking:
            module.track_running_stats = True
