"""One step of a method with peers, and what each peer saw and said in it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from common.batch import Batch
from common.fit import Learner
from common.methods import Method, Outcome
from tests.common.methods.watch import Seven, awkward, softmax, watched
from tests.toy import ToySettings


class Spoken(NamedTuple):
    """What one peer said: of the weak view as a teacher, of labeled and strong as a learner."""

    weak: Tensor
    truth: Tensor
    strong: Tensor
    both: Tensor  # the last two as they were made; backward leaves their gradient here


class Step(NamedTuple):
    """One step on images with holes."""

    learner: Learner
    batch: Batch
    outcome: Outcome
    said: list[Spoken]

    @property
    def valid(self) -> np.ndarray:
        """Where unlabeled images are."""
        return self.batch.unlabeled.valid.numpy()

    @property
    def labels(self) -> list[np.ndarray]:
        """The class that each peer names in the weak view."""
        return [each.weak.argmax(dim=1).numpy() for each in self.said]

    @property
    def confidences(self) -> list[np.ndarray]:
        """The largest probability of each peer in the weak view."""
        return [softmax(each.weak).max(axis=1) for each in self.said]

    def moves(self, term: str) -> list[bool]:
        """Whether a loss moves each peer."""
        self.learner.zero_grad()
        self.outcome.losses[term].backward(retain_graph=True)
        peers: list[nn.Module] = [*self.learner.nets.peers]
        found = [[p.grad for p in peer.parameters() if p.grad is not None] for peer in peers]
        return [any(bool((grad != 0).any()) for grad in each) for each in found]


def step(method: Method, *, dims: int = 2, progress: float = 1.0) -> Step:
    """The first step of ``method``, with seven classes; every peer is listened to."""
    torch.manual_seed(0)
    domain = Seven(ToySettings(dims=dims, side=10))
    learner = Learner(method, domain)
    calls = [watched(peer.head) for peer in learner.nets.peers]
    batch = awkward(next(domain.batches(seed=0, first_step=0)))
    outcome = learner(batch, progress)
    count = len(batch.labeled.image)
    said = [
        Spoken(weak.made, both.made[:count], both.made[count:], both.made) for weak, both in calls
    ]
    return Step(learner, batch, outcome, said)
