"""Trust what several filters trust."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

import torch
from pydantic import Field, model_validator
from torch import nn

from common.batch import Probs, Weights
from common.filters.base import CalibratedFilter, Filter

if TYPE_CHECKING:
    Member: TypeAlias = Filter  # one of the others: common/filters/__init__.py says which

SURE_AND_NOT_TORN: Any = ({"name": "confidence"}, {"name": "entropy"})


class Product(Filter):
    """Weigh a pixel by the product of the weights that each of ``filters`` gives it.

    So a pixel teaches where all of them let it, and another member lets none teach more. Their
    order does not matter: each sees all pixels, also those that another one drops, and one that
    learns keeps a memory of its own. Filters that held-out cases set stand alone.
    """

    name: Literal["product"] = "product"
    filters: tuple[Member, ...] = Field(default=SURE_AND_NOT_TORN, validate_default=True)

    @model_validator(mode="after")
    def _has_several_that_multiply(self) -> Self:
        if len(self.filters) < 2:
            raise ValueError(
                f"filter product multiplies two filters or more, got {len(self.filters)}. Add "
                "one, or name the only one in place of product."
            )
        if held := [each.name for each in self.filters if isinstance(each, CalibratedFilter)]:
            raise ValueError(
                f"filter {held[0]} is set by held-out cases, and only by itself. Take it out of "
                f"product, or name {held[0]} in place of product."
            )
        return self

    def __call__(self, probs: Probs, progress: float = 1.0) -> Weights:
        return torch.stack([each(probs, progress) for each in self.filters]).prod(dim=0)

    @property
    def learns(self) -> bool:
        """Where one of them does."""
        return any(each.learns for each in self.filters)

    def start(self, num_classes: int) -> nn.Module:
        return _Multiplied(each.start(num_classes) for each in self.filters)


class _Multiplied(nn.ModuleList):
    def forward(self, probs: Probs, progress: float = 1.0) -> Weights:
        return torch.stack([each(probs, progress) for each in self]).prod(dim=0)
