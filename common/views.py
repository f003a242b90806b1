"""The steps of a strong view, as a YAML file describes them; ``photometry.py`` does them.

Each changes a random ``share`` of the images and leaves the others alone; 0 turns it off.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from common import photometry
from common.batch import Image
from common.settings import Fraction, NonNegative, Positive, Settings


class GainOffset(Settings):
    """Multiply by ``exp(U(-gain, gain))``, add ``U(-offset, offset)`` standard deviations."""

    share: Fraction = 0.5
    gain: NonNegative = 0.2
    offset: NonNegative = 0.2

    def together(self, image: Image) -> Image:
        """One draw for all channels of an image."""
        return photometry.gain_offset(
            image, self.share, gain=self.gain, offset=self.offset, bands=False
        )

    def apart(self, image: Image) -> Image:
        """One draw for each channel."""
        return photometry.gain_offset(
            image, self.share, gain=self.gain, offset=self.offset, bands=True
        )


class Gamma(Settings):
    """Bend the range of each channel by the power ``exp(U(-strength, strength))``."""

    share: Fraction = 0.5
    strength: NonNegative = 0.3

    def __call__(self, image: Image) -> Image:
        return photometry.gamma(image, self.share, strength=self.strength)


class Contrast(Settings):
    """Stretch around the mean by ``exp(U(-strength, strength))``."""

    share: Fraction = 0.5
    strength: NonNegative = 0.3

    def __call__(self, image: Image) -> Image:
        return photometry.contrast(image, self.share, strength=self.strength)


class Noise(Settings):
    """Add Gaussian noise of ``U(0, deviation)`` standard deviations."""

    share: Fraction = 0.5
    deviation: NonNegative = 0.15

    def __call__(self, image: Image) -> Image:
        return photometry.noise(image, self.share, deviation=self.deviation)


class Blur(Settings):
    """Gaussian blur of up to ``sigma_pixels``."""

    share: Fraction = 0.5
    sigma_pixels: Annotated[float, Field(ge=0.3, le=2.0)] = 1.0  # 2: where the kernel ends

    def __call__(self, image: Image) -> Image:
        return photometry.blur(image, self.share, sigma_pixels=self.sigma_pixels)


class LowResolution(Settings):
    """Sample down by up to ``factor``, and up again."""

    share: Fraction = 0.5
    factor: Annotated[float, Field(ge=1.0)] = 1.8

    def __call__(self, image: Image) -> Image:
        return photometry.low_resolution(image, self.share, factor=self.factor)


class BandDropout(Settings):
    """Set one channel to 0, its mean; a lone channel is kept."""

    share: Fraction = 0.5

    def __call__(self, image: Image) -> Image:
        return photometry.band_dropout(image, self.share)


class Cutout(Settings):
    """Hide boxes behind the image's mean; what lies there is still taught."""

    share: Fraction = 0.5
    boxes: Positive = 3
    side: Fraction = 0.5  # of that of the image, at most, along each axis

    def __call__(self, image: Image) -> Image:
        if self.share == 0:  # draws nothing, so that what is drawn later stays as it was
            return image
        return photometry.cutout(image, self.share, boxes=self.boxes, side=self.side)
