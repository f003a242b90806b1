"""HDF5: image and label in one file, and what the file does not say."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest

from common import verbs
from common.errors import DataError
from medseg_ssl import h5
from medseg_ssl.adapter import medseg
from medseg_ssl.cases import read_array, read_geometry
from medseg_ssl.files import is_volume, open_volume, pieces, stem, volumes_in
from medseg_ssl.h5 import SPACING, case_of, file_of, key_of, label_in
from medseg_ssl.store import stamps
from tests.medseg_ssl.h5_files import write_h5
from tests.medseg_ssl.test_domain import home, run_of
from tests.medseg_ssl.volumes import CLASSES, image_and_label

__all__ = ["home"]  # a fixture


@pytest.fixture
def one(tmp_path):
    image, label = image_and_label()
    return write_h5(tmp_path / "a.h5", image=image, label=label)


def look_of(path):
    """What an inspection says of a manifest with one case in one file."""
    manifest = path.parent / "cases.csv"
    manifest.write_text(f"case,image,label\na,{path.name},{path.name}\n", "utf-8")
    return medseg.inspect(manifest)


def test_a_dataset_is_a_path_in_a_file(one):
    image, label = image_and_label()
    assert (file_of(one / "image"), key_of(one / "image"), key_of(one)) == (one, "image", "")
    assert label_in(one) == one / "label"
    assert label_in(one / "truth") == one / "truth"
    assert is_volume(one)
    assert volumes_in(one.parent) == [one]
    assert pieces(one / "label") == [one]
    np.testing.assert_array_equal(read_array(one), image)
    np.testing.assert_array_equal(read_array(one / "label"), label)
    assert read_array(one / "label").dtype == np.uint8


def test_names_are_those_of_the_lists(tmp_path):
    for path, case, patient in (
        ("06SR5RBREL16DQ6M8LWS/mri_norm2.h5", "06SR5RBREL16DQ6M8LWS", "06SR5RBREL16DQ6M8LWS"),
        ("Pancreas_h5/image0001_norm.h5", "image0001", "image0001"),
        ("data/patient001_frame02.h5", "patient001_frame02", "patient001"),
        ("data/BraTS19_TCIA02_370_1.h5", "BraTS19_TCIA02_370_1", "BraTS19_TCIA02_370_1"),
        ("own.hdf5", "own", "own"),
    ):
        assert case_of(tmp_path / path) == (case, patient)
        assert stem(tmp_path / path / "image") == case


def test_axes_are_x_y_z_also_where_the_file_has_slices_first(tmp_path):
    image, label = image_and_label()
    path = write_h5(tmp_path / "patient001_frame01.h5", image=image.T, label=label.T)
    np.testing.assert_array_equal(read_array(path), image)
    np.testing.assert_array_equal(read_array(path / "label"), label)
    path = write_h5(tmp_path / "image0001_norm.h5", image=image, label=label)
    np.testing.assert_array_equal(read_array(path), image)


@pytest.mark.parametrize("kind", [np.bool_, np.float16, ">i2", np.int64, np.float64])
def test_every_type_of_number_is_read(tmp_path, kind):
    array = image_and_label()[1].astype(kind)
    found = read_array(write_h5(tmp_path / "a.h5", image=array))
    np.testing.assert_array_equal(found, array)


def test_voxels_are_as_large_as_the_file_or_its_benchmark_says(tmp_path, one):
    assert read_geometry([one]).spacing_mm == (1, 1, 1)
    assert "1 voxel counts as 1 mm" in h5.unsaid(one)
    la = write_h5(tmp_path / "CASE" / "mri_norm2.h5", image=image_and_label()[0])
    assert read_geometry([la]).spacing_mm == (0.625,) * 3
    assert h5.unsaid(la) == ""
    for path in (la, one):
        with h5py.File(path, "r+") as file:
            file.attrs[SPACING] = (1.5, 1.5, 8.0)
        assert read_geometry([path / "image"]).spacing_mm == pytest.approx((1.5, 1.5, 8.0))
        assert h5.unsaid(path) == ""


@pytest.mark.parametrize("given", [(1.0, 2.0), (1.0, 1.0, 0.0), "1 1 1", (1.0, 1.0, np.nan)])
def test_a_size_that_is_none_is_refused(one, given):
    with h5py.File(one, "r+") as file:
        file.attrs[SPACING] = given
    with pytest.raises(DataError, match="expected three lengths above 0 mm"):
        open_volume(one)


def test_a_truncated_file_is_named(one):
    one.write_bytes(one.read_bytes()[:1500])
    with pytest.raises(DataError, match=r"a\.h5 cannot be read \(.*\): it is truncated"):
        open_volume(one)
    (problem,) = look_of(one).problems
    assert "it is truncated or not in the format" in problem
    one.write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"a\.h5 cannot be read"):
        read_array(one)


def test_a_damaged_chunk_is_named(one):
    whole = bytearray(one.read_bytes())
    with h5py.File(one) as file:
        chunk = file["image"].id.get_chunk_info(0)
    whole[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    one.write_bytes(whole)
    with pytest.raises(DataError, match=r"a\.h5 cannot be read"):
        read_array(one)


def test_a_missing_dataset_is_named_with_what_there_is(tmp_path):
    image, label = image_and_label()
    path = write_h5(tmp_path / "a.h5", img=image, label=label)
    with pytest.raises(DataError) as told:
        open_volume(path)
    assert str(told.value) == (
        f"{path} holds no dataset 'image': it has img, label. Rename one, or name it in a "
        "manifest, as in a.h5/KEY."
    )
    path = write_h5(tmp_path / "b.h5", image=image)
    (problem,) = look_of(path).problems
    assert "holds no dataset 'label': it has image" in problem
    with h5py.File(path, "r+") as file:
        del file["image"]
        file["image"] = "text"
    with pytest.raises(DataError, match="expected one number per voxel"):
        open_volume(path)


def test_a_label_on_another_grid_is_refused(tmp_path):
    image, label = image_and_label()
    path = write_h5(tmp_path / "a.h5", image=image, label=label[..., :-1])
    (problem,) = look_of(path).problems
    assert "a.h5 and label lie on different grids: (14, 12, 10)" in problem
    assert "They must share one grid: resample the label" in problem


def test_a_slice_is_no_volume(tmp_path):
    path = write_h5(tmp_path / "a.h5", image=image_and_label()[0][..., 4])
    with pytest.raises(DataError, match="Stack 2D slices into one volume per patient"):
        read_geometry([path])


def test_a_file_without_label_is_an_unlabeled_case(tmp_path):
    image, label = image_and_label()
    for number in range(3):
        write_h5(tmp_path / f"c{number}.h5", image=image, label=label)
    write_h5(tmp_path / "c3.h5", image=image)
    write_h5(tmp_path / "c4.h5", image=image, labels=label)
    found = medseg.inspect(tmp_path)
    assert found.problems == []
    assert dict(found.facts)["cases"] == "5: 3 with a label, 2 without"
    assert any("c4 (image, labels)" in said for said in found.warnings)


def test_without_the_package_one_is_told_which(one, monkeypatch):
    monkeypatch.setattr(h5.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"needs the package h5py\. Install it: pip install"):
        open_volume(one)
    (problem,) = medseg.inspect(one.parent).problems
    assert "h5py" in problem


def test_other_layouts_may_hold_it_and_datasets_of_one_file_are_told_apart(tmp_path):
    rows = ["case,image,label"]
    for number in range(4):
        image, label = image_and_label(number)
        write_h5(tmp_path / f"c{number}.h5", t1=image, truth=label)
        rows.append(f"c{number},c{number}.h5/t1,c{number}.h5/truth")
    (tmp_path / "cases.csv").write_text("\n".join(rows) + "\n", "utf-8")
    assert stamps([tmp_path / "c0.h5" / "t1"]) != stamps([tmp_path / "c0.h5" / "truth"])
    run = run_of(tmp_path / "cases.csv", tmp_path / "cache", method="supervised")
    assert medseg.check(run).problems == []
    assert verbs.train(run, medseg, tmp_path / "run").finished


def test_the_label_of_an_unlabeled_case_is_never_read(tmp_path):
    for number in range(5):
        image, label = image_and_label(number)
        write_h5(tmp_path / "data" / f"c{number}.h5", image=image, label=label)
    with h5py.File(tmp_path / "data" / "c4.h5", "r+") as file:
        del file["label"]
        file["label"] = np.full(3, "not even numbers", dtype="S16")
    (tmp_path / "data" / "dataset.json").write_text(json.dumps({"labels": CLASSES}), "utf-8")
    run = run_of(tmp_path / "data", tmp_path / "cache")
    assert medseg.check(run).problems == []
    assert verbs.train(run, medseg, tmp_path / "run").finished
