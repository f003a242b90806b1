"""Volumes in files: NIfTI through nibabel, HDF5; NRRD, MetaImage and DICOM series through ITK.

Whatever the format, a volume is opened as a nibabel image: an affine to right-anterior-superior mm,
and voxels that are read when asked for.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import locale
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError

from common.errors import DataError
from medseg_ssl import h5
from medseg_ssl.proxy import Proxy, as_nifti

NIFTI = (".nii.gz", ".nii")
BY_ITK = (".seg.nrrd", ".nrrd", ".nhdr", ".mha", ".mhd")
HEADERS = (".nhdr", ".mhd")
SUFFIXES = (*NIFTI, *BY_ITK, *h5.SUFFIXES)
KNOWN = "a file in .nii, .nii.gz, .nrrd, .mha, .mhd or .h5, or a folder of one DICOM series"

ENCODING = locale.setlocale(locale.LC_CTYPE)
"""Of text, at the start: asked for later, one thread might take what another one is to mend."""

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""ITK's axes run to the left and the back where those of NIfTI run to the right and the front."""


def is_volume(path: Path) -> bool:
    """Whether the name is that of a volume, or ``path`` is a folder of DICOM files."""
    if path.name.startswith("."):
        return False
    return path.name.endswith(SUFFIXES) if not path.is_dir() else bool(_slices(path))


def volumes_in(folder: Path) -> list[Path]:
    """All volumes right in a folder, by name; none where it does not exist."""
    return sorted(path for path in folder.iterdir() if is_volume(path)) if folder.is_dir() else []


def is_there(path: Path) -> bool:
    """Whether a volume exists, or the file that it is a dataset of."""
    return h5.file_of(path).exists()


def stem(path: Path) -> str:
    """The name of a volume without its suffix; in HDF5, of its case."""
    if h5.is_h5(path):
        return h5.case_of(path)[0]
    suffix = next((each for each in SUFFIXES if path.name.endswith(each)), "")
    return path.name.removesuffix(suffix) if suffix else path.stem


def pieces(path: Path) -> list[Path]:
    """The files that a volume is made of: itself, its voxels beside it, or slices in its folder."""
    if path.is_dir():
        return _slices(path)
    if not path.name.endswith(HEADERS):
        return [h5.file_of(path)]
    return sorted(each for each in path.parent.iterdir() if stem(each) == stem(path))


def open_volume(path: Path) -> nib.Nifti1Image:
    """Open a volume, its header only.

    Raises:
        DataError: When it is absent, cannot be read, or is of no format that is known.
    """
    if not is_there(path):
        raise DataError(f"{path} does not exist. Restore it, or remove its case.")
    if path.is_dir() or path.name.endswith(BY_ITK):
        return _by_itk(path)
    if not (path.name.endswith(NIFTI) or h5.is_h5(path)):
        raise DataError(f"{path} is no volume: expected {KNOWN}.")
    try:
        return h5.open_h5(path) if h5.is_h5(path) else nib.load(path)
    except (ImageFileError, OSError, EOFError, zlib.error) as error:
        raise DataError(unreadable(path, error)) from None


def unreadable(path: Path, error: Exception) -> str:
    """Why a volume cannot be read, in a sentence."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return (
        f"{path} cannot be read ({reason}): it is truncated or not in the format that its name "
        "says. Copy it again from its source, or remove its case."
    )


def _by_itk(path: Path) -> nib.Nifti1Image:
    if importlib.util.find_spec("SimpleITK") is None:
        raise DataError(
            f"{path} needs the package SimpleITK. Install it: pip install 'seg-ssl[formats]', or "
            "convert the volume to NIfTI."
        )
    try:
        with _locale_kept():
            return _opened(path, _series(path) if path.is_dir() else ())
    except RuntimeError as error:
        raise DataError(unreadable(path, OSError(_said(error)))) from None


def _opened(path: Path, series: Sequence[str]) -> nib.Nifti1Image:
    import SimpleITK

    header = SimpleITK.ImageFileReader()
    header.SetFileName(series[0] if series else str(path))
    header.ReadImageInformation()
    parts, reader, lies = header.GetNumberOfComponents(), header, header
    if series:
        reader = SimpleITK.ImageSeriesReader()
        reader.SetFileNames(series)
        lies = reader.Execute()  # only all slices know how far they are apart
    return _as_nifti(lies, parts, reader, path)


def _as_nifti(header: Any, parts: int, reader: Any, path: Path) -> nib.Nifti1Image:  # noqa: ANN401
    if (dims := header.GetDimension()) != 3:
        raise DataError(
            f"{path} has {dims} axes: expected a volume of 3. Save one volume per point in time, "
            "or channels as components."
        )
    shape = tuple(int(side) for side in header.GetSize())
    turn = np.array(header.GetDirection()).reshape(3, 3)
    affine = np.eye(4)
    affine[:3, :3] = turn * np.array(header.GetSpacing())
    affine[:3, 3] = header.GetOrigin()
    dtype = _dtype(header.GetPixelID())
    whole = shape if parts == 1 else (*shape, parts)
    return as_nifti(Proxy(lambda: _read(reader), whole, dtype), LPS_TO_RAS @ affine)


def _read(reader: Any) -> np.ndarray:  # noqa: ANN401
    """The voxels ``(X, Y, Z)``, perhaps with channels last."""
    import SimpleITK

    try:
        with _locale_kept():
            image = reader.Execute()
        read: np.ndarray = SimpleITK.GetArrayFromImage(image)  # Z, Y, X, perhaps C
    except RuntimeError as error:
        raise OSError(_said(error)) from error
    return read.transpose((2, 1, 0, *range(3, read.ndim)))


def _dtype(pixel: int) -> np.dtype:
    import SimpleITK

    one = SimpleITK.Image([1, 1, 1], pixel)
    return np.asarray(SimpleITK.GetArrayFromImage(one)).dtype


def _series(folder: Path) -> Sequence[str]:
    """The slices of a DICOM series, in order."""
    import SimpleITK

    ids = SimpleITK.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    if len(ids) != 1:
        raise DataError(
            f"{folder} holds {len(ids)} DICOM series: expected one. Put each into a folder of its "
            "own."
        )
    names: Sequence[str] = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), ids[0])
    return names


@functools.lru_cache(maxsize=4096)
def _is_dicom(path: Path) -> bool:
    """By what stands in the file: names of DICOM files say nothing."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def _slices(folder: Path) -> list[Path]:
    """The DICOM files right in a folder; none where its first file is of another kind."""
    files = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    first = next((path for path in files if path.is_file()), None)
    if first is None or not _is_dicom(first):
        return []
    return [path for path in files if _is_dicom(path)]


@contextlib.contextmanager
def _locale_kept() -> Iterator[None]:
    """ITK forgets the encoding of text in this process when it touches DICOM."""
    try:
        yield
    finally:
        locale.setlocale(locale.LC_CTYPE, ENCODING)


def _said(error: Exception) -> str:
    """The last line of what ITK says, which is what happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
