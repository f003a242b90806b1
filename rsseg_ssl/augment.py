"""The two views of a scene: weak moves pixels, strong changes their values."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from common.batch import Image
from common.settings import Settings
from common.views import BandDropout, Blur, GainOffset, Gamma, Noise

FLIP_X, FLIP_Y, TRANSPOSE = 1, 2, 4


class Weak(Settings):
    """Geometry: seen from above, a scene has no right way up."""

    symmetries: Literal[1, 2, 4, 8] = 8  # 1: none, 2: mirror x, 4: mirror y too, 8: turn too
    zoom: Annotated[float, Field(ge=1.0, le=4.0)] = 1.0  # windows are cut this much larger or
    # smaller at most, and resampled to the nearest pixel

    @property
    def mirrors(self) -> tuple[int, ...]:
        """The spatial axes that are mirrored: 0 is y, 1 is x."""
        return tuple(axis for axis, at_least in ((0, 4), (1, 2)) if self.symmetries >= at_least)


class Strong(Settings):
    """Photometry for any number of bands; ``share`` is how many images are changed.

    No hue and no saturation: those have no meaning beyond red, green and blue.
    """

    scene: GainOffset = GainOffset(share=0.8, gain=0.25, offset=0.25)  # all bands together
    bands: GainOffset = GainOffset(share=0.8, gain=0.15, offset=0.15)  # each by itself
    gamma: Gamma = Gamma(share=0.5, strength=0.3)
    blur: Blur = Blur(share=0.3, sigma_pixels=1.2)
    noise: Noise = Noise(share=0.5, deviation=0.15)
    band_dropout: BandDropout = BandDropout(share=0.1)

    def __call__(self, image: Image) -> Image:
        """A harder view of normalized images; pixels without data (0 in all bands) stay so."""
        missing = (image == 0).all(dim=1, keepdim=True)
        view = image
        for step in (
            self.scene.together,
            self.bands.apart,
            self.gamma,
            self.blur,
            self.noise,
            self.band_dropout,
        ):
            view = step(view)
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
