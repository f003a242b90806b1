"""Connected pieces of label maps: nothing here waits for a device."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor

from common.batch import IGNORE, Labels

Window = tuple[slice, ...]


def largest_components(target: Labels) -> Labels:
    """Each class of each image, reduced to its largest connected piece [1].

    What is cut off becomes class 0, which keeps all its pieces; so does IGNORE. Of pieces equally
    large the one with the first pixel stays. Pixels that touch at a corner are connected.

    [1] Bai et al., BCP, CVPR 2023, arXiv:2305.00673.
    """
    if target.device.type == "cpu":  # many times as fast there, where nothing has to wait
        cleaned = [_largest_on_host(image) for image in target.numpy()]
        return torch.from_numpy(np.stack(cleaned)) if cleaned else target
    return largest_on_device(target)


def largest_on_device(target: Labels) -> Labels:
    """:func:`largest_components` on any device, without waiting for it."""
    label, piece = target.flatten(1), pieces(target).flatten(1)
    pixels = label.shape[1]
    sizes = torch.zeros_like(piece).scatter_add(1, piece, torch.ones_like(piece))
    rank = sizes.gather(1, piece) * pixels + (pixels - 1 - piece)  # the larger, then the earlier
    best = rank.new_zeros(len(rank), IGNORE + 1).scatter_reduce(1, label, rank, "amax")
    stays = (rank == best.gather(1, label)) | (label == 0) | (label == IGNORE)
    return torch.where(stays, label, 0).view_as(target)


def piece_sizes(target: Labels) -> Labels:
    """How many pixels the connected piece of each pixel has; IGNORE is a class like others.

    Pixels that touch at a corner are connected.
    """
    if target.device.type == "cpu":
        sizes = [_sizes_on_host(image) for image in target.numpy()]
        return torch.from_numpy(np.stack(sizes)) if sizes else target
    piece = pieces(target).flatten(1)
    counts = torch.zeros_like(piece).scatter_add(1, piece, torch.ones_like(piece))
    return counts.gather(1, piece).view_as(target)


def pieces(target: Labels) -> Labels:
    """Which connected piece each pixel belongs to, as the flat index of its first pixel.

    Every pixel points to an earlier one of its piece, at first to itself. In each round it hears
    of the earliest that its neighbors point to and passes that on to the one it pointed to; then
    all pointers are followed once [1]. So whole trees merge at once, and the logarithm of the
    number of pixels bounds the rounds: blobs need a third of them, a snake through all of the
    image two fewer. Were they ever too few, a piece would count as several.

    [1] Zhang et al., FastSV, 2020, arXiv:1910.05971.
    """
    shape, pixels = target.shape, target[0].numel()
    first = torch.arange(pixels, device=target.device).expand(shape[0], -1)
    pairs = [(a, b, target[a] == target[b]) for a, b in _neighbors(shape[1:])]
    for _ in range(pixels.bit_length()):
        seen = _earliest(first.view(shape), pairs).flatten(1)
        first = first.scatter_reduce(1, first, seen, "amin").minimum(seen)
        first = first.gather(1, first)
    return first.view(shape)


def classes_in(label: npt.NDArray[np.int64]) -> list[int]:
    """The classes of a label map, IGNORE among them, in order."""
    found: list[int] = np.flatnonzero(np.bincount(label.ravel())).tolist()
    return found


def _largest_on_host(image: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    touching, cleaned = np.ones((3,) * image.ndim), image.copy()
    for index in set(classes_in(image)) - {0, IGNORE}:
        piece, _ = ndimage.label(image == index, touching)
        sizes = np.bincount(piece.ravel())
        sizes[0] = 0  # the other classes
        cleaned[(piece > 0) & (piece != sizes.argmax())] = 0
    return cleaned


def _sizes_on_host(image: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    touching, sizes = np.ones((3,) * image.ndim), np.zeros_like(image)
    for index in classes_in(image):
        piece, _ = ndimage.label(image == index, touching)
        counts = np.bincount(piece.ravel())
        counts[0] = 0  # the other classes
        sizes += counts[piece]
    return sizes


def _earliest(first: Labels, pairs: list[tuple[Window, Window, Tensor]]) -> Labels:
    seen = first.clone()
    for here, there, same in pairs:
        both = torch.minimum(seen[here], seen[there])
        seen[here] = torch.where(same, both, seen[here])
        seen[there] = torch.where(same, torch.minimum(both, seen[there]), seen[there])
    return seen


def _neighbors(sides: torch.Size) -> Iterator[tuple[Window, Window]]:
    """Pairs of windows into ``(B, *S)``: each pixel of one touches its like in the other."""
    for step in product((-1, 0, 1), repeat=len(sides)):
        if step > (0,) * len(sides):
            ends = [*zip(step, sides, strict=True)]
            here = [slice(max(0, -s), side - max(0, s)) for s, side in ends]
            there = [slice(max(0, s), side + min(0, s)) for s, side in ends]
            yield (slice(None), *here), (slice(None), *there)
