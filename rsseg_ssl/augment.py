"""The two views of a scene: weak moves pixels, strong changes their values."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from common import photometry
from common.batch import Image
from common.settings import Fraction, NonNegative, Settings

FLIP_X, FLIP_Y, TRANSPOSE = 1, 2, 4


class Weak(Settings):
    """Geometry: seen from above, a scene has no right way up."""

    symmetries: Literal[1, 2, 4, 8] = 8  # 1: none, 2: mirror x, 4: mirror y too, 8: turn too
    zoom: Annotated[float, Field(ge=1.0, le=4.0)] = 1.0  # windows are cut this much larger or
    # smaller at most, and resampled to the nearest pixel


class GainOffset(Settings):
    """Multiply by ``exp(U(-gain, gain))``, add ``U(-offset, offset)`` standard deviations."""

    share: Fraction
    gain: NonNegative
    offset: NonNegative


class Gamma(Settings):
    """Bend each band's range by the power ``exp(U(-strength, strength))``."""

    share: Fraction = 0.5
    strength: NonNegative = 0.3


class Noise(Settings):
    """Add Gaussian noise of up to ``deviation`` standard deviations of the band."""

    share: Fraction = 0.5
    deviation: NonNegative = 0.15


class Blur(Settings):
    """Gaussian blur of up to ``sigma_pixels``."""

    share: Fraction = 0.3
    sigma_pixels: NonNegative = 1.2


class BandDropout(Settings):
    """Set one band to its mean."""

    share: Fraction = 0.1


class Strong(Settings):
    """Photometry for any number of bands; ``share`` is how many images are changed.

    No hue and no saturation: those have no meaning beyond red, green and blue.
    """

    scene: GainOffset = GainOffset(share=0.8, gain=0.25, offset=0.25)  # all bands together
    bands: GainOffset = GainOffset(share=0.8, gain=0.15, offset=0.15)  # each by itself
    gamma: Gamma = Gamma()
    blur: Blur = Blur()
    noise: Noise = Noise()
    band_dropout: BandDropout = BandDropout()

    def __call__(self, image: Image) -> Image:
        """A harder view of normalized images; pixels without data (0 in all bands) stay so."""
        missing = (image == 0).all(dim=1, keepdim=True)
        view = image
        for step, bands in ((self.scene, False), (self.bands, True)):
            view = photometry.gain_offset(
                view, step.share, gain=step.gain, offset=step.offset, bands=bands
            )
        view = photometry.gamma(view, self.gamma.share, strength=self.gamma.strength)
        view = photometry.blur(view, self.blur.share, sigma_pixels=self.blur.sigma_pixels)
        view = photometry.noise(view, self.noise.share, deviation=self.noise.deviation)
        view = photometry.band_dropout(view, self.band_dropout.share)
        return torch.where(missing, 0, view)


def turned(pixels: NDArray[Any], symmetry: int) -> NDArray[Any]:
    """One of the eight symmetries of a square, on the last two axes; 0 changes nothing."""
    if symmetry & FLIP_X:
        pixels = pixels[..., ::-1]
    if symmetry & FLIP_Y:
        pixels = pixels[..., ::-1, :]
    if symmetry & TRANSPOSE:
        pixels = np.swapaxes(pixels, -1, -2)
    return np.ascontiguousarray(pixels)


def resampled(pixels: NDArray[Any], side: int) -> NDArray[Any]:
    """The last two axes at ``side`` pixels each, by nearest neighbor."""
    if pixels.shape[-1] == side:
        return pixels
    nearest = ((np.arange(side) + 0.5) * pixels.shape[-1] / side).astype(int)
    return pixels[..., nearest[:, None], nearest[None, :]]
