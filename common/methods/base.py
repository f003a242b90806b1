"""What a method is."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, Self

from pydantic import model_validator
from torch import Tensor, nn

from common.batch import Batch, Pseudo, SoftPseudo
from common.filters import All, AnyFilter
from common.labeling import Kit
from common.learners import Networks
from common.losses import AnyLoss, CrossEntropyDice
from common.refiners import AnyRefiner
from common.schedules import Share
from common.settings import Settings
from common.sources import AnySource, Plain


class Outcome(NamedTuple):
    """What one step amounts to."""

    losses: dict[str, Tensor]  # each a scalar; their sum is minimized
    pseudo: Pseudo | SoftPseudo | None = None  # what was taught, before mixing, for the record


class NewNetwork(Protocol):
    """Makes fresh networks as the domain describes them."""

    def __call__(self, peer: int = 0) -> nn.Module:
        """The network of one peer; they differ only where the user gave partners."""


class Card(NamedTuple):
    """What the table of methods says of one, beside the first sentence of its docstring."""

    paper: str  # as the field calls it
    year: int
    family: Literal[
        "baseline",
        "teacher and student",
        "mutual",
        "heads",
        "copy-paste",
        "learned correction",
        "calibrated",
        "more signals",
        "own",  # of a user
    ]
    networks: str  # held; of them learning
    forwards: str  # per step
    needs: str = ""  # beyond a network and a few labels


class Method(Settings):
    """A semi-supervised method: its hyper-parameters, its networks, its losses.

    The fields are the "Input" line of the paper's algorithm box and :meth:`losses` is the
    box. A method is frozen: whatever training changes lives in its networks.
    """

    card: ClassVar[Card]
    needs_unlabeled: ClassVar[bool] = True
    makes_pseudo_labels: ClassVar[bool] = True  # that a filter or a weak label could change
    takes_source: ClassVar[bool] = False  # whether its pseudo-labels come from `kit.ask`
    takes_partners: ClassVar[bool] = False  # whether its peers may be different networks

    name: str

    supervised_loss: AnyLoss = CrossEntropyDice()
    strong_labeled: Share = 0.0  # of the labeled images learn in their strong view
    source: AnySource = Plain()  # how a network is asked for its pseudo-labels
    filter: AnyFilter = All()  # also describes the pseudo-labels that a report measures
    refiners: tuple[AnyRefiner, ...] = ()  # one after the other

    @abstractmethod
    def networks(self, new_network: NewNetwork) -> Networks:
        """The networks this method trains, and how they depend on each other."""

    @abstractmethod
    def losses(self, nets: Any, batch: Batch, kit: Kit, progress: float) -> Outcome:  # noqa: ANN401
        """One pass over the algorithm box. ``progress`` runs from 0 to 1."""

    @model_validator(mode="after")
    def _uses_what_it_is_given(self) -> Self:
        makes, none = self.makes_pseudo_labels, "makes no pseudo-labels"
        for key, used, given, why in (
            ("source", self.takes_source, (self.source,), "asks in its own way" if makes else none),
            ("filter", makes, (self.filter,), "drops no pixels"),
            ("refiners", makes, self.refiners, none),
        ):
            idle = [each.name for each in given if not isinstance(each, Plain | All)]
            if idle and not used:
                raise ValueError(
                    f"method {self.name!r} {why}, so {key.removesuffix('s')} {idle[0]!r} would do "
                    f"nothing. Remove method.{key}, or choose another method."
                )
        return self
