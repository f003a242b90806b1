"""From cases to training patches: which voxels a step sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from common.batch import IGNORE, Labeled, Unlabeled
from common.weak_labels import ClassSets, everywhere, possible
from medseg_ssl.augment import Placement, WeakView, place
from medseg_ssl.cases import Corner, Sides, UnlabeledVolume, VolumeCase
from medseg_ssl.hints import WeakLabels, tag_classes
from medseg_ssl.store import Store


@dataclass(frozen=True, slots=True)
class Cutting:
    """How patches are cut."""

    patch: Sides
    channels: int
    weak: WeakView
    foreground_share: float  # of the labeled patches: centered on a voxel of some class


@dataclass(frozen=True)
class LabeledPool:
    """Patches with their annotation."""

    store: Store
    cases: Sequence[VolumeCase]
    cutting: Cutting

    def __len__(self) -> int:
        return len(self.cases)

    def draw(self, index: int, rng: np.random.Generator) -> Labeled:
        case, cutting = self.cases[index], self.cutting
        volume, target = self.store.volume(case.images), self.store.target(case)
        start = anywhere(target.shape, cutting.patch, rng)
        if rng.random() < cutting.foreground_share:
            start = around(self.store.foreground(case), start, target.shape, cutting.patch, rng=rng)
        view = place(
            cutting.weak, start, cutting.patch, spacing_mm=self.store.recipe.spacing_mm, rng=rng
        )
        return Labeled(image=view.image(volume.image), target=view.target(target))

    def nothing(self) -> Labeled:
        image, grid = empty(self.cutting)
        return Labeled(image=image, target=grid.to(torch.int64))


@dataclass(frozen=True)
class UnlabeledPool:
    """Patches of volumes whose labels, if there are any, nobody here knows of."""

    store: Store
    volumes: Sequence[UnlabeledVolume]
    cutting: Cutting
    said: WeakLabels

    def __len__(self) -> int:
        return len(self.volumes)

    def draw(self, index: int, rng: np.random.Generator) -> Unlabeled:
        volume, cutting = self.volumes[index], self.cutting
        image = self.store.volume(volume.images).image
        start = anywhere(image.shape[1:], cutting.patch, rng)
        view = place(
            cutting.weak, start, cutting.patch, spacing_mm=self.store.recipe.spacing_mm, rng=rng
        )
        return Unlabeled(
            image=view.image(image),
            valid=view.valid(image.shape[1:]),
            possible=self._possible(volume, view),
        )

    def nothing(self) -> Unlabeled:
        image, grid = empty(self.cutting)
        every = range(len(self.said.classes))
        flags = torch.from_numpy(everywhere(every, len(every), dims=3))
        return Unlabeled(image, grid, flags.expand(0, -1, -1, -1, -1))

    def _possible(self, volume: UnlabeledVolume, view: Placement) -> torch.Tensor:
        """Flags ``(K, *sides)``, moved as the image is; sides of 1 where no voxel is special."""
        hints, num_classes = self.said.of(volume), len(self.said.classes)
        if hints.is_spatial:
            return decoded(view, self.store.class_sets(volume, hints, self.said.classes))
        left = tag_classes(hints, num_classes)
        flags = torch.from_numpy(everywhere(left, num_classes, dims=3))
        return flags.expand(-1, *self.cutting.patch) if self.said.tell_voxels_apart else flags


def decoded(view: Placement, sets: ClassSets) -> torch.Tensor:
    """Whether each voxel of a patch can have each class, ``(K, *sides)``; outside it can."""
    row = view.target(sets.row)
    row = torch.where(row == IGNORE, 0, row)
    return torch.from_numpy(possible(ClassSets(row.numpy(), sets.table)))


def anywhere(shape: Sequence[int], patch: Sides, rng: np.random.Generator) -> Corner:
    """A uniformly random corner; a volume smaller than the patch lies anywhere within it."""
    x, y, z = (
        int(rng.integers(min(0, side - length), max(0, side - length) + 1))
        for side, length in zip(shape, patch, strict=True)
    )
    return x, y, z


def around(
    foreground: np.ndarray,
    otherwise: Corner,
    shape: Sequence[int],
    patch: Sides,
    *,
    rng: np.random.Generator,
) -> Corner:
    """The corner of a patch around a random voxel of a random class, as far as the volume reaches.

    Args:
        foreground: Rows ``(class, x, y, z)``, sorted by class.
        otherwise: The answer where there is no foreground.
        shape: Of the volume, in voxels.
        patch: Its sides, in voxels.
        rng: Decides class and voxel.
    """
    if len(foreground) == 0:
        return otherwise
    classes, first = np.unique(foreground[:, 0], return_index=True)
    chosen = int(rng.integers(len(classes)))
    end = first[chosen + 1] if chosen + 1 < len(classes) else len(foreground)
    voxel = foreground[int(rng.integers(first[chosen], end)), 1:]
    x, y, z = (
        int(np.clip(center - length // 2, min(0, side - length), max(0, side - length)))
        for center, side, length in zip(voxel, shape, patch, strict=True)
    )
    return x, y, z


def empty(cutting: Cutting) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch of no patches: image ``(0, C, *S)`` and a boolean grid ``(0, *S)``."""
    return (
        torch.zeros(0, cutting.channels, *cutting.patch),
        torch.zeros(0, *cutting.patch, dtype=torch.bool),
    )
