"""Two views of a patch. Weak moves voxels, before the batch; strong changes their values, on it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from common.batch import IGNORE, Image
from common.settings import Fraction, NonNegative, Settings
from common.views import Blur, Contrast, Cutout, GainOffset, Gamma, LowResolution, Noise
from medseg_ssl.cases import Corner, Sides
from medseg_ssl.elastic import Elastic
from medseg_ssl.monai_transform import MonaiTransform
from medseg_ssl.mri import BiasField, Gibbs, Rician
from medseg_ssl.resampling import Mode, sampled

Axis: TypeAlias = Literal["left_right", "back_front", "down_up"]
AXES: tuple[Axis, ...] = ("left_right", "back_front", "down_up")
"""The axes of the preprocessed grid, which runs to the right, the front and the top."""


class WeakView(Settings):
    """Flips, small affine moves and, where asked for, elastic ones: what keeps anatomy anatomy.

    Values are drawn uniformly from minus to plus each bound. Rotation and scale act in mm, so
    thick slices do not shear.
    """

    flip_axes: tuple[Axis, ...] = AXES  # each with probability 0.5
    affine_share: Fraction = 0.3  # of the patches; the others keep their voxels as they are
    # about each axis, or about the first, second and third; [0, 0, 10] keeps a slice a slice
    rotation_degrees: NonNegative | tuple[NonNegative, NonNegative, NonNegative] = 10.0
    scale: Fraction = 0.1  # zoom by exp(U(-scale, scale))
    elastic: Elastic = Elastic(share=0)  # off unless the file speaks of it

    @property
    def mirrors(self) -> tuple[int, ...]:
        """The spatial axes that are flipped, in order."""
        return tuple(axis for axis, name in enumerate(AXES) if name in self.flip_axes)


class StrongView(Settings):
    """Photometric changes, each for a random ``share`` of the images; 0 turns one off.

    First what a scanner does to the signal, last what hides parts of it. Those that are off by
    default are on where the file speaks of them.
    """

    bias_field: BiasField = BiasField(share=0)
    gibbs: Gibbs = Gibbs(share=0)
    rician: Rician = Rician(share=0)
    gamma: Gamma = Gamma(share=0.5, strength=0.4)
    brightness: GainOffset = GainOffset(share=0.5, gain=0.2, offset=0.2)
    contrast: Contrast = Contrast(share=0.5, strength=0.3)
    noise: Noise = Noise(share=0.5, deviation=0.2)
    blur: Blur = Blur(share=0.3, sigma_pixels=1.0)
    low_resolution: LowResolution = LowResolution(share=0.25, factor=1.8)
    monai: tuple[MonaiTransform, ...] = ()  # in turn; each has a probability of its own
    cutout: Cutout = Cutout(share=0)

    def __call__(self, image: Image) -> Image:
        """A harder image on the same voxels; drawn from torch's generator."""
        if image.shape[0] == 0:
            return image
        steps: tuple[Callable[[Image], Image], ...] = (
            self.bias_field,
            self.gibbs,
            self.rician,
            self.low_resolution,
            self.blur,
            self.gamma,
            self.contrast,
            self.brightness.apart,
            self.noise,
            *self.monai,
            self.cutout,
        )
        for step in steps:
            image = step(image)
        return image


def cut(volume: np.ndarray, start: Corner, sides: Sides, *, fill: float) -> np.ndarray:
    """The box ``sides`` at ``start`` of a volume ``(..., X, Y, Z)``, ``fill`` outside of it.

    ``start`` may be negative and the box may reach beyond the end.
    """
    lead = volume.ndim - 3
    box = np.full((*volume.shape[:lead], *sides), fill, dtype=volume.dtype)
    source, target = [], []
    for corner, side, length in zip(start, sides, volume.shape[lead:], strict=True):
        low, high = max(corner, 0), min(corner + side, length)
        high = max(high, low)
        source.append(slice(low, high))
        target.append(slice(low - corner, high - corner))
    keep = (slice(None),) * lead
    box[(*keep, *target)] = volume[(*keep, *source)]
    return box


