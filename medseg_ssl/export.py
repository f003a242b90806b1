"""A label map where its image lies: the same grid, affine and codes, as a NIfTI file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np
from nibabel.nifti1 import Nifti1Extension

from common.batch import IGNORE
from common.errors import DataError, GridMismatch, RunError
from medseg_ssl.cases import VolumeCase
from medseg_ssl.files import open_volume

DTYPES = (np.uint8, np.int16, np.uint16, np.int32)
"""Voxel types of label maps, the smallest first."""
COMMENT = 6
"""The code of a NIfTI header extension that holds plain text."""
PERSONAL = ("db_name", "aux_file", "intent_name", "data_type")
"""Free text of a header: scanners and hospitals write names there."""


UNMARKED = 255
"""The label value of voxels that a pseudo-label says nothing of."""


def write_labels(
    labels: np.ndarray, case: VolumeCase, path: Path, *, names: Sequence[str], about: str = ""
) -> Path:
    """Save ``labels`` with the affine, qform, sform, their codes and units of the case's image.

    What lies in ``path`` is always whole: it is written beside it first. The names of the classes
    are kept as JSON in a comment extension, and as far as they fit in ``descrip``. Free text and
    extensions of the image's header are not copied: they may name the patient.

    Args:
        labels: Class indices ``(X, Y, Z)`` on the grid of the file, in its array order; IGNORE
            becomes UNMARKED.
        case: Whose image it is; its ``values`` turn class indices into label values.
        path: Ends in ``.nii.gz`` or ``.nii``.
        names: Of the classes, the background first.
        about: Goes into the comment, beside the names.

    Returns:
        ``path``.

    Raises:
        GridMismatch: When ``labels`` and the image differ in shape.
        DataError: When the image cannot be read, or a class has no label value.
        RunError: When the file cannot be written.
    """
    image = _opened(case, labels.shape)
    values = _values(labels, case)
    made = type(image)(values, image.affine, _header(image, values.dtype, case, names, about))
    with whole(path) as beside:
        nib.save(made, beside)
    return path


MOST = "confidence, the largest class probability"


def write_shares(
    shares: np.ndarray, case: VolumeCase, path: Path, *, bits: Literal[8, 16], of: str
) -> Path:
    """Save shares in whole numbers, scaled by the header, where the image of ``case`` lies.

    Args:
        shares: In [0, 1], ``(X, Y, Z)`` or ``(X, Y, Z, K)``, in memory or on disk.
        case: Whose image it is.
        path: Ends in ``.nii.gz`` or ``.nii``.
        bits: Of each number.
        of: What they are, for the header.

    Raises:
        GridMismatch, DataError, RunError: As :func:`write_labels`.
    """
    image = _opened(case, shares.shape[:3])
    dtype = np.dtype(f"uint{bits}")
    header = _bare(image, dtype)
    header.set_data_shape(shares.shape)
    header.set_slope_inter(1 / np.iinfo(dtype).max, 0)
    header["descrip"] = f"seg-ssl: {of}".encode("ascii", "replace")[:79]
    header["cal_max"] = 1
    made = type(image)(shares, image.affine, header)
    with whole(path) as beside:
        nib.save(made, beside)
    return path


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A place to write to that becomes ``path`` at the end: all of a file, or nothing of it.

    Raises:
        RunError: When the disk is full or the folder cannot be written; ``path`` is as before.
    """
    beside = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        yield beside
        with beside.open("rb+") as file:
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        raise RunError(
            f"{path} cannot be written ({error.strerror or error}). Free some space, or choose "
            "another folder."
        ) from error
    finally:
        beside.unlink(missing_ok=True)


def _opened(case: VolumeCase, shape: tuple[int, ...]) -> nib.Nifti1Image:
    """The image of a case, for what has a ``shape`` to be written beside it."""
    image = open_volume(case.images[0])
    if shape != image.shape[:3]:
        raise GridMismatch(
            f"case '{case.id}': label map {shape}, image {image.shape[:3]}. They must share "
            "one grid: bring the prediction back to the grid of the file before it is written."
        )
    return image


def _values(labels: np.ndarray, case: VolumeCase) -> np.ndarray:
    """Class indices to label values, in the smallest type that holds every class."""
    known = labels[labels != IGNORE]
    if known.size and not 0 <= known.min() <= known.max() < len(case.values):
        raise DataError(
            f"case '{case.id}': the label map holds classes {known.min()} to {known.max()}, but "
            f"label values are known for {len(case.values)}. Give domain.classes one per class."
        )
    table = np.full(IGNORE + 1, UNMARKED)
    table[: len(case.values)] = case.values
    unmarked = {UNMARKED} if known.size < labels.size else set()
    if unmarked & {*case.values}:
        raise DataError(
            f"case '{case.id}': a class has the label value {UNMARKED}, which says that nothing is "
            "known of a voxel. Give it another one in domain.classes."
        )
    low, high = min({*case.values} | unmarked), max({*case.values} | unmarked)
    for dtype in DTYPES:
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            values: np.ndarray = table.astype(dtype)[labels]
            return values
    raise DataError(
        f"case '{case.id}': label values {low} to {high} do not fit 32 bits. "
        "Choose smaller values in domain.classes."
    )


def _bare(image: nib.Nifti1Image, dtype: np.dtype) -> nib.Nifti1Header:
    """The image's header, as far as it says where the voxels lie."""
    header = image.header.copy()
    header.extensions.clear()
    header.set_data_dtype(dtype)
    header.set_data_shape(image.shape[:3])
    header["pixdim"][4:] = 1
    header["cal_min"] = header["cal_max"] = header["toffset"] = 0
    header.set_slope_inter(1, 0)
    for field in PERSONAL:
        if field in header:
            header[field] = b""
    return header


def _header(
    image: nib.Nifti1Image, dtype: np.dtype, case: VolumeCase, names: Sequence[str], about: str
) -> nib.Nifti1Header:
    """Of a label map."""
    header = _bare(image, dtype)
    header.set_intent("label")
    values = dict(zip(names, case.values, strict=True))
    text = ", ".join(f"{value} {name}" for name, value in values.items())
    header["descrip"] = f"seg-ssl: {text}".encode("ascii", "replace")[:79]
    said = {"software": "seg-ssl", "labels": values} | ({"about": about} if about else {})
    content = json.dumps(said, ensure_ascii=False)
    header.extensions.append(Nifti1Extension(COMMENT, content.encode()))
    return header
