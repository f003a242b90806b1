"""Small HDF5 files in the folders of semi-supervised papers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np

from common.splits import read_names
from tests.medseg_ssl.volumes import image_and_label

SHAPE = (14, 12, 10)
LISTS = Path(__file__).parents[2] / "configs" / "medseg" / "splits"
KINDS: Mapping[str, tuple[str, str]] = {  # folder of a file, and its name
    "la": ("2018LA_Seg_Training Set/{}", "mri_norm2.h5"),
    "pancreas": ("Pancreas_h5", "{}_norm.h5"),
    "acdc": ("data", "{}.h5"),
    "brats": ("data", "{}.h5"),
}
SIZES = {"la": 100, "pancreas": 82, "acdc": 200, "brats": 335}


def write_h5(path: Path, **datasets: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, array in datasets.items():
            file.create_dataset(name, data=array, compression="gzip")
    return path


def classes(label: np.ndarray, count: int) -> np.ndarray:
    """Values 0, 1, 4 as the first ``count`` class values."""
    found = np.where(label == 4, min(2, count - 1), label)
    found[4, 4, 3] = count - 1
    return found


def make(folder: Path, kind: str, names: Sequence[str]) -> Path:
    """``names`` as files of ``kind``: ACDC has its slices first, Pancreas-CT labels in float32."""
    inner, name = KINDS[kind]
    for number, case in enumerate(names):
        image, label = image_and_label(number, SHAPE)
        label = classes(label, 4 if kind == "acdc" else 2)
        label = label.astype(np.float32 if kind == "pancreas" else np.uint8)
        if kind == "acdc":
            image, label = image.T, label.T
        write_h5(folder / inner.format(case) / name.format(case), image=image, label=label)
    return folder


def listed(kind: str) -> tuple[str, ...]:
    """Every case that the lists of ``configs`` name."""
    paths = sorted(LISTS.glob(f"{kind}_*.txt"))
    return tuple(dict.fromkeys(name for path in paths for name in read_names(path)))


def all_cases(kind: str) -> list[str]:
    """As many cases as the data of papers has; those that no list names get other names."""
    names = list(listed(kind))
    left = SIZES[kind] - len(names)
    if kind == "acdc":
        free = (f"patient{n:03d}" for n in range(1, 101))
        taken = {name.partition("_")[0] for name in names}
        more = [f"{p}_frame{f:02d}" for p in free if p not in taken for f in (1, 2)]
    elif kind == "pancreas":
        more = [name for n in range(1, 83) if (name := f"image{n:04d}") not in names]
    else:
        more = [f"{'BraTS19_' if kind == 'brats' else ''}REST{n:04d}" for n in range(left)]
    assert len(more) == left
    return names + more
