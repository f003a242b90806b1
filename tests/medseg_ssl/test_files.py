"""A volume is the same volume in whatever file it lies."""

from __future__ import annotations

import json
import locale
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from common import verbs
from common.errors import DataError
from medseg_ssl import files
from medseg_ssl.adapter import medseg
from medseg_ssl.cases import read_array, read_geometry, two_places
from medseg_ssl.files import is_volume, open_volume, pieces, stem, volumes_in
from medseg_ssl.preprocess import Recipe, preprocess
from tests.medseg_ssl.test_domain import home, run_of
from tests.medseg_ssl.volumes import CLASSES, image_and_label, oblique, save

__all__ = ["home"]  # a fixture
AFFINE = oblique((1.0, 1.2, 2.5), codes="LPS")
FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])


def by_itk(array: np.ndarray, affine: np.ndarray):
    """``(X, Y, Z)`` or ``(X, Y, Z, C)`` as an image of ITK, whose axes run left and back."""
    vector = array.ndim == 4
    axes = (2, 1, 0, 3) if vector else (2, 1, 0)
    image = SimpleITK.GetImageFromArray(array.transpose(axes), isVector=vector)
    lps = FLIP @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    return image


def write(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    SimpleITK.WriteImage(by_itk(array, affine), str(path))
    return path


def write_dicom(
    folder: Path, array: np.ndarray, affine: np.ndarray, *, series: str = "1.2.3"
) -> Path:
    """One file for each slice, named so that their order is not that of their names."""
    folder.mkdir(parents=True, exist_ok=True)
    image = by_itk(array, affine)
    turn = image.GetDirection()
    tags = {
        "0008|0060": "MR",
        "0020|000e": series,
        "0020|0037": "\\".join(f"{turn[i]:.9g}" for i in (0, 3, 6, 1, 4, 7)),
    }
    writer = SimpleITK.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for index in range(image.GetDepth()):
        one = image[:, :, index]
        place = image.TransformIndexToPhysicalPoint((0, 0, index))
        own = {
            "0020|0032": "\\".join(f"{mm:.9g}" for mm in place),
            "0020|0013": str(index),
            "0008|0018": f"{series}.{index + 1}",
        }
        for key, value in (tags | own).items():
            one.SetMetaData(key, value)
        writer.SetFileName(str(folder / f"{(index * 7) % 97:03d}.dcm"))
        writer.Execute(one)
    locale.setlocale(locale.LC_CTYPE, files.ENCODING)  # which ITK resets when it touches DICOM
    return folder


FORMATS = [".nii.gz", ".nii", ".nrrd", ".seg.nrrd", ".nhdr", ".mha", ".mhd"]


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("channels", [1, 2])
def test_voxels_and_place_are_those_of_nifti(tmp_path, suffix, channels):
    array = np.stack([image_and_label(seed)[0] for seed in range(channels)], axis=-1)
    array = array[..., 0] if channels == 1 else array
    path = tmp_path / f"a{suffix}"
    save(path, array, AFFINE) if ".nii" in suffix else write(path, array)
    assert is_volume(path)
    assert stem(path) == "a"
    geometry = read_geometry([path])
    np.testing.assert_allclose(geometry.affine, AFFINE, atol=1e-5)
    assert (geometry.shape, geometry.channels) == (array.shape[:3], channels)
    found = read_array(path)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, array)
    recipe = Recipe(spacing_mm=(2.0, 2.0, 2.0))
    reference = preprocess([save(tmp_path / "b.nii", array, AFFINE)], recipe)
    np.testing.assert_allclose(preprocess([path], recipe).image, reference.image, atol=1e-4)


def test_a_dicom_series_is_a_volume_and_its_folder_is_its_name(tmp_path):
    array = image_and_label()[0].astype(np.int16)
    affine = oblique((1.0, 1.2, 2.5), codes="LPS")
    folder = write_dicom(tmp_path / "images" / "p1", array, affine)
    (folder / ".DS_Store").write_text("", "utf-8")
    assert volumes_in(tmp_path / "images") == [folder]
    assert stem(folder) == "p1"
    assert len(pieces(folder)) == array.shape[2]
    geometry = read_geometry([folder])
    np.testing.assert_allclose(geometry.affine, affine, atol=1e-3)
    np.testing.assert_array_equal(read_array(folder), array)
    assert locale.setlocale(locale.LC_CTYPE) == files.ENCODING


def test_headers_bring_the_files_of_their_voxels_along(tmp_path):
    path = write(tmp_path / "a.mhd", image_and_label()[0])
    assert [each.name for each in pieces(path)] == ["a.mhd", "a.raw"]


