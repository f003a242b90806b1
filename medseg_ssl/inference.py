"""A whole volume through a network that only ever saw patches."""

from __future__ import annotations

import functools
import itertools
import math
from typing import Annotated

import torch
from monai.inferers.utils import sliding_window_inference
from pydantic import Field
from torch import Tensor, nn

from common.batch import ClassVolume
from common.errors import ShapeError
from common.settings import Positive, PositiveReal, Settings

LARGEST_ON_DEVICE = 2**28
"""Probability maps of more values than this (1 GiB) are put together in main memory."""


class InferenceSettings(Settings):
    """How windows are laid over a volume and blended."""

    overlap: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.5  # of the patch side
    windows_per_batch: Positive = 4
    blend_sigma: PositiveReal = 0.125  # of the patch side; trust falls off as a Gaussian


@torch.no_grad()
def predict_volume(
    network: nn.Module,
    image: Tensor,
    *,
    patch: tuple[int, int, int],
    classes: int,
    settings: InferenceSettings,
) -> ClassVolume:
    """Class probabilities of one preprocessed volume, by a Gaussian sliding window.

    Probabilities are averaged, not logits, so that every window has the same say. A volume
    smaller than the patch is padded with zeros on both sides, and the result cropped.

    Args:
        network: Maps ``(B, C, X, Y, Z)`` to logits ``(B, K, X, Y, Z)``; used as it is, on its
            own device.
        image: ``(C, X, Y, Z)`` float.
        patch: Voxels of a window along X, Y and Z.
        classes: How many classes the network should tell apart.
        settings: Overlap and blending.

    Returns:
        ``(K, X, Y, Z)`` float32 on the CPU; each voxel sums to one.

    Raises:
        ShapeError: When the network answers with another number of classes or another grid.
    """
    device = device_of(network)
    values = classes * math.prod(image.shape[1:])
    blended = sliding_window_inference(
        image.as_subclass(Tensor).float().unsqueeze(0),
        roi_size=patch,
        sw_batch_size=settings.windows_per_batch,
        predictor=functools.partial(_probabilities, network, classes),
        overlap=settings.overlap,
        mode="gaussian",
        sigma_scale=settings.blend_sigma,
        sw_device=device,
        device=device if values <= LARGEST_ON_DEVICE else torch.device("cpu"),
    )
    assert isinstance(blended, Tensor)
    return blended.squeeze(0).cpu()


def device_of(network: nn.Module) -> torch.device:
    """Where the weights of ``network`` lie; the CPU where it has none."""
    tensors = itertools.chain(network.parameters(), network.buffers())
    return next((tensor.device for tensor in tensors), torch.device("cpu"))


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
