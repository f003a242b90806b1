"""Networks of the user's own, in any domain."""

from __future__ import annotations

import importlib
from typing import Any, Literal

from torch import nn

from common.errors import ConfigError
from common.settings import Settings


class Custom(Settings):
    """Any importable ``torch.nn.Module`` class, or function that returns one.

    It is called with ``arguments`` and must map ``(B, C, *S)`` to logits ``(B, K, *S)``.
    """

    name: Literal["custom"] = "custom"
    target: str  # "package.module:Name"
    arguments: dict[str, Any] = {}

    def build(self) -> nn.Module:
        """A fresh network.

        Raises:
            ConfigError: When ``target`` cannot be imported, called, or is no network.
        """
        module_name, colon, name = self.target.partition(":")
        if not (module_name and colon and name):
            raise ConfigError(
                f"domain.network.target: expected 'package.module:Name', got {self.target!r}."
            )
        try:
            make = getattr(importlib.import_module(module_name), name)
            network = make(**self.arguments)
        except (ImportError, AttributeError, TypeError, ValueError) as error:
            raise ConfigError(
                f"domain.network.target {self.target!r} with arguments {self.arguments} cannot be "
                f"made: {error}. It must be importable from where you run the command."
            ) from error
        if not isinstance(network, nn.Module):
            raise ConfigError(
                f"domain.network.target {self.target!r} made a {type(network).__name__}, "
                "expected a torch.nn.Module."
            )
        return network
