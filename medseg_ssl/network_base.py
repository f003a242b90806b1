"""What a network for volumes is: settings that build it, and the patches it can take."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Field, model_validator
from torch import nn

from common.errors import ConfigError
from common.settings import Positive, Settings

Sides: TypeAlias = tuple[Positive, Positive, Positive]  # voxels along the three axes
Levels: TypeAlias = Annotated[tuple[Positive, ...], Field(min_length=2)]  # finest level first
Odd: TypeAlias = Literal[1, 3, 5, 7]
Kernel: TypeAlias = tuple[Odd, Odd, Odd]  # voxels along the three axes
Strides: TypeAlias = Literal["halve"] | tuple[Sides, ...]  # from each level to the next

REFUSALS = (
    ArithmeticError,
    AssertionError,
    LookupError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What a constructor raises when its arguments do not fit together."""


class VolumeNetwork(Settings):
    """A recipe for a network, ``(B, C, X, Y, Z)`` to logits ``(B, K, X, Y, Z)``."""

    name: str

    @property
    @abstractmethod
    def multiple(self) -> Sides:
        """What each patch side must be a multiple of."""

    @abstractmethod
    def make(self, channels: int, classes: int) -> object:
        """A fresh network, or whatever error its constructor raises."""

    @model_validator(mode="after")
    def _has_a_multiple(self) -> Self:
        assert self.multiple
        return self

    def build(self, channels: int, classes: int) -> nn.Module:
        """A fresh network; its first weights come from torch's generator.

        Raises:
            ConfigError: When the settings do not make a network for these channels and classes.
        """
        try:
            network = self.make(channels, classes)
        except ConfigError:
            raise
        except REFUSALS as error:
            reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
            raise ConfigError(
                f"domain.network {self.name!r} cannot be made for {channels} channels and "
                f"{classes} classes: {reason}. Change its settings, or choose another name."
            ) from error
        assert isinstance(network, nn.Module)
        return network


def per_level(strides: Strides, features: Levels) -> tuple[Sides, ...]:
    """The stride from each level to the next.

    Raises:
        ValueError: When there is not one stride between each two levels.
    """
    steps = len(features) - 1
    if strides == "halve":
        return ((2, 2, 2),) * steps
    if len(strides) != steps:
        raise ValueError(
            f"strides has {len(strides)} entries, but {len(features)} features "
            f"need {steps}: one from each level to the next. Give {steps}, or say 'halve'."
        )
    return strides


def product(strides: tuple[Sides, ...]) -> Sides:
    """How much coarser the last level is than the first, along each axis."""
    x, y, z = (math.prod(axis) for axis in zip(*strides, strict=True))
    return x, y, z
