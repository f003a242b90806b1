"""Building blocks of strong views: pixel values change, pixels stay where they are.

Each works on ``(B, C, *S)`` of any number of spatial axes, on the image's device, without
waiting for it. Each sample draws its own strength from torch's generator, and is left alone
with probability ``1 - share``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from common.batch import Image


def gain_offset(image: Image, share: float, *, gain: float, offset: float, bands: bool) -> Image:
    """Multiply by ``exp(U(-gain, gain))`` and add ``U(-offset, offset)``.

    Args:
        bands: Draw for each channel by itself, not for all channels of a sample together.
    """
    factor, shift = (
        uniform(image, -gain, gain, bands=bands).exp(),
        uniform(image, -offset, offset, bands=bands),
    )
    return chosen(image, image * factor + shift, share)


def contrast(image: Image, share: float, *, strength: float) -> Image:
    """Stretch around each channel's mean by ``exp(U(-strength, strength))``."""
    axes = tuple(range(2, image.ndim))
    mean = image.mean(dim=axes, keepdim=True)
    return chosen(image, (image - mean) * uniform(image, -strength, strength).exp() + mean, share)


def gamma(image: Image, share: float, *, strength: float) -> Image:
    """Bend each channel's range by the power ``exp(U(-strength, strength))``, ends kept."""
    axes = tuple(range(2, image.ndim))
    low, high = image.amin(dim=axes, keepdim=True), image.amax(dim=axes, keepdim=True)
    unit = ((image - low) / (high - low).clamp_min(1e-6)).clamp(0, 1)
    power = uniform(image, -strength, strength).exp()
    return chosen(image, unit.clamp_min(1e-6) ** power * (high - low) + low, share)


def noise(image: Image, share: float, *, deviation: float) -> Image:
    """Add Gaussian noise of standard deviation ``U(0, deviation)``."""
    return chosen(image, image + uniform(image, 0, deviation) * torch.randn_like(image), share)


def blur(image: Image, share: float, *, sigma_pixels: float) -> Image:
    """Gaussian blur with ``sigma`` from ``U(0.3, sigma_pixels)``, reflected at the border."""
    sigma = uniform(image, 0.3, max(sigma_pixels, 0.3))
    return chosen(image, gaussian(image, sigma), share)


def low_resolution(image: Image, share: float, *, factor: float) -> Image:
    """Sample down by one factor from ``U(1, factor)`` for the batch, and up again."""
    mode = "bilinear" if image.ndim == 4 else "trilinear"
    # The factor decides a shape, so it is drawn on the host: no device to wait for.
    scale = 1 + (factor - 1) * float(torch.rand((), device="cpu"))
    small = [max(2, round(side / scale)) for side in image.shape[2:]]
    low = F.interpolate(image, size=small, mode=mode)  # "nearest" would move it by half a pixel
    return chosen(image, F.interpolate(low, size=image.shape[2:], mode=mode), share)


def band_dropout(image: Image, share: float) -> Image:
    """Set one random channel to 0, the mean after normalization; a lone channel is kept."""
    batch, bands = image.shape[:2]
    if bands == 1:
        return image
    lost = torch.randint(bands, (batch, 1), device=image.device)
    keep = torch.arange(bands, device=image.device) != lost
    return chosen(image, image * keep.view(batch, bands, *_ones(image)), share)


def cutout(image: Image, share: float, *, boxes: int, side: float) -> Image:
    """Fill ``boxes`` random boxes with each channel's mean over the image [1].

    Each side of a box is ``U(0, side)`` of that of the image, at least a pixel. Its middle lies
    anywhere, so that boxes may overlap and reach beyond the border.

    [1] DeVries and Taylor, Cutout, 2017, arXiv:1708.04552, Sec. 3.2.
    """
    batch, dims = image.shape[0], image.ndim - 2
    hidden = torch.ones((batch, boxes, *_ones(image)), device=image.device, dtype=torch.bool)
    for axis in range(dims):
        whole = image.shape[2 + axis]
        length, middle = torch.rand((2, batch, boxes, 1), device=image.device)
        length = (length * side * whole).round().clamp_min(1)
        start = (middle * whole).floor() - (length / 2).floor()
        pixel = torch.arange(whole, device=image.device)
        within = (pixel >= start) & (pixel < start + length)
        hidden = hidden & within.view(batch, boxes, *(-1 if a == axis else 1 for a in range(dims)))
    mean = image.mean(dim=tuple(range(2, image.ndim)), keepdim=True)
    return chosen(image, torch.where(hidden.any(dim=1, keepdim=True), mean, image), share)


def gaussian(image: Image, sigma: Tensor) -> Image:
    """Separable Gaussian blur; ``sigma`` in pixels, one per sample, shaped ``(B, 1, 1, ...)``."""
    batch, radius = image.shape[0], 4
    offsets = torch.arange(-radius, radius + 1, device=image.device, dtype=image.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma.view(batch, 1)) ** 2)
    kernel = kernel / kernel.sum(dim=1, keepdim=True)
    for axis in range(2, image.ndim):
        line = image.movedim(axis, -1)
        reach = min(radius, line.shape[-1] - 1)
        taps = kernel[:, radius - reach : radius + reach + 1]
        taps = taps / taps.sum(dim=1, keepdim=True)
        flat = F.pad(line.reshape(batch, -1, line.shape[-1]), (reach, reach), mode="reflect")
        by_sample = F.conv2d(flat.unsqueeze(0), taps.view(batch, 1, 1, -1), groups=batch)
        line = by_sample.reshape(line.shape)
        image = line.movedim(-1, axis)
    return image


def uniform(image: Image, low: float, high: float, *, bands: bool = False) -> Tensor:
    """One draw per sample (or per sample and channel), shaped to multiply ``image``."""
    batch, channels = image.shape[:2]
    shape = (batch, channels if bands else 1, *_ones(image))
    return low + (high - low) * torch.rand(shape, device=image.device, dtype=image.dtype)


def chosen(image: Image, changed: Image, share: float) -> Image:
    """``changed`` for a random ``share`` of the samples, ``image`` for the others."""
    lucky = uniform(image, 0, 1) < share
    return torch.where(lucky, changed, image)


def _ones(image: Tensor) -> list[int]:
    return [1] * (image.ndim - 2)
