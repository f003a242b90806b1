"""Who predicts and who learns: one network, a teacher and its student, or several peers."""

from __future__ import annotations

import copy
import random
from abc import abstractmethod
from collections.abc import Callable, Iterable
from itertools import permutations

import torch
from torch import Tensor, nn

from common.batch import Image, Logits, Scalar, SomeImage, SomeLogits
from common.parts import Features, Parted
from common.schedules import Schedule, value_at


class Networks(nn.Module):
    """The networks of one method. Everything that training changes lives in here."""

    @property
    @abstractmethod
    def predictor(self) -> nn.Module:
        """The network to validate, test and ship: ``(B, C, *S)`` to logits ``(B, K, *S)``."""

    @property
    def opinions(self) -> tuple[nn.Module, ...]:
        """Those who teach and who learn from them; none where a network teaches itself."""
        return ()

    def after_step(self, step: int, progress: float = 1.0) -> None:
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

    def __init__(self, student: nn.Module, decay: float | Schedule) -> None:
        super().__init__()
        self.student = student
        self.teacher = copy.deepcopy(student).requires_grad_(False).eval()
        self.decay = decay  # alpha

    @property
    def predictor(self) -> nn.Module:
        return self.teacher

    @property
    def opinions(self) -> tuple[nn.Module, ...]:
        return self.teacher, self.student

    def train(self, mode: bool = True) -> TeacherStudent:
        """Put the student in training mode; the teacher always predicts as in a test."""
        super().train(mode)
        self.teacher.eval()
        return self

    def after_step(self, step: int, progress: float = 1.0) -> None:
        """Move the teacher towards the student."""
        decay = value_at(self.decay, progress)
        follow(self.teacher, self.student, min(decay, 1 - 1 / (step + 1)))


class TeachersStudent(Networks):
    """A student, and several slow averages of its past selves that move by turns [1, 2].

    While young, that is until 1 - 1/(step+1) reaches ``decay``, all teachers follow as in
    :class:`TeacherStudent`, so that none of them ever predicts from random weights. From there
    on only the one whose turn it is moves. Buffers follow as there; all teachers predict in
    evaluation mode, and the mean of their probabilities is what is shipped [1].

    Args:
        student: The network that learns.
        decay: Share of itself that a teacher keeps when it moves.
        turn: Which teacher moves at a step: a function of nothing else, so that a run may stop
            and go on anywhere, and several processes agree.
        teachers: How many.

    [1] Liu et al., PS-MT, CVPR 2022, arXiv:2111.12903.
    [2] Zhao et al., AD-MT, ECCV 2024, arXiv:2311.17325.
    """

    turn: Tensor

    def __init__(
        self,
        student: nn.Module,
        decay: float | Schedule,
        *,
        turn: Callable[[int], int],
        teachers: int = 2,
    ) -> None:
        super().__init__()
        self.student = student
        self.teachers = nn.ModuleList(
            copy.deepcopy(student).requires_grad_(False).eval() for _ in range(teachers)
        )
        self.decay = decay  # alpha
        self.turn_at = turn
        self.register_buffer("turn", torch.tensor(turn(0)))  # of the step to come

    @property
    def predictor(self) -> SoftVote:
        return SoftVote(self.teachers)

    @property
    def opinions(self) -> tuple[nn.Module, ...]:
        return *self.teachers, self.student

    def train(self, mode: bool = True) -> TeachersStudent:
        """Put the student in training mode; the teachers always predict as in a test."""
        super().train(mode)
        self.teachers.eval()
        return self

    def after_step(self, step: int, progress: float = 1.0) -> None:
        """Move the teacher whose turn it is towards the student, or all while they are young."""
        decay, young = value_at(self.decay, progress), 1 - 1 / (step + 1)
        for index, teacher in enumerate(self.teachers):
            if young < decay or index == self.turn_at(step):
                follow(teacher, self.student, min(decay, young))
        self.turn.fill_(self.turn_at(step + 1))


def regular_turn(step: int, *, period_steps: int, teachers: int = 2) -> int:
    """Which of several teachers moves at ``step``: each for ``period_steps``, one by one."""
    return step // period_steps % teachers


def random_turn(step: int, *, longest_steps: int) -> int:
    """Which of two teachers moves at ``step``: periods are random, from 1 to ``longest_steps``.

    Both lengths are equally likely anywhere in that range; two periods in a row share
    ``longest_steps + 1`` steps, cut at random, so that the answer needs no memory.
    """
    window, passed = divmod(step, longest_steps + 1)
    return int(passed >= random.Random(window).randint(1, longest_steps))


class Peers(Networks):
    """Networks that differ only in where they started (or in what they are)."""

    def __init__(self, peers: Iterable[nn.Module]) -> None:
        super().__init__()
        self.peers = nn.ModuleList(peers)

    @property
    def predictor(self) -> nn.Module:
        return SoftVote(self.peers)

    @property
    def opinions(self) -> tuple[nn.Module, ...]:
        return tuple(self.peers)


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
        return soft_vote(voter(image) for voter in self.voters)


def soft_vote(votes: Iterable[Logits]) -> Logits:
    """The logarithm of the mean class probability of several predictions."""
    probs = torch.stack([vote.float().softmax(dim=1) for vote in votes])
    return probs.mean(dim=0).clamp_min(1e-12).log()


def crosswise(num_peers: int, lesson: Callable[[int, int], Scalar]) -> Scalar:
    """What each peer learns from each other one: the sum over ordered pairs, by ``n - 1`` [1].

    Args:
        num_peers: n, 2 or more.
        lesson: Indices of a teacher and of a learner to the loss of the learner.

    [1] Filipiak et al., n-CPS, 2021, arXiv:2112.07528, Eq. 4.
    """
    pairs = permutations(range(num_peers), 2)
    return torch.stack([lesson(*pair) for pair in pairs]).sum() / (num_peers - 1)


def together(network: nn.Module, *images: SomeImage) -> tuple[SomeLogits, ...]:
    """The logits of several batches in one forward pass: one set of batch-norm statistics."""
    logits: SomeLogits = network(torch.cat(images))
    return torch.split(logits, [image.shape[0] for image in images])


def encoded(network: Parted, *images: SomeImage) -> tuple[Features, ...]:
    """The features of several batches in one pass of the encoder."""
    sizes = [image.shape[0] for image in images]
    levels = (torch.split(level, sizes) for level in network.encoder(torch.cat(images)))
    return tuple(zip(*levels, strict=True))


def decoded(network: Parted, *features: Features) -> tuple[SomeLogits, ...]:
    """The logits of several batches of features in one pass of decoder and head."""
    joined = tuple(torch.cat(level) for level in zip(*features, strict=True))
    logits: SomeLogits = network.head(network.decoder(joined))
    return torch.split(logits, [each[0].shape[0] for each in features])


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
