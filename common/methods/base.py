"""What a method is."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn

from common.batch import Batch, Pseudo, SoftPseudo
from common.filters import All, AnyFilter
from common.learners import Networks
from common.losses import AnyLoss, CrossEntropyDice
from common.settings import Settings

View = Callable[[Tensor], Tensor]


class Kit(NamedTuple):
    """What a run lends its method."""

    strong: View  # image to a harder image, pixel for pixel aligned
    keep: View  # probabilities (B, K, *S) to weights (B, *S)


class Outcome(NamedTuple):
    """What one step amounts to."""

    losses: dict[str, Tensor]  # each a scalar; their sum is minimized
    pseudo: Pseudo | SoftPseudo | None = None  # what was taught, before mixing, for the record


class Method(Settings):
    """A semi-supervised method: its hyper-parameters, its networks, its losses.

    The fields are the "Input" line of the paper's algorithm box and :meth:`losses` is the
    box. A method is frozen: whatever training changes lives in its networks.
    """

    needs_unlabeled: ClassVar[bool] = True

    supervised_loss: AnyLoss = CrossEntropyDice()
    filter: AnyFilter = All()  # also describes the pseudo-labels that a report measures

    @abstractmethod
    def networks(self, new_network: Callable[[], nn.Module]) -> Networks:
        """The networks this method trains, and how they depend on each other."""

    @abstractmethod
    def losses(self, nets: Any, batch: Batch, kit: Kit, progress: float) -> Outcome:  # noqa: ANN401
        """One pass over the algorithm box. ``progress`` runs from 0 to 1."""
