"""The data of semi-supervised papers as it is passed around: HDF5 files, and lists of cases.

* LA: ``CASE/mri_norm2.h5``, the lists in the same folder or beside it
* Pancreas-CT: ``Pancreas_h5/imageNNNN_norm.h5``
* ACDC: ``data/patientNNN_frameNN.h5``; their slices ``data/slices/*_slice_N.h5`` are not used
* BraTS 2019: ``data/BraTS19_*.h5``

Lists are ``train.list``, ``val.list`` and ``test.list``, or end in ``.txt``. Papers label the first
cases of ``train.list``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from common.errors import DataError
from common.splits import Names, listed, read_names
from medseg_ssl.cases import VolumeCase
from medseg_ssl.catalog import Catalog
from medseg_ssl.h5 import IMAGE, LABEL, SLICE, SUFFIXES, Kind, case_of, datasets, kind_of

DEPTHS = ("*", "*/*", "*/*/*")
LISTS = {"labeled": "train", "validation": "val", "test": "test"}


@dataclass
class _Lists:
    """What lists say, as far as their cases are there."""

    paths: list[Path] = field(default_factory=list)
    names: dict[str, Names] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def in_h5(data: Path) -> Catalog | None:
    """The cases of a folder of HDF5 files; None where there are none.

    A file without the dataset ``label`` is an unlabeled case.

    Raises:
        DataError: When h5py is not installed.
    """
    found = sorted(p for depth in DEPTHS for p in data.glob(depth) if p.suffix in SUFFIXES)
    files = [path for path in found if not SLICE.fullmatch(path.stem)]
    if not found:
        return None
    kinds = list(dict.fromkeys(kind_of(path) for path in files))
    kind = kinds[0] if len(kinds) == 1 else None
    cases, bare = _cases(files)
    lists = _lists(data, {case.id for case in cases})
    problems = lists.problems
    if not files:
        problems = [
            f"{found[0].parent} holds slices only: expected volumes, such as those of ACDC, "
            "data/patientNNN_frameNN.h5. Bring them, too."
        ]
    return Catalog(
        layout=f"{kind.name if kind else 'cases'} (HDF5)",
        cases=tuple(cases),
        classes=tuple((name, value) for value, name in enumerate(kind.classes)) if kind else (),
        splits={split: names for split, names in lists.names.items() if split != "labeled"},
        order=lists.names.get("labeled", ()),
        across=kind.across if kind else None,
        knows_patients=kind is not None and kind.knows_patients,
        problems=tuple(problems),
        warnings=tuple(_remarks(kind, bare)),
    )


def _cases(files: Sequence[Path]) -> tuple[list[VolumeCase], list[str]]:
    """A case for each file, and those that hold other datasets than a label."""
    cases, bare = [], []
    for file in files:
        name, patient = case_of(file)
        try:
            there = datasets(file)
        except OSError:
            there = [IMAGE, LABEL]  # what is wrong with it is told when it is looked at
        label = file / LABEL if LABEL in there else None
        cases.append(VolumeCase(name, patient, (file / IMAGE,), label))
        if label is None and set(there) - {IMAGE}:
            bare.append(f"{name} ({', '.join(there)})")
    return cases, bare


def _lists(data: Path, cases: set[str]) -> _Lists:
    """The lists in a folder; or beside it, as those of LA, where they name some of its cases."""
    for suffix in ("list", "txt"):
        if (found := _lists_in(data, suffix, cases)).paths:
            return found
    beside = _lists_in(data.absolute().parent, "list", cases)
    return beside if any(beside.names.values()) else _Lists()


def _lists_in(folder: Path, suffix: str, cases: set[str]) -> _Lists:
    found = _Lists()
    for split, name in LISTS.items():
        path = folder / f"{name}.{suffix}"
        if not path.is_file():
            continue
        found.paths.append(path)
        try:
            names = read_names(path)
        except DataError as error:
            found.problems.append(str(error))
            continue
        found.names[split] = tuple(name for name in names if name in cases)
        lost = [name for name in names if name not in cases]
        if lost:
            found.problems.append(
                f"{path} names {listed(lost)}, of which there is no file. Restore it, or take "
                "its line out of the list."
            )
    return found


def _remarks(kind: Kind | None, bare: Sequence[str]) -> list[str]:
    remarks = []
    if bare:
        remarks.append(
            f"counted as unlabeled, for want of a dataset '{LABEL}': {listed(bare)}. Rename the "
            "dataset that is one."
        )
    if kind and kind.spacing_mm:
        remarks.append(
            f"the files say neither how their voxels lie nor how large they are: axes are taken as "
            f"right, front, top, and voxels as {kind.spacing_mm:g} mm, as {kind.name} is described."
        )
    return remarks
