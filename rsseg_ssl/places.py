"""Where in a scene each class was annotated, so that windows can be drawn around rare ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.batch import IGNORE
from rsseg_ssl.reader import Window

BLOCK = 64  # pixels; a finer grid finds small things better and takes more memory


class Places(NamedTuple):
    """How many pixels of each class lie in each block of a scene."""

    shape_yx: tuple[int, int]
    counts: NDArray[np.int64]  # (K, blocks down, blocks across)

    def around(self, window: Window, rng: np.random.Generator) -> Window:
        """``window``, moved to a random place of a random class that the scene shows.

        Every class that was annotated is as likely as any other; its blocks are as likely as
        they hold pixels of it. The window's middle lies anywhere in the block, as far as the
        scene reaches. Where nothing was annotated ``window`` stays.
        """
        present = np.flatnonzero(self.counts.any(axis=(1, 2)))
        if len(present) == 0:
            return window
        counts = self.counts[rng.choice(present)]
        block = int(rng.choice(counts.size, p=counts.ravel() / counts.sum()))
        row, column = divmod(block, counts.shape[1])
        (top, left), sides = (row * BLOCK, column * BLOCK), (window.height, window.width)
        top, left = (
            _start(first, extent, side, rng)
            for first, extent, side in zip((top, left), self.shape_yx, sides, strict=True)
        )
        return window._replace(top=top, left=left)


def places(
    read: Callable[[Window], NDArray[np.uint8]], shape_yx: tuple[int, int], num_classes: int
) -> Places:
    """Count the pixels of each class, a row of blocks at a time.

    Args:
        read: A window to its class indices, IGNORE where nobody looked.
        shape_yx: Height and width of the scene in pixels.
        num_classes: K.
    """
    rows = [_row(read(strip), num_classes) for strip in _strips(shape_yx)]
    return Places(shape_yx, np.stack(rows, axis=1))


def _strips(shape_yx: tuple[int, int]) -> Iterator[Window]:
    height, width = shape_yx
    for top in range(0, height, BLOCK):
        yield Window(top, 0, min(BLOCK, height - top), width)


def _row(strip: NDArray[np.uint8], num_classes: int) -> NDArray[np.int64]:
    """The counts ``(K, blocks across)`` of one row of blocks."""
    across = -(-strip.shape[1] // BLOCK)
    block = np.arange(strip.shape[1]) // BLOCK
    known = strip != IGNORE
    index = (strip.astype(np.int64) * across + block)[known]
    return np.bincount(index, minlength=num_classes * across).reshape(num_classes, across)


def _start(first: int, extent: int, side: int, rng: np.random.Generator) -> int:
    """Where a window begins whose middle lies in the block that begins at ``first``."""
    middle = first + int(rng.integers(min(BLOCK, extent - first)))
    low, high = sorted((0, extent - side))
    return int(np.clip(middle - side // 2, low, high))
