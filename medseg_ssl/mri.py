"""What an MRI scanner leaves on an image: steps of the strong view of volumes.

Each works on ``(B, C, *S)`` of any number of spatial axes, on the image's device, without waiting
for it, and draws from torch's generator; with a ``share`` of 0 it draws nothing. What is exactly
0 in all channels, as padding and what a skull was stripped of, was not measured and stays 0.

Normalized images may be negative, yet a scanner measures magnitudes. Where zero signal lies is
no longer known: the darkest voxel of a channel of the patch stands for it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from common.batch import Image
from common.photometry import chosen, uniform
from common.settings import Fraction, NonNegative, Settings
from medseg_ssl.splines import SPANS, smooth

Damage = Callable[[Image], Image]


class BiasField(Settings):
    """Signal times a smooth field, the same for all channels: ``exp`` of a random polynomial [1].

    The polynomial is of degree 3 along each axis of the patch (one piece of a B-spline with normal
    control points), has mean 0 over the patch, and is scaled so that its largest absolute value is
    ``U(0, strength)``. So somewhere a strength of 0.4 changes the signal by up to 49 %.

    [1] Van Leemput et al., Automated model-based bias field correction of MR images of the
        brain, IEEE TMI 18(10), 1999.
    """

    share: Fraction = 0.5
    strength: NonNegative = 0.4

    def __call__(self, image: Image) -> Image:
        """As above; ``image`` itself where ``share`` is 0."""
        return _measured_anew(image, self.share, lambda signal: signal * self._field(signal))

    def _field(self, image: Image) -> Tensor:
        batch, _, *sides = image.shape
        axes, points = tuple(range(2, image.ndim)), [1 + SPANS] * len(sides)
        control = torch.randn((batch, 1, *points), device=image.device, dtype=image.dtype)
        bent = smooth(control, sides, [max(side - 1, 1) for side in sides])
        bent = bent - bent.mean(dim=axes, keepdim=True)
        bent = bent / bent.abs().amax(dim=axes, keepdim=True).clamp_min(1e-6)
        return (uniform(image, 0, self.strength) * bent).exp()


class Gibbs(Settings):
    """Ringing at edges, for lack of the ``U(0, strength)`` highest frequencies of each axis [1].

    A Cartesian scan ends along each axis by itself. MONAI's ``GibbsNoise`` keeps a ball, which
    spares short axes and cuts the corners of a volume even at a strength of 0. To the Fourier
    transform a patch repeats itself, so opposite borders ring into each other.

    [1] Morelli et al., An image-based approach to understanding the physics of MR artifacts,
        RadioGraphics 31(3), 2011.
    """

    share: Fraction = 0.5
    strength: Fraction = 0.5

    def __call__(self, image: Image) -> Image:
        """As above; ``image`` itself where ``share`` is 0."""
        return _measured_anew(image, self.share, self._truncated)

    def _truncated(self, image: Image) -> Image:
        axes = tuple(range(2, image.ndim))
        kept = 1 - uniform(image, 0, self.strength)
        waves = torch.fft.fftn(image, dim=axes)
        for axis in axes:
            frequency = torch.fft.fftfreq(image.shape[axis], device=image.device)
            shape = [-1 if each == axis else 1 for each in range(image.ndim)]
            waves = waves * (frequency.abs().view(shape) <= kept / 2)
        ringing: Image = torch.fft.ifftn(waves, dim=axes).real
        return ringing


class Rician(Settings):
    """The magnitude of a signal with noise of ``U(0, deviation)`` standard deviations [1, Eq. 1].

    ``sqrt((signal + noise)^2 + other_noise^2)``: like Gaussian noise where the signal is strong;
    where there is none, it brightens.

    [1] Gudbjartsson and Patz, The Rician distribution of noisy MRI data, MRM 34(6), 1995.
    """

    share: Fraction = 0.5
    deviation: NonNegative = 0.2

    def __call__(self, image: Image) -> Image:
        """As above; ``image`` itself where ``share`` is 0."""
        return _measured_anew(image, self.share, self._magnitude)

    def _magnitude(self, signal: Image) -> Image:
        deviation = uniform(signal, 0, self.deviation)
        real = signal + deviation * torch.randn_like(signal)
        return torch.hypot(real, deviation * torch.randn_like(signal))


def _measured_anew(image: Image, share: float, damage: Damage) -> Image:
    """``damage`` done to the signal of a random ``share`` of the images, where there is some."""
    if share == 0:
        return image
    unmeasured = (image == 0).all(dim=1, keepdim=True)
    axes = tuple(range(2, image.ndim))
    highest = image.amax(dim=axes, keepdim=True)
    darkest = torch.where(unmeasured, highest, image).amin(dim=axes, keepdim=True)
    changed = damage(image - darkest) + darkest
    return chosen(image, torch.where(unmeasured, image, changed), share)
