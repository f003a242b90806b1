"""The few nouns everything else speaks about.

Axes, everywhere: ``B`` batch, ``C`` channel, ``K`` class, and ``*S`` the spatial axes
(``H W`` for tiles, ``D H W`` for volumes). Nothing in ``common`` knows which.

These are named tuples so that loaders, devices and Fabric can carry them.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from common.errors import ShapeError

Image: TypeAlias = Float[Tensor, "B C *S"]
Logits: TypeAlias = Float[Tensor, "B K *S"]
Probs: TypeAlias = Float[Tensor, "B K *S"]
SomeImage: TypeAlias = Float[Tensor, "_ C *S"]  # one of several batches, each of its own size
SomeLogits: TypeAlias = Float[Tensor, "_ K *S"]
Labels: TypeAlias = Int[Tensor, "B *S"]
Weights: TypeAlias = Float[Tensor, "B *S"]
Mask: TypeAlias = Bool[Tensor, "B *S"]
Regions: TypeAlias = Float[Tensor, "B *cells"]  # one number for each cell of a coarser grid
Verdicts: TypeAlias = Float[Tensor, "judges peers B *cells"]  # on regions of each peer's
Possible: TypeAlias = Bool[Tensor, "B K *#S"]  # sides of 1 where all pixels of an image agree
Scalar: TypeAlias = Float[Tensor, ""]
Grid: TypeAlias = Int[Tensor, "*S"]  # one label map, without a batch axis
ClassVolume: TypeAlias = Float[Tensor, "K *S"]  # one probability map, without a batch axis
ClassMap: TypeAlias = Float[Tensor, "K ..."]  # the same, on a grid of its own
TrustMap: TypeAlias = Float[Tensor, "*S"]  # one map of weights, without a batch axis
Marked: TypeAlias = Bool[Tensor, "*S"]  # pixels chosen, without a batch axis
PerClass: TypeAlias = Float[Tensor, " K"]
Reliability: TypeAlias = Float[Tensor, "3 K bins"]  # pixels, right ones, summed confidence
FewerSteps: TypeAlias = Float[Tensor, "3 K steps"]  # the same, in wider bins
Confusion: TypeAlias = Int[Tensor, "K K"]  # rows: truth, columns: prediction

IGNORE = 255
"""Class index that no loss and no metric looks at."""


class Labeled(NamedTuple):
    """Images with their annotation."""

    image: Image
    target: Labels  # IGNORE where nobody annotated


class Unlabeled(NamedTuple):
    """Images without annotation, already weakly augmented by the domain."""

    image: Image
    valid: Mask  # False in no-data and in padding
    possible: Possible  # False where a weak label rules a class out


class Pixel(NamedTuple):
    """How large a pixel or voxel is."""

    size: tuple[float, ...] = ()  # along each spatial axis; empty: 1
    unit: Literal["mm", "m", "pixel"] = "pixel"

    @property
    def content(self) -> float:
        """Its area or volume."""
        return math.prod(self.size)

    def along(self, dims: int) -> tuple[float, ...]:
        """Its size along each of ``dims`` axes."""
        return self.size or (1.0,) * dims


class Whole(NamedTuple):
    """A whole case as if it were a batch of one unlabeled image, on its own grid."""

    weak: Unlabeled
    pixel: Pixel

    @classmethod
    def of(cls, image: Tensor, valid: Tensor, num_classes: int, *, pixel: Pixel) -> Whole:
        """An image ``(C, *S)`` and where it holds data ``(*S)``, every class possible."""
        anything = torch.ones(1, num_classes, *[1] * valid.ndim, dtype=torch.bool)
        return cls(Unlabeled(image[None], valid[None], anything), pixel)


class Batch(NamedTuple):
    """What one training step sees."""

    labeled: Labeled
    unlabeled: Unlabeled


class Pseudo(NamedTuple):
    """Labels a model made for itself, and how far each may be trusted."""

    target: Labels  # IGNORE where there is nothing to label
    weight: Weights  # in [0, 1]; 0 drops the pixel

    @property
    def predicted(self) -> Labels:
        """The class of each pixel, IGNORE where there is nothing to label."""
        return self.target


class SoftPseudo(NamedTuple):
    """The same, before anybody decided: class probabilities and their trust."""

    probs: Probs
    weight: Weights  # in [0, 1]; 0 drops the pixel

    @property
    def predicted(self) -> Labels:
        """The most probable class of each pixel."""
        return most_probable(self.probs)


def check_batch(batch: Batch, num_channels: int, num_classes: int) -> None:
    """Fail early and in words. Run once per run, on the first batch.

    Raises:
        ShapeError: When axes, values or class indices break the agreement above.
    """
    for name, image, grid in (
        ("labeled", batch.labeled.image, batch.labeled.target),
        ("unlabeled", batch.unlabeled.image, batch.unlabeled.valid),
    ):
        if image.shape[1] != num_channels:
            raise ShapeError(
                f"{name}.image has {image.shape[1]} channels, the task has {num_channels}: "
                "images of one run must agree in their channels."
            )
        if image[:, 0].shape != grid.shape:
            raise ShapeError(
                f"{name}: image {tuple(image.shape)} and its grid {tuple(grid.shape)} must share "
                "batch and spatial axes."
            )
        if not bool(image.isfinite().all()):
            raise ShapeError(
                f"{name}.image holds NaN or infinite values: the domain must replace them and "
                "mark the pixels as not valid."
            )
    possible, valid = batch.unlabeled.possible, batch.unlabeled.valid
    if possible.shape[:2] != (len(valid), num_classes):
        raise ShapeError(
            f"unlabeled.possible has shape {tuple(possible.shape)}: expected one flag for each of "
            f"the {num_classes} classes of each of the {len(valid)} images."
        )
    if not bool((possible.any(dim=1) | ~valid).all()):
        raise ShapeError(
            "unlabeled.possible leaves a valid pixel without any class: the weak labels of its "
            "image contradict each other."
        )
    found = set(torch.unique(batch.labeled.target).tolist())
    strange = sorted(c for c in found if not 0 <= c < num_classes and c != IGNORE)
    if strange:
        raise ShapeError(
            f"labeled.target holds classes {strange}; the task has 0..{num_classes - 1} and "
            f"IGNORE={IGNORE}. Remap the labels or list the classes in the config."
        )


def most_probable(probs: Tensor, dim: int = 1) -> Tensor:
    """The class with the largest value, of equal ones the first.

    It is ``argmax``, which takes several times as long on a CPU.

    Args:
        probs: Probabilities or logits.
        dim: Axis of the classes.
    """
    return probs.max(dim=dim).indices


def label_map(probs: ClassMap, *, rows: int = 32) -> Grid:
    """The most probable class of each pixel of a whole case, int16.

    Works through ``rows`` at a time, so that probabilities may lie on disk.

    Args:
        probs: ``(K, X, ...)``.
        rows: Along the first spatial axis.
    """
    label = torch.empty(probs.shape[1:], dtype=torch.int16)
    for first in range(0, len(label), rows):
        label[first : first + rows] = most_probable(probs[:, first : first + rows], dim=0)
    return label


def confidence_map(probs: ClassMap, *, rows: int = 32) -> TrustMap:
    """The largest probability of each pixel of a whole case, float32; as :func:`label_map`."""
    confidence = torch.empty(probs.shape[1:])
    for first in range(0, len(confidence), rows):
        confidence[first : first + rows] = probs[:, first : first + rows].amax(dim=0)
    return confidence


def one_hot(target: Labels, num_classes: int) -> Probs:
    """``(B, *S)`` class indices to ``(B, K, *S)`` zeros and ones; IGNORE is zero everywhere."""
    known = target != IGNORE
    index = torch.where(known, target, 0).unsqueeze(1)
    ones = known.unsqueeze(1).to(torch.float32)
    shape = (target.shape[0], num_classes, *target.shape[1:])
    return torch.zeros(shape, device=target.device).scatter_(1, index, ones)
