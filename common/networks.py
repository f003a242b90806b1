"""Networks in any domain: whose is whose, and those of the user's own."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator, Sequence
from typing import Any, Literal, TypeVar

from torch import nn

from common.errors import ConfigError
from common.settings import Settings

N = TypeVar("N")


def of_peer(peer: int, network: N, partners: Sequence[N]) -> tuple[str, N]:
    """The key and the value of what describes the network of one peer.

    The first peer has ``network``, the others ``partners`` in turn, or ``network`` where there
    are none.
    """
    if peer == 0 or not partners:
        return "domain.network", network
    index = (peer - 1) % len(partners)
    return f"domain.partners.{index}", partners[index]


@contextlib.contextmanager
def blaming(key: str) -> Iterator[None]:
    """Let an error that speaks of ``domain.network`` name ``key`` instead."""
    try:
        yield
    except ConfigError as error:
        if key == "domain.network":
            raise
        raise ConfigError(str(error).replace("domain.network", key)) from error


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
