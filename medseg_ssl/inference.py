"""A whole volume through a network that only ever saw patches.

Windows overlap and are averaged with weights that fall from the middle to the edge. Only the slab
under the current windows is summed up in memory; the result lies on disk where it is large.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Annotated, TypeAlias

import torch
import torch.nn.functional as F
from monai.data.utils import compute_importance_map, dense_patch_slices
from pydantic import Field
from torch import Tensor, nn

from common.batch import ClassMap
from common.errors import ShapeError
from common.room import room
from common.settings import Count, Positive, PositiveReal, Settings

LARGEST_ON_DEVICE = 2**28
"""Slabs of more values than this (1 GiB) are summed up in main memory."""

Window: TypeAlias = tuple[slice, slice, slice]


class InferenceSettings(Settings):
    """How windows are laid over a volume and blended."""

    overlap: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.5  # of the patch side
    windows_per_batch: Positive = 4
    blend_sigma: PositiveReal = 0.125  # of the patch side; trust falls off as a Gaussian
    memory_mb: Count = 2048  # larger predictions lie on disk, as float16


@torch.no_grad()
def predict_volume(
    network: nn.Module,
    image: Tensor,
    *,
    patch: tuple[int, int, int],
    classes: int,
    settings: InferenceSettings,
) -> ClassMap:
    """Class probabilities of one preprocessed volume, by a Gaussian sliding window.

    Probabilities are averaged, not logits, so that every window has the same say. A volume
    smaller than the patch is padded with zeros on both sides, and the result cropped. Windows and
    weights are those of MONAI's ``SlidingWindowInferer``.

    Args:
        network: Maps ``(B, C, X, Y, Z)`` to logits ``(B, K, X, Y, Z)``; used as it is, on its
            own device.
        image: ``(C, X, Y, Z)`` float.
        patch: Voxels of a window along X, Y and Z.
        classes: How many classes the network should tell apart.
        settings: Overlap and blending.

    Returns:
        ``(K, X, Y, Z)`` on the CPU: float32, or float16 on disk where it is large; each voxel sums
        to one.

    Raises:
        ShapeError: When the network answers with another number of classes or another grid.
        DataError: When the disk has no room for a large result.
    """
    device = device_of(network)
    given, before = _at_least(image.as_subclass(Tensor).float(), patch)
    result = room((classes, *given.shape[1:]), settings.memory_mb)
    along = [*_by_first_axis(given.shape[1:], patch, settings.overlap)]
    window = compute_importance_map(patch, "gaussian", settings.blend_sigma, dtype=torch.float32)
    slab = _Slab(classes, window, given.shape[2:], along[0], device)
    ends = [*(windows[0][0].start for windows in along[1:]), given.shape[1]]
    for windows, end in zip(along, ends, strict=True):
        for first in range(0, len(windows), settings.windows_per_batch):
            some = windows[first : first + settings.windows_per_batch]
            pixels = torch.stack([given[(slice(None), *window)] for window in some]).to(device)
            slab.add(_probabilities(network, classes, pixels), some)
        slab.give(result[:, windows[0][0].start : end])
    inside = (slice(low, low + side) for low, side in zip(before, image.shape[1:], strict=True))
    return result[(slice(None), *inside)]


def device_of(network: nn.Module) -> torch.device:
    """Where the weights of ``network`` lie; the CPU where it has none."""
    tensors = itertools.chain(network.parameters(), network.buffers())
    return next((tensor.device for tensor in tensors), torch.device("cpu"))


class _Slab:
    """The voxels under the current windows: weighted sums, and sums of weights."""

    def __init__(
        self,
        classes: int,
        window: Tensor,
        across: tuple[int, ...],
        windows: Sequence[Window],
        device: torch.device,
    ) -> None:
        fits = classes * len(window) * across[0] * across[1] <= LARGEST_ON_DEVICE
        self.place = device if fits else torch.device("cpu")
        self.window = window.to(self.place)
        self.sums = torch.zeros(classes, len(window), *across, device=self.place)
        self.weights = torch.zeros(len(window), *across, device=self.place)
        self.of_each = torch.zeros_like(self.weights)  # all slabs have the same windows
        for _, *place in windows:
            self.of_each[:, *place] += self.window

    def add(self, probs: Tensor, windows: Sequence[Window]) -> None:
        """Windows ``(B, K, X, Y, Z)`` of the same first slice, and where they lie."""
        weighed = probs.to(self.place).mul_(self.window)
        for each, (_, *across) in zip(weighed, windows, strict=True):
            self.sums[:, :, *across] += each

    def give(self, place: Tensor) -> None:
        """Fill ``place (K, rows, Y, Z)`` with the first rows; the others move up."""
        rows = place.shape[1]
        self.weights += self.of_each
        place.copy_(self.sums[:, :rows] / self.weights[:rows])
        for held, axis in ((self.sums, 1), (self.weights, 0)):
            left = held.shape[axis] - rows
            kept = held.narrow(axis, rows, left).clone()
            held.narrow(axis, 0, left).copy_(kept)
            held.narrow(axis, left, rows).zero_()


def _at_least(image: Tensor, patch: tuple[int, int, int]) -> tuple[Tensor, list[int]]:
    """``image``, padded with zeros on both sides to the patch, and how much before each axis."""
    lacking = [max(0, side - own) for side, own in zip(patch, image.shape[1:], strict=True)]
    before = [each // 2 for each in lacking]
    sides = [(low, each - low) for low, each in zip(before, lacking, strict=True)]
    padding = [side for pair in reversed(sides) for side in pair]
    return F.pad(image, padding) if any(lacking) else image, before


def _by_first_axis(
    shape: tuple[int, ...], patch: tuple[int, int, int], overlap: float
) -> Iterator[list[Window]]:
    """All windows; those of the same first slice together, in order."""
    steps = [max(1, int(side * (1 - overlap))) for side in patch]
    steps = [
        side if side == whole else step
        for side, whole, step in zip(patch, shape, steps, strict=True)
    ]
    windows = dense_patch_slices(shape, patch, steps)
    for _, same in itertools.groupby(windows, key=lambda window: window[0].start):
        yield [*same]


def _probabilities(network: nn.Module, classes: int, windows: Tensor) -> Tensor:
    """What ``network`` makes of a batch of windows, ``(B, K, X, Y, Z)``."""
    logits: object = network(windows)
    expected = (len(windows), classes, *windows.shape[2:])
    if not isinstance(logits, Tensor) or tuple(logits.shape) != expected:
        given = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ShapeError(
            f"the network answered windows of shape {tuple(windows.shape)} with {given}, "
            f"expected one tensor of logits {expected}: {classes} classes on the same grid."
        )
    return logits.float().softmax(dim=1)
