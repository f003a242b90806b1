"""A place for what may be larger than memory."""

from __future__ import annotations

import math
import shutil
import tempfile

import numpy as np
import torch
from torch import Tensor

from common.errors import DataError


def room(shape: tuple[int, ...], memory_mb: int) -> Tensor:
    """Zeros: float32 in memory, or float16 in a file that the system removes with its last use.

    Args:
        shape: Of probabilities, the classes first.
        memory_mb: What is larger lies in the folder for temporary files.

    Raises:
        DataError: When the disk has no room for it.
    """
    if 4 * math.prod(shape) <= memory_mb * 2**20:
        return torch.zeros(shape)
    needed, free = 2 * math.prod(shape), shutil.disk_usage(tempfile.gettempdir()).free
    if needed > free:
        raise DataError(
            f"a prediction of {' x '.join(map(str, shape))} needs {needed / 2**30:.1f} GiB in "
            f"'{tempfile.gettempdir()}', {free / 2**30:.1f} are free. Set the environment variable "
            "TMPDIR to a folder with room, or raise domain.inference.memory_mb."
        )
    with tempfile.TemporaryFile(prefix="seg-ssl-") as file:
        return torch.from_numpy(np.memmap(file, dtype=np.float16, mode="w+", shape=shape))
