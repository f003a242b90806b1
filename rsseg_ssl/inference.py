"""Predict whole scenes, however large, from overlapping windows.

Windows overlap and are averaged with weights that fall from the middle to the edge, where a
network sees least. Only one row of windows is in memory at a time; the result lies on disk where
it is large.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Annotated, Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from common.room import room
from common.settings import Count, Positive, Settings
from rsseg_ssl.reader import Window

LEAST_WEIGHT = 1e-3

Read: TypeAlias = Callable[[Window], tuple[NDArray[Any], NDArray[np.bool_]]]
"""A window to its pixels ``(C, h, w)`` as stored and their validity ``(h, w)``."""

Normalize: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Raw pixels ``(B, C, h, w)`` as float32 and validity ``(B, h, w)`` to what a network sees."""


class InferenceSettings(Settings):
    """How windows cover a scene."""

    overlap: Annotated[float, Field(ge=0.0, le=0.75)] = 0.25  # of the side of a window
    windows_per_batch: Positive = 8
    memory_mb: Count = 2048  # larger predictions lie on disk, as float16


@torch.no_grad()
def predict_scene(
    network: nn.Module,
    read: Read,
    *,
    shape_yx: tuple[int, int],
    tile: int,
    classes: int,
    settings: InferenceSettings,
    normalize: Normalize,
) -> Tensor:
    """Class probabilities of a whole scene.

    A pixel without data gets ``1 / classes`` for every class, so that no class is preferred;
    windows without any data are not shown to the network.

    Args:
        network: In evaluation mode, ``(B, C, tile, tile)`` to logits ``(B, classes, tile, tile)``.
        read: Reads a window; pixels beyond the edge of the scene are not valid.
        shape_yx: Height and width of the scene in pixels.
        tile: Side of a window in pixels.
        classes: How many there are.
        settings: How windows cover the scene.
        normalize: From stored values to what the network was trained on.

    Returns:
        ``(classes, H, W)``: float32 in memory, or float16 in a temporary file which is gone when
        the tensor is.

    Raises:
        DataError: When the disk has no room for a large result.
    """
    device = next((each.device for each in network.parameters()), torch.device("cpu"))
    height, width = shape_yx
    result = room((classes, *shape_yx), settings.memory_mb)
    tops, lefts = (starts(side, tile, settings.overlap) for side in shape_yx)
    band = _Band(classes, width=width, tile=tile, device=device)
    for top, following in zip(tops, [*tops[1:], height], strict=True):
        windows = [Window(top, left, tile, tile) for left in lefts]
        for batch in _batches(windows, read, settings.windows_per_batch):
            pixels = torch.from_numpy(batch.pixels).to(device).float()
            valid = torch.from_numpy(batch.valid).to(device)
            probs = network(normalize(pixels, valid)).float().softmax(dim=1)
            band.add(probs, valid, batch.lefts)
        band.give(result[:, top:following])
    return result


def starts(length: int, tile: int, overlap: float) -> list[int]:
    """Where windows begin along an axis; the last one is shifted inside.

    Every pixel is covered, no window reaches beyond ``length`` unless a tile is longer than that,
    and neighbors overlap by at least ``overlap`` of a tile.
    """
    stride = max(1, math.floor(tile * (1 - overlap)))
    last = max(0, length - tile)
    return [*range(0, last, stride), last]


def blend(tile: int) -> Tensor:
    """Weights ``(tile,)`` along one axis: a Hann window [1] that never falls to zero.

    [1] Pielawski and Wählby, Introducing Hann windows for reducing edge-effects in patch-based
        image segmentation, 2020, arXiv:1910.07831.
    """
    position = (torch.arange(tile, dtype=torch.float32) + 0.5) / tile
    return torch.sin(math.pi * position).square().clamp_min(LEAST_WEIGHT)


class _Windows(NamedTuple):
    pixels: NDArray[Any]  # (B, C, tile, tile)
    valid: NDArray[np.bool_]  # (B, tile, tile)
    lefts: list[int]


def _batches(windows: list[Window], read: Read, size: int) -> Iterator[_Windows]:
    """Windows that hold data, ``size`` at a time."""
    held: list[tuple[NDArray[Any], NDArray[np.bool_], int]] = []
    for window in windows:
        pixels, valid = read(window)
        if valid.any():
            held.append((pixels, valid, window.left))
        if held and (len(held) == size or window is windows[-1]):
            columns = zip(*held, strict=True)
            yield _Windows(np.stack(next(columns)), np.stack(next(columns)), [*next(columns)])
            held = []


class _Band:
    """The rows under the current windows: weighted sums, weights, and which pixels hold data."""

    def __init__(self, classes: int, *, width: int, tile: int, device: torch.device) -> None:
        self.width, self.tile = width, tile
        side = blend(tile).to(device)
        self.window = side[:, None] * side
        reach = max(width, tile)
        self.sums = torch.zeros(classes, tile, reach, device=device)
        self.weights = torch.zeros(tile, reach, device=device)
        self.valid = torch.zeros(tile, reach, device=device, dtype=torch.bool)

    def add(self, probs: Tensor, valid: Tensor, lefts: list[int]) -> None:
        """Windows ``(B, K, tile, tile)``, the first column of each at one of ``lefts``."""
        for window, holds_data, left in zip(probs, valid, lefts, strict=True):
            columns = slice(left, left + self.tile)
            self.sums[:, :, columns] += window * self.window
            self.weights[:, columns] += self.window
            self.valid[:, columns] |= holds_data

    def give(self, place: Tensor) -> None:
        """Fill ``place (K, rows, width)`` with the uppermost rows; the others move up."""
        rows, columns = place.shape[1], slice(self.width)
        probs = self.sums[:, :rows, columns]
        probs /= self.weights[:rows, columns].clamp_min(LEAST_WEIGHT**2)
        probs.masked_fill_(~self.valid[:rows, columns], 1 / len(probs))
        place.copy_(probs)
        for held in (self.sums, self.weights, self.valid):
            kept = held[..., rows:, :].clone()
            held[..., : self.tile - rows, :] = kept
            held[..., self.tile - rows :, :] = 0
