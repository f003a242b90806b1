"""Peak memory of predicting a scene of 20,000 x 20,000 pixels, 4 bands, 6 classes.

Run by hand: ``python -m benchmarks.scene_memory [--side 20000] [--tile 512]``. Pixels are made on
the fly and the network is one layer, so what is measured is the sliding window: time without
network and files, and memory that no file backs. Needs 4.5 GiB in the temporary folder.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from rsseg_ssl.inference import InferenceSettings, predict_scene
from rsseg_ssl.reader import Window

BANDS, CLASSES = 4, 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=20_000)
    parser.add_argument("--tile", type=int, default=512)
    chosen = parser.parse_args()
    side, tile = chosen.side, chosen.tile
    torch.manual_seed(0)
    network = nn.Conv2d(BANDS, CLASSES, 1).eval()
    highest = before = anonymous_mib()

    def read(window: Window) -> tuple[np.ndarray, np.ndarray]:
        nonlocal highest
        highest = max(highest, anonymous_mib())
        rows = np.arange(window.top, window.top + window.height, dtype=np.uint16)
        columns = np.arange(window.left, window.left + window.width, dtype=np.uint16)
        plane = rows[:, None] + columns
        return np.stack([plane] * BANDS), np.ones(plane.shape, bool)

    start = time.perf_counter()
    found = predict_scene(
        network,
        read,
        shape_yx=(side, side),
        tile=tile,
        classes=CLASSES,
        settings=InferenceSettings(),
        normalize=scaled,
    )
    seconds = time.perf_counter() - start
    corners = found[:, :: side - 1, :: side - 1].float().sum(dim=0)
    assert torch.allclose(corners, torch.ones(2, 2), atol=2e-3)
    whole = 4 * CLASSES * side**2 / 2**20
    print(
        f"{side} x {side} pixels, tile {tile}: {seconds:.0f} s, "
        f"{highest - before:.0f} MiB of memory (the result in memory would be {whole:.0f} MiB)"
    )


def scaled(raw: Tensor, valid: Tensor) -> Tensor:
    return raw / 40_000


def anonymous_mib() -> float:
    """Memory of this process that no file backs (Linux)."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 1024


if __name__ == "__main__":
    main()
