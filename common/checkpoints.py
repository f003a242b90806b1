"""Checkpoints: written whole or not at all, read without running anything that is in them."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric

from common.errors import RunError

UNREADABLE = (RuntimeError, ValueError, KeyError, EOFError, OSError, pickle.UnpicklingError)


def save(fabric: Fabric, path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` to ``path``; what was there before stays until all is written.

    Raises:
        RunError: When it cannot be written.
    """
    temporary = path.with_suffix(".tmp")
    try:
        fabric.save(temporary, state)
        if fabric.is_global_zero:
            os.replace(temporary, path)  # noqa: PTH105
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        raise RunError(
            f"'{path}' could not be written at step {state['step']}: {error}. Make room on the "
            "disk and run the same command again; it goes on from the checkpoint before."
        ) from error
    fabric.barrier()


def resume(fabric: Fabric, path: Path, state: dict[str, Any]) -> None:
    """Fill ``state`` from ``path``, if that is there.

    Raises:
        RunError: When it cannot be read, or is of another network.
    """
    if not path.exists():
        return
    try:
        fabric.load(path, state, weights_only=True)
    except UNREADABLE as error:
        raise _unreadable(path, error, "remove it to train from the start") from error


def weights(path: Path) -> dict[str, Any]:
    """The weights in a checkpoint, in main memory.

    Raises:
        RunError: When it cannot be read.
    """
    try:
        held: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)["model"]
    except UNREADABLE as error:
        raise _unreadable(path, error, "train again") from error
    return held


def _unreadable(path: Path, error: Exception, remedy: str) -> RunError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return RunError(
        f"'{path}' cannot be read as a checkpoint of this run: {reason} "
        f"Restore the file from a copy, or {remedy}."
    )
