"""Label maps lie exactly where their images lie."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Extension

from common.errors import DataError, GridMismatch, RunError
from medseg_ssl.cases import VolumeCase, read_label
from medseg_ssl.export import write_labels, write_shares

NAMES = ("background", "cord", "lésion")
REAL = {
    "sct_t2": "PSR",
    "sct_t2s": "LAS",  # oblique, 7.5 mm slices
    "example_mr_sm": "LPS",
    "example_ct": "RAS",
}


def case_of(image: Path, values: tuple[int, ...] = (0, 1, 2)) -> VolumeCase:
    return VolumeCase(id="P1", group="P1", images=(image,), values=values)


def ragged(shape: tuple[int, ...], classes: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, classes, shape)


def synthetic(path: Path, shape: tuple[int, ...] = (5, 4, 3)) -> Path:
    """Sheared, mirrored and rotated, with different qform and sform, and a talkative header."""
    turn = nib.eulerangles.euler2mat(0.3, -0.2, 0.5)
    qform, sform = np.eye(4), np.eye(4)
    qform[:3, :3] = turn * [0.7, 1.3, 4.0]
    sform[:3, :3] = turn * [-0.7, 1.3, 4.0] + [[0, 0.05, 0], [0, 0, 0], [0, 0, 0]]
    qform[:3, 3], sform[:3, 3] = (-10, 20, 5.5), (11, -21, 6.25)
    image = nib.Nifti1Image(np.full(shape, 7, np.int16), None)
    image.header.set_qform(qform, code=3)
    image.header.set_sform(sform, code=4)
    image.header.set_xyzt_units("mm", "sec")
    image.header["descrip"] = b"Jane Doe 1970"
    image.header["db_name"] = b"Jane Doe"
    image.header["aux_file"] = b"jane.txt"
    image.header["cal_max"] = 900
    image.header.set_slope_inter(2.0, 5.0)
    image.header.extensions.append(Nifti1Extension("comment", b"Jane Doe"))
    nib.save(image, path)
    return path


def assert_same_place(written: nib.Nifti1Image, image: nib.Nifti1Image) -> None:
    for field in ("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d"):
        assert written.header[field] == image.header[field], field
    for field in ("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"):
        np.testing.assert_array_equal(written.header[field], image.header[field], err_msg=field)
    np.testing.assert_array_equal(written.header["pixdim"][:4], image.header["pixdim"][:4])
    np.testing.assert_array_equal(written.affine, image.affine)
    assert written.header.get_xyzt_units()[0] == image.header.get_xyzt_units()[0]
    assert nib.aff2axcodes(written.affine) == nib.aff2axcodes(image.affine)


@pytest.mark.parametrize("name", REAL)
def test_on_real_geometries_grid_affine_and_codes_are_identical(
    name: str, data: Path, tmp_path: Path
):
    source = data / "geometry_fixtures" / f"{name}.nii.gz"
    image = nib.load(source)
    assert "".join(nib.aff2axcodes(image.affine)) == REAL[name]
    labels = ragged(image.shape)
    written = nib.load(write_labels(labels, case_of(source), tmp_path / "a.nii.gz", names=NAMES))
    assert_same_place(written, image)
    np.testing.assert_array_equal(np.asarray(written.dataobj), labels)
    assert written.get_data_dtype() == np.uint8


@pytest.mark.parametrize("name", ["sct_t2", "sct_t2s"])
def test_a_real_label_survives_reading_and_writing(name: str, data: Path, tmp_path: Path):
    folder = data / "geometry_fixtures"
    label = next(folder.glob(f"{name}_seg*.nii.gz"))
    case = VolumeCase("c", "c", (folder / f"{name}.nii.gz",), label, values=(0, 1))
    truth = case.truth.numpy()
    path = write_labels(truth, case, tmp_path / "again.nii.gz", names=NAMES[:2])
    np.testing.assert_array_equal(read_label(path), read_label(label))


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii"])
@pytest.mark.parametrize("shape", [(5, 4, 3), (5, 4, 3, 2), (5, 4, 3, 1)])
def test_different_qform_and_sform_survive_and_channels_fall_away(shape, suffix, tmp_path):
    source = synthetic(tmp_path / "image.nii.gz", shape)
    labels = ragged((5, 4, 3))
    path = write_labels(labels, case_of(source), tmp_path / f"made{suffix}", names=NAMES)
    written = nib.load(path)
    assert_same_place(written, nib.load(source))
    assert written.shape == (5, 4, 3)
    np.testing.assert_array_equal(np.asarray(written.dataobj), labels)


def test_an_image_with_only_a_qform_keeps_only_a_qform(tmp_path: Path):
    source = synthetic(tmp_path / "image.nii")
    image = nib.load(source)
    image.header.set_sform(None, code=0)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), None, image.header), source)
    path = write_labels(ragged((5, 4, 3)), case_of(source), tmp_path / "made.nii", names=NAMES)
    assert_same_place(nib.load(path), nib.load(source))
    assert int(nib.load(path).header["sform_code"]) == 0


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ((0, 1, 2), np.uint8),
        ((0, 205, 500), np.int16),
        ((-1, 0, 1), np.int16),
        ((0, 1, 40_000), np.uint16),
        ((0, 7, 100_000), np.int32),
    ],
)
def test_classes_become_the_values_of_the_files_in_the_smallest_type(values, dtype, tmp_path):
    source = synthetic(tmp_path / "image.nii.gz")
    labels = ragged((5, 4, 3))
    case = case_of(source, values)
    written = nib.load(write_labels(labels, case, tmp_path / "made.nii.gz", names=NAMES))
    assert written.get_data_dtype() == dtype
    np.testing.assert_array_equal(np.asarray(written.dataobj), np.array(values)[labels])


def test_class_names_are_kept_and_what_may_name_the_patient_is_not(tmp_path: Path):
    source = synthetic(tmp_path / "image.nii.gz")
    path = write_labels(
        ragged((5, 4, 3)), case_of(source, (0, 4, 9)), tmp_path / "made.nii", names=NAMES
    )
    header = nib.load(path).header
    (extension,) = header.extensions
    assert extension.get_code() == 6
    content = json.loads(extension.text)
    assert content == {"software": "seg-ssl", "labels": {"background": 0, "cord": 4, "lésion": 9}}
    assert bytes(header["descrip"]).startswith(b"seg-ssl: 0 background, 4 cord, 9 l?sion")
    assert b"Jane" not in path.read_bytes()
    assert b"jane" not in path.read_bytes()


def test_many_class_names_do_not_overflow_the_header(tmp_path: Path):
    source = synthetic(tmp_path / "image.nii.gz")
    names = tuple(f"a rather long structure {index}" for index in range(100))
    case = case_of(source, tuple(range(100)))
    labels = ragged((5, 4, 3), classes=100)
    header = nib.load(write_labels(labels, case, tmp_path / "m.nii.gz", names=names)).header
    assert json.loads(header.extensions[0].text)["labels"] == dict(
        zip(names, range(100), strict=True)
    )


def test_nifti_2_stays_nifti_2(tmp_path: Path):
    source = tmp_path / "two.nii.gz"
    nib.save(nib.Nifti2Image(np.zeros((5, 4, 3), np.float32), np.diag([-2.0, 3, 4, 1])), source)
    labels = ragged((5, 4, 3))
    written = nib.load(write_labels(labels, case_of(source), tmp_path / "m.nii.gz", names=NAMES))
    assert isinstance(written, nib.Nifti2Image)
    np.testing.assert_array_equal(written.affine, np.diag([-2.0, 3, 4, 1]))
    np.testing.assert_array_equal(np.asarray(written.dataobj), labels)


def test_the_same_labels_make_the_same_bytes_and_replace_what_was_there(tmp_path: Path):
    source, path = synthetic(tmp_path / "image.nii.gz"), tmp_path / "made.nii.gz"
    path.write_bytes(b"half a file")
    first = write_labels(ragged((5, 4, 3)), case_of(source), path, names=NAMES).read_bytes()
    second = write_labels(ragged((5, 4, 3)), case_of(source), path, names=NAMES).read_bytes()
    assert first == second
    assert sorted(each.name for each in tmp_path.iterdir()) == ["image.nii.gz", "made.nii.gz"]


def test_a_full_disk_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path, monkeypatch):
    source, path = synthetic(tmp_path / "image.nii.gz"), tmp_path / "made.nii.gz"
    path.write_bytes(b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"made.nii.gz cannot be written \(No space left on device"):
        write_labels(ragged((5, 4, 3)), case_of(source), path, names=NAMES)
    assert path.read_bytes() == b"old"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["image.nii.gz", "made.nii.gz"]


def test_a_missing_folder_is_said_in_words(tmp_path: Path):
    source = synthetic(tmp_path / "image.nii.gz")
    with pytest.raises(RunError, match="cannot be written"):
        write_labels(
            ragged((5, 4, 3)), case_of(source), tmp_path / "nowhere" / "m.nii", names=NAMES
        )


def test_labels_of_another_grid_are_refused(tmp_path: Path):
    source = synthetic(tmp_path / "image.nii.gz")
    with pytest.raises(GridMismatch, match=r"'P1': label map \(5, 4, 4\), image \(5, 4, 3\)"):
        write_labels(ragged((5, 4, 4)), case_of(source), tmp_path / "m.nii", names=NAMES)


def test_classes_without_a_value_are_refused(tmp_path: Path):
    source = synthetic(tmp_path / "image.nii.gz")
    with pytest.raises(DataError, match="holds classes 0 to 2, but label values are known for 2"):
        write_labels(
            ragged((5, 4, 3)), case_of(source, (0, 1)), tmp_path / "m.nii", names=NAMES[:2]
        )


@pytest.mark.parametrize(("bits", "step"), [(8, 1 / 255), (16, 1 / 65535)])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_shares_come_back_to_half_a_step(bits, step, dtype, tmp_path: Path):
    image = synthetic(tmp_path / "image.nii.gz")
    shares = np.random.default_rng(0).dirichlet([1, 1, 1, 1], (5, 4, 3)).astype(dtype)
    shares[0, 0, 0] = [0, 1, 0, 0]
    path = tmp_path / "shares.nii.gz"
    assert write_shares(shares, case_of(image), path, bits=bits, of="those of A, B") == path

    found = nib.load(path)
    assert_same_place(found, nib.load(image))
    assert found.get_data_dtype() == np.dtype(f"uint{bits}")
    assert b"Jane" not in gzip.decompress(path.read_bytes())
    assert found.header["descrip"].item().startswith(b"seg-ssl: those of A, B")
    read = found.get_fdata()
    np.testing.assert_allclose(read, shares, atol=0.51 * step)
    assert read[0, 0, 0].tolist() == pytest.approx([0, 1, 0, 0], abs=1e-6)