class Placement:
    """Where the voxels of one patch come from: a box, perhaps bent, turned, zoomed and flipped.

    Applied to image and label alike, so that they move as one.

    Args:
        start: The first voxel of the box; it may lie outside of the volume.
        sides: Of the box, in voxels.
        matrix: Turns and zooms offsets from its middle, in voxels; None leaves them.
        flips: The axes that are flipped.
        shift: Bends the box: added to the places of its voxels before these are turned, in
            voxels, ``(*sides, 3)``; None leaves them.
    """

    def __init__(
        self,
        start: Corner,
        sides: Sides,
        *,
        matrix: np.ndarray | None,
        flips: Sequence[int],
        shift: np.ndarray | None = None,
    ) -> None:
        self.start, self.sides, self.flips = start, sides, tuple(flips)
        self.matrix, self.shift = matrix, shift

    def image(self, volume: np.ndarray) -> Tensor:
        """``(C, X, Y, Z)`` to ``(C, *sides)`` float32, 0 outside the volume; linear."""
        if self._is_still:
            patch = cut(volume, self.start, self.sides, fill=0.0)
            return self._flipped(torch.from_numpy(patch).to(torch.float32))
        return self._flipped(self._sampled(volume, mode="bilinear"))

    def target(self, volume: np.ndarray) -> Tensor:
        """Labels ``(X, Y, Z)`` uint8 to ``sides`` int64, IGNORE outside the volume; nearest."""
        if self._is_still:
            patch = cut(volume, self.start, self.sides, fill=IGNORE)
            return self._flipped(torch.from_numpy(patch).to(torch.int64))
        sampled = self._sampled(volume[None], mode="nearest")[0].to(torch.int64)
        return self._flipped(torch.where(self._inside(volume.shape), sampled, IGNORE))

    def valid(self, shape: Sequence[int]) -> Tensor:
        """True where a voxel of ``sides`` comes from inside a volume of ``shape``."""
        if self._is_still:
            patch = cut(np.broadcast_to(np.True_, shape), self.start, self.sides, fill=0)
            return self._flipped(torch.from_numpy(patch))
        return self._flipped(self._inside(shape))

    @property
    def _is_still(self) -> bool:
        return self.matrix is None and self.shift is None

    def _flipped(self, patch: Tensor) -> Tensor:
        lead = patch.ndim - 3
        return patch.flip([lead + axis for axis in self.flips]) if self.flips else patch

    @functools.cached_property
    def _sources(self) -> np.ndarray:
        """For each voxel of the patch, its voxel coordinates in the volume, ``(*sides, 3)``."""
        middle = (np.array(self.sides) - 1) / 2
        axes = [np.arange(side) - half for side, half in zip(self.sides, middle, strict=True)]
        offsets = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
        if self.shift is not None:
            offsets = offsets + self.shift
        if self.matrix is not None:
            offsets = offsets @ self.matrix.T
        return np.asarray(offsets + (np.array(self.start) + middle))

    def _inside(self, shape: Sequence[int]) -> Tensor:
        along = zip(np.moveaxis(self._sources, -1, 0), shape, strict=True)
        inside = [(place >= -0.5) & (place <= side - 0.5) for place, side in along]
        return torch.from_numpy(functools.reduce(np.logical_and, inside))

    def _sampled(self, volume: np.ndarray, *, mode: Mode) -> Tensor:
        patch = sampled(volume, self._sources, mode=mode)
        return torch.where(self._inside(volume.shape[1:]), patch, 0.0)


def place(
    weak: WeakView,
    start: Corner,
    sides: Sides,
    *,
    spacing_mm: Sequence[float],
    rng: np.random.Generator,
) -> Placement:
    """Draw the weak view of the patch ``sides`` at ``start``."""
    chances = rng.random(3)
    flips = [axis for axis in weak.mirrors if chances[axis] < 0.5]
    moved = rng.random() < weak.affine_share
    angles = np.deg2rad(rng.uniform(-1, 1, 3) * weak.rotation_degrees)
    zoom = float(np.exp(rng.uniform(-1, 1) * weak.scale))
    matrix = in_voxels(rotation(angles) * zoom, spacing_mm) if moved else None
    shift = None
    if weak.elastic.share > 0 and rng.random() < weak.elastic.share:
        shift = weak.elastic.displacement_mm(sides, spacing_mm, rng) / np.array(spacing_mm)
    return Placement(start, sides, matrix=matrix, flips=flips, shift=shift)


def rotation(angles: np.ndarray) -> np.ndarray:
    """Turn about the first, then the second, then the third axis; ``angles`` in radians."""
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        turn = np.eye(3)
        one, other = [each for each in range(3) if each != axis]
        turn[one, one] = turn[other, other] = np.cos(angle)
        turn[one, other], turn[other, one] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return matrix


def in_voxels(matrix_mm: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """A linear map of mm, as a map of voxel offsets."""
    spacing = np.asarray(spacing_mm)
    return np.asarray(matrix_mm * spacing[None, :] / spacing[:, None])
