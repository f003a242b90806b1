"""What went in and came out of a part of a network, and the formulas that a paper makes of it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from common.batch import IGNORE, Batch
from common.domain import Task
from common.methods import Outcome
from common.mixing import Cut, CutMix
from tests.toy import Net, ToyDomain

CLASSES = 7


class Seven(ToyDomain):
    """The toy domain with more classes than two, and untrained networks that are not all torn."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        names = tuple("abcdefg")
        self.task = Task(channels=1, classes=names, colors=((0, 0, 0),) * CLASSES)

    def new_network(self, peer: int = 0) -> nn.Module:
        network = Net(self.settings.dims, 1, CLASSES)
        nn.init.normal_(network.head.weight, std=3.0)
        return network


class Seen(NamedTuple):
    """One call."""

    given: Any
    made: Tensor


def watched(module: nn.Module) -> list[Seen]:
    """The calls of ``module`` from now on; gradients of what it makes are kept."""
    calls: list[Seen] = []

    def look(_: nn.Module, given: tuple[Any, ...], made: Any) -> None:
        if isinstance(made, Tensor) and made.requires_grad:
            made.retain_grad()
        calls.append(Seen(given[0], made))

    module.register_forward_hook(look)
    return calls


def cuts_of(monkeypatch: pytest.MonkeyPatch, mix: type = CutMix) -> list[Cut]:
    """The cuts that are drawn from now on."""
    drawn: list[Cut] = []
    draw = mix.draw

    def remember(self: Any, *args: Any) -> Cut:
        drawn.append(draw(self, *args))
        return drawn[-1]

    monkeypatch.setattr(mix, "draw", remember)
    return drawn


def awkward(batch: Batch) -> Batch:
    """Some labeled pixels that nobody annotated, some unlabeled ones outside of the image."""
    target, valid = batch.labeled.target.clone(), batch.unlabeled.valid.clone()
    target[0, :3] = IGNORE
    valid[1, 2:7] = False
    valid[-1, :, :4] = False
    return Batch(batch.labeled._replace(target=target), batch.unlabeled._replace(valid=valid))


def softmax(logits: Tensor) -> np.ndarray:
    """Class probabilities ``(B, K, *S)`` in double precision."""
    power = np.exp(logits.detach().double().numpy())
    return power / power.sum(axis=1, keepdims=True)


def moved(cut: Cut, grid: np.ndarray) -> np.ndarray:
    """``grid`` (B, *S), each sample with what its partner has inside of its cut."""
    mixed = grid.copy()
    for sample, partner in enumerate(cut.partner.tolist()):
        inside = cut.where[sample].numpy()
        mixed[sample][inside] = grid[partner][inside]
    return mixed


def cross_entropy(
    logits: Tensor, label: np.ndarray, weight: np.ndarray, among: np.ndarray
) -> float:
    """Sum of weighted cross-entropies, pixel after pixel, by the number of pixels ``among``."""
    probs, total = softmax(logits), 0.0
    for sample, *at in np.argwhere(among):
        p = probs[(sample, label[(sample, *at)], *at)]
        total -= weight[(sample, *at)] * np.log(p)
    return total / max(among.sum(), 1)


def labels(batch: Batch) -> np.ndarray:
    """Annotation, 0 where there is none, and where there is any."""
    return torch.where(batch.labeled.target == IGNORE, 0, batch.labeled.target).numpy()


def annotated(batch: Batch) -> np.ndarray:
    """Where somebody annotated."""
    return (batch.labeled.target != IGNORE).numpy()


def values(outcome: Outcome) -> dict[str, float]:
    """The losses as numbers."""
    return {name: float(loss.detach()) for name, loss in outcome.losses.items()}
