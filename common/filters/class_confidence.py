"""Trust each class from a confidence of its own on."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from common.batch import Probs, Weights
from common.errors import ConfigError
from common.filters.base import LiveFilter
from common.settings import Fraction


class ClassConfidence(LiveFilter):
    """Keep a pixel whose largest class probability reaches the threshold of its class.

    ``thresholds`` are in the order of the classes, or one for all of them, which is the filter
    ``confidence``. The ``diagnose`` verb suggests them for a precision. A higher threshold of a
    class keeps no more of it, and changes nothing of the others.
    """

    name: Literal["class_confidence"] = "class_confidence"
    thresholds: Annotated[tuple[Fraction, ...], Field(min_length=1)] = (0.95,)

    @property
    def learns(self) -> bool:
        """The settings say all."""
        return False

    def start(self, num_classes: int) -> nn.Module:
        """The live filter.

        Raises:
            ConfigError: When there are more or fewer thresholds than classes.
        """
        if problem := self.unfit(num_classes):
            raise ConfigError(problem)
        return _ByClass(self, num_classes)

    def unfit(self, num_classes: int) -> str:
        count = len(self.thresholds)
        if count in (1, num_classes):
            return ""
        return (
            f"method.filter.thresholds holds {count} values, but there are {num_classes} classes. "
            "Give one for each class, in the order of domain.classes, or one for all."
        )


class _ByClass(nn.Module):
    thresholds: Tensor  # (K,)

    def __init__(self, filter: ClassConfidence, num_classes: int) -> None:
        super().__init__()
        values = torch.tensor(filter.thresholds).expand(num_classes).clone()
        self.register_buffer("thresholds", values, persistent=False)  # the settings say them

    def forward(self, probs: Probs, progress: float = 1.0) -> Weights:
        confidence, label = probs.max(dim=1)
        return (confidence >= self.thresholds[label]).to(probs.dtype)
