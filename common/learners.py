"""Who predicts and who learns: one network, a teacher and its student, or several peers."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from common.batch import Image, Logits, SomeImage, SomeLogits
from common.parts import Parted


class Networks(nn.Module):
    """The networks of one method. Everything that training changes lives in here."""

    @property
    @abstractmethod
    def predictor(self) -> nn.Module:
        """The network to validate, test and ship: ``(B, C, *S)`` to logits ``(B, K, *S)``."""

    def after_step(self, step: int) -> None:
        """Follow optimizer step ``step``, counted from 0. Most networks have nothing to do."""


class Solo(Networks):
    """One network, teaching itself."""

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.student = student

    @property
    def teacher(self) -> nn.Module:
        """The student itself."""
        return self.student

    @property
    def predictor(self) -> nn.Module:
        return self.student


class TeacherStudent(Networks):
    """A student, and the slow average of its past selves [1].

    The teacher's float buffers (batch-norm statistics) follow by the same average, its
    integer buffers are copied, so that it may predict in evaluation mode. It starts as a
    copy of the student and follows closely while young: decay = min(decay, 1 - 1/(step+1)).

    [1] Tarvainen and Valpola, Mean teachers, 2017, arXiv:1703.01780, Sec. 2.
    """

    def __init__(self, student: nn.Module, decay: float) -> None:
        super().__init__()
        self.student = student
        self.teacher = copy.deepcopy(student).requires_grad_(False).eval()
        self.decay = decay  # alpha

    @property
    def predictor(self) -> nn.Module:
        return self.teacher

    def train(self, mode: bool = True) -> TeacherStudent:
        """Put the student in training mode; the teacher always predicts as in a test."""
        super().train(mode)
        self.teacher.eval()
        return self

    def after_step(self, step: int) -> None:
        """Move the teacher towards the student."""
        follow(self.teacher, self.student, min(self.decay, 1 - 1 / (step + 1)))


class Peers(Networks):
    """Networks that differ only in where they started (or in what they are)."""

    def __init__(self, peers: Iterable[nn.Module]) -> None:
        super().__init__()
        self.peers = nn.ModuleList(peers)

    @property
    def predictor(self) -> nn.Module:
        return SoftVote(self.peers)


class Heads(Networks):
    """One network, and more heads (or decoders) on what its parts compute."""

    def __init__(self, student: Parted, others: Iterable[nn.Module]) -> None:
        super().__init__()
        self.student = student
        self.others = nn.ModuleList(others)

    @property
    def predictor(self) -> Parted:
        return self.student


class SoftVote(nn.Module):
    """Several networks as one: the logarithm of their mean class probability."""

    def __init__(self, voters: nn.ModuleList) -> None:
        super().__init__()
        self.voters = voters

    def forward(self, image: Image) -> Logits:
        votes = torch.stack([voter(image).float().softmax(dim=1) for voter in self.voters])
        return votes.mean(dim=0).clamp_min(1e-12).log()


def together(network: nn.Module, *images: SomeImage) -> tuple[SomeLogits, ...]:
    """The logits of several batches in one forward pass: one set of batch-norm statistics."""
    logits: SomeLogits = network(torch.cat(images))
    return torch.split(logits, [image.shape[0] for image in images])


@torch.no_grad()
def follow(slow: nn.Module, fast: nn.Module, decay: float) -> None:
    """Set ``slow`` to ``decay * slow + (1 - decay) * fast``; integer buffers are copied.

    One fused kernel per kind of tensor, no host synchronization.
    """
    pairs = [*zip(_state(slow), _state(fast), strict=True)]
    floats = [(s, f) for s, f in pairs if s.is_floating_point()]
    torch._foreach_lerp_([s for s, _ in floats], [f for _, f in floats], 1 - decay)
    for held, seen in pairs:
        if not held.is_floating_point():
            held.copy_(seen)


def _state(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]
