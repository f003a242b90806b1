"""Memory and time of many large volumes: looked at, preprocessed, and drawn from.

`python -m benchmarks.preprocessing [--cases 50] [--shape 512 512 300] [--spacing 1.5 1.5 1.5]`:
synthetic CTs (`.nii.gz`, int16, 0.8 x 0.8 x 1 mm), every other one with a label. They are one file
under many names, so that what fills the disk is the cache alone: for each case 4 bytes per voxel of
the preprocessed grid, 5 with a label. It lies in the temporary folder and is removed at the end.

Anonymous memory is what no file backs: what a process takes from others. Pages of memory maps are
counted apart; the system takes them back when it needs them.
"""

from __future__ import annotations

import argparse
import functools
import os
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from medseg_ssl.augment import WeakView
from medseg_ssl.batches import Cutting, LabeledPool, UnlabeledPool
from medseg_ssl.cases import UnlabeledVolume, VolumeCase
from medseg_ssl.hints import WeakLabels
from medseg_ssl.look import look_at
from medseg_ssl.preparation import prepare
from medseg_ssl.preprocess import Recipe
from medseg_ssl.settings import MEMORY_MB
from medseg_ssl.store import Store

CLASSES = ("background", "organ", "lesion")
PATCHES = 200
SHARES = (0.1, 0.5, 1.0)
"""Of the cases that patches are drawn from: does memory grow with them?"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=50)
    parser.add_argument("--shape", type=int, nargs=3, default=(512, 512, 300))
    parser.add_argument("--spacing", type=float, nargs=3, default=(1.5, 1.5, 1.5))
    parser.add_argument("--memory-mb", type=int, default=MEMORY_MB)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="seg-ssl-") as folder:
        cases = made(Path(folder), chosen.cases, tuple(chosen.shape))
        x, y, z = chosen.spacing
        store = Store(Path(folder) / "cache", Recipe(spacing_mm=(x, y, z)))
        print("| what | s per case or patch | anonymous MiB, peak | pages of files, MiB, peak |")
        print("|---|---|---|---|")
        count = len(cases)
        tell(f"inspect {count} cases", count, lambda: look_at(cases, store.folder))
        work = functools.partial(preprocess_all, store, cases, chosen.memory_mb)
        tell(f"preprocess {count} cases", count, work)
        draw(store, cases[:2])  # what the first patches need, all others need, too
        for share in SHARES:
            some = cases[: max(2, round(share * count))]
            work = functools.partial(draw, store, some)
            tell(f"draw {PATCHES} patches of 128x128x64 from {len(some)} cases", PATCHES, work)


def made(folder: Path, count: int, shape: tuple[int, ...]) -> list[VolumeCase]:
    """Cases whose files are links to one image and one label."""
    x, y, z = (np.linspace(-1, 1, side, dtype=np.float32) for side in shape)
    inside = x[:, None] ** 2 + y[None] ** 2 < 0.6
    plane = np.where(inside, 40, -1000) + np.random.default_rng(0).integers(-30, 30, inside.shape)
    image = plane.astype(np.int16)[..., None] + (10 * z).astype(np.int16)
    label = np.zeros(shape, np.uint8)
    label[tuple(slice(n // 3, n // 2) for n in shape)] = 1
    label[tuple(slice(n // 3, n // 3 + max(1, n // 10)) for n in shape)] = 2
    for name, array in (("image", image), ("label", label)):
        nib.save(nib.Nifti1Image(array, np.diag([-0.8, -0.8, 1.0, 1.0])), folder / f"{name}.nii.gz")
    found = []
    for number in range(count):
        files = [folder / f"c{number}_{kind}.nii.gz" for kind in ("image", "label")]
        for kind, path in zip(("image", "label"), files, strict=True):
            os.link(folder / f"{kind}.nii.gz", path)
        label_path = files[1] if number % 2 == 0 else None
        found.append(VolumeCase(f"c{number}", f"c{number}", (files[0],), label_path, (0, 1, 2)))
    return found


def preprocess_all(store: Store, cases: list[VolumeCase], memory_mb: int) -> None:
    wanted = [store.wanted_volume(case, 1) for case in cases]
    wanted += [store.wanted_target(case) for case in cases if case.label]
    prepare(wanted, store.recipe, store.folder, memory_mb=memory_mb, watch=lambda *_: None)


def draw(store: Store, cases: list[VolumeCase]) -> None:
    cutting = Cutting((128, 128, 64), 1, WeakView(), foreground_share=0.5)
    labeled = LabeledPool(store, [case for case in cases if case.label], cutting)
    volumes = [UnlabeledVolume(case.id, case.images) for case in cases if not case.label]
    unlabeled = UnlabeledPool(store, volumes, cutting, WeakLabels(CLASSES))
    rng = np.random.default_rng(0)
    for step in range(PATCHES // 2):
        labeled.draw(step % len(labeled), rng)
        unlabeled.draw(step % len(unlabeled), rng)


def tell(what: str, count: int, work: Callable[[], object]) -> None:
    """One row: seconds and memory of ``work``, beyond what the process held before."""
    before, peak, done = held_mib(), held_mib(), threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.02):
            peak = np.maximum(peak, held_mib())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    seconds = (time.perf_counter() - start) / count
    anonymous, files = peak - before
    print(f"| {what} | {seconds:.2f} | {anonymous:.0f} | {files:.0f} |", flush=True)


def held_mib() -> np.ndarray:
    """Anonymous memory of this process, and pages of files that it maps (Linux)."""
    status = Path("/proc/self/status").read_text()
    rows = ("RssAnon:", "RssFile:")
    return np.array([int(status.split(row)[1].split()[0]) / 1024 for row in rows])


if __name__ == "__main__":
    main()
