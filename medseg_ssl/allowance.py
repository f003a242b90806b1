"""How many cases are worked on at once: as many as memory has room for."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from medseg_ssl.files import open_volume

MEMORY_MB = 4096
"""What cases that are worked on at once may take together, where no setting says otherwise."""

OVERHEAD = 128 * 2**20
"""Bytes that a case takes whatever its size: of the slab that is computed."""

THREADS = min(8, 2 * (os.cpu_count() or 1))
"""At most; reading and unpacking files takes its time."""


class Allowance:
    """Bytes that may be taken at once. What is larger than all of them is taken alone."""

    def __init__(self, memory_mb: int) -> None:
        self._total = memory_mb * 2**20
        self._taken: list[int] = []
        self._changed = threading.Condition()

    @contextmanager
    def take(self, needed: int) -> Iterator[None]:
        """Wait until there is room for ``needed`` bytes, and hold them."""
        with self._changed:
            self._changed.wait_for(
                lambda: not self._taken or sum(self._taken) + needed <= self._total
            )
            self._taken.append(needed)
        try:
            yield
        finally:
            with self._changed:
                self._taken.remove(needed)
                self._changed.notify_all()


def stored_bytes(paths: Sequence[Path]) -> int:
    """What the voxels of files take in memory as they are stored, from their headers.

    Raises:
        DataError: When one of them cannot be read.
    """
    images = [open_volume(path) for path in paths]
    return sum(int(np.prod(i.shape, dtype=object)) * i.get_data_dtype().itemsize for i in images)