@pytest.fixture
def mixed(tmp_path):
    """One case in each format, labels of Slicer among them, and one case as DICOM."""
    folder = tmp_path / "data"
    for number, suffix in enumerate((".nrrd", ".mha", ".nii.gz", ".mhd")):
        image, label = image_and_label(number)
        for kind, array in (("images", image), ("labels", label)):
            path = folder / kind / f"c{number}{suffix}"
            if suffix == ".nii.gz":
                save(path, array, AFFINE)
            else:
                write(path.with_name(path.name.replace(".nrrd", ".seg.nrrd")), array)
    write_dicom(folder / "images" / "c4", image_and_label(4)[0].astype(np.int16), AFFINE)
    (folder / "dataset.json").write_text(json.dumps({"labels": CLASSES}), encoding="utf-8")
    return folder


def test_formats_mix_and_label_maps_lie_on_the_grids_of_their_images(mixed, tmp_path):
    found = medseg.inspect(mixed)
    assert not found.problems
    assert dict(found.facts)["voxel type"] == "float32 (4), int16 (1)", "DICOM is looked at, too"
    splits = {"labeled": ["c0", "c1"], "unlabeled": ["c4"], "test": ["c2", "c3"]}
    run = run_of(mixed, tmp_path / "cache", splits=splits)
    assert verbs.train(run, medseg, tmp_path / "run").finished
    verbs.evaluate(tmp_path / "run", medseg)
    images = [mixed / "images", mixed / "images" / "c4"]
    written = verbs.predict([tmp_path / "run"], medseg, images[:1], tmp_path / "out")
    assert sorted(path.name for path in written) == [f"c{number}.nii.gz" for number in range(5)]
    for path in written:
        label = nib.load(path)
        np.testing.assert_allclose(label.affine, AFFINE, atol=1e-3)
        assert label.header["sform_code"] > 0
        assert path.name == "c2.nii.gz" or label.header["qform_code"] > 0  # as its image has
    (alone,) = verbs.predict([tmp_path / "run"], medseg, images[1:], tmp_path / "alone")
    assert alone.name == "c4.nii.gz"


def test_two_series_in_one_folder_are_refused(tmp_path):
    array = image_and_label()[0].astype(np.int16)
    write_dicom(tmp_path / "p", array[:, :, :4], AFFINE)
    for path in [*(tmp_path / "p").iterdir()]:
        path.rename(path.with_suffix(".one"))
    write_dicom(tmp_path / "p", array[:, :, 4:], AFFINE, series="1.2.4")
    with pytest.raises(DataError, match=r"p holds 2 DICOM series: expected one\. Put each into"):
        open_volume(tmp_path / "p")


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_a_truncated_file_is_named(tmp_path, suffix):
    path = write(tmp_path / f"a{suffix}", image_and_label()[0])
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(DataError, match=rf"a{suffix} cannot be read \(.*\): it is truncated"):
        read_array(path)
    path.write_bytes(b"nothing")
    with pytest.raises(DataError, match=rf"a{suffix} cannot be read"):
        open_volume(path)


def test_without_the_package_one_is_told_which(tmp_path, monkeypatch):
    path = write(tmp_path / "a.mha", image_and_label()[0])
    monkeypatch.setattr(files.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        DataError, match=r"SimpleITK\. Install it: pip install 'seg-ssl\[formats\]'"
    ):
        open_volume(path)


def test_other_files_are_no_volumes(tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("hello", "utf-8")
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.png").write_bytes(b"")
    assert volumes_in(tmp_path) == []
    with pytest.raises(DataError, match=r"a\.png is no volume: expected a file in \.nii"):
        open_volume(tmp_path / "a.png")


def test_two_places_in_one_header_are_told(tmp_path):
    image, label = image_and_label()
    for number in range(2):
        path = save(tmp_path / "images" / f"c{number}.nii.gz", image, AFFINE)
        save(tmp_path / "labels" / f"c{number}.nii.gz", label, AFFINE)
    told = nib.load(path)
    moved = AFFINE.copy()
    moved[0, 3] += 7
    told.set_qform(moved, code=1)
    nib.save(nib.Nifti1Image(image, None, told.header), path)
    assert not two_places(tmp_path / "images" / "c0.nii.gz")
    words = (
        f"case 'c1': {path}: sform and qform put it in places up to 7 mm apart. The sform is used"
    )
    assert any(each.startswith(words) for each in medseg.inspect(tmp_path).warnings)
    np.testing.assert_allclose(read_geometry([path]).affine, AFFINE, atol=1e-5)
