from __future__ import annotations

import json
from dataclasses import fields

import numpy as np
import pytest

from common.batch import IGNORE
from common.errors import DataError, GridMismatch
from medseg_ssl.cases import (
    UnlabeledVolume,
    VolumeCase,
    read_array,
    read_geometry,
    read_label,
    same_grid,
)
from medseg_ssl.files import stem
from medseg_ssl.layouts import read_catalog
from tests.medseg_ssl.volumes import image_and_label, oblique, plain, save


def case_of(tmp_path, label, values=(0, 1, 4), ignore=None):
    image = save(tmp_path / "i.nii.gz", np.zeros(label.shape, np.float32))
    path = save(tmp_path / "l.nii.gz", label)
    return VolumeCase("x", "x", (image,), path, values=values, ignore=ignore)


def test_truth_holds_class_indices_in_file_order(tmp_path):
    _, label = image_and_label()
    truth = case_of(tmp_path, label).truth
    assert truth.shape == label.shape
    np.testing.assert_array_equal(truth.numpy(), np.where(label == 4, 2, label))


def test_truth_is_ignored_where_nobody_annotated(tmp_path):
    _, label = image_and_label()
    label[0] = 9
    truth = case_of(tmp_path, label, ignore=9).truth
    assert (truth[0] == IGNORE).all()
    assert int((truth == IGNORE).sum()) == label[0].size


def test_float_labels_with_whole_values_are_read(tmp_path):
    _, label = image_and_label()
    assert case_of(tmp_path, label.astype(np.float32)).truth.dtype.is_floating_point is False


def test_a_label_value_that_is_no_class_is_named_with_its_remedy(tmp_path):
    _, label = image_and_label()
    with pytest.raises(DataError) as error:
        _ = case_of(tmp_path, label, values=(0, 1)).truth
    assert str(error.value) == (
        f"case 'x': label {tmp_path / 'l.nii.gz'} holds the values 4, which are none of the "
        "classes [0, 1]. List them in domain.classes, or declare one of them as "
        "domain.ignore_value."
    )


def test_a_case_without_label_has_no_truth(tmp_path):
    assert VolumeCase("x", "x", (tmp_path / "i.nii.gz",)).truth is None


def test_an_unlabeled_volume_has_no_way_to_a_label():
    assert [field.name for field in fields(UnlabeledVolume)] == ["id", "images"]


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PSR", "LAS"])
def test_spacing_comes_from_the_affine_whatever_its_turn(tmp_path, codes):
    affine = oblique((0.5, 1.5, 4.0), codes=codes)
    path = save(tmp_path / "v.nii.gz", np.zeros((4, 5, 6), np.int16), affine)
    geometry = read_geometry([path])
    assert geometry.orientation == codes
    assert geometry.shape == (4, 5, 6)
    assert geometry.spacing_mm == pytest.approx((0.5, 1.5, 4.0))


def test_channels_add_up_over_files_and_over_the_fourth_axis(tmp_path):
    one = save(tmp_path / "a.nii.gz", np.zeros((4, 5, 6), np.int16))
    four = save(tmp_path / "b.nii.gz", np.zeros((4, 5, 6, 3), np.int16))
    assert read_geometry([one, one]).channels == 2
    assert read_geometry([four]).channels == 3


def test_channel_files_on_different_grids_are_refused(tmp_path):
    one = save(tmp_path / "a.nii.gz", np.zeros((4, 5, 6), np.int16))
    other = save(tmp_path / "b.nii.gz", np.zeros((4, 5, 6), np.int16), np.diag([1, 1, 2, 1.0]))
    with pytest.raises(GridMismatch, match=r"a\.nii\.gz and b\.nii\.gz lie on different grids"):
        read_geometry([one, other])


def test_a_grid_is_the_same_up_to_rounding_of_its_header(tmp_path):
    affine = oblique()
    near, far = affine.copy(), affine.copy()
    near[:3, 3] += 1e-3
    far[:3, 3] += 0.5
    grids = [
        read_geometry([save(tmp_path / f"{n}.nii.gz", np.zeros((4, 5, 6), np.int16), each)])
        for n, each in enumerate((affine, near, far))
    ]
    assert same_grid(grids[0], grids[1])
    assert not same_grid(grids[0], grids[2])


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((4, 5), "expected a volume"),
        ((4, 5, 1), "is a single 2D slice"),
        ((4, 5, 6, 1, 3), "expected a volume"),
    ],
)
def test_what_is_no_volume_is_refused_in_words(tmp_path, shape, words):
    path = save(tmp_path / "v.nii.gz", np.zeros(shape, np.int16))
    with pytest.raises(DataError, match=words):
        read_geometry([path])


def test_a_truncated_file_is_named(tmp_path):
    path = save(tmp_path / "v.nii.gz", np.random.default_rng(0).normal(size=(20, 20, 20)))
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(DataError, match=r"v\.nii\.gz cannot be read .* truncated"):
        read_array(path)


@pytest.mark.parametrize("content", [b"", b"no volume at all", b"\x1f\x8b broken gzip"])
def test_a_file_that_is_no_nifti_is_named(tmp_path, content):
    path = tmp_path / "v.nii.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"v\.nii\.gz cannot be read"):
        read_geometry([path])


def test_a_singular_affine_is_refused(tmp_path):
    path = save(tmp_path / "v.nii", np.zeros((4, 5, 6), np.int16))
    raw = bytearray(path.read_bytes())
    raw[280:328] = bytes(48)  # srow_x, srow_y, srow_z
    path.write_bytes(bytes(raw))
    with pytest.raises(DataError, match="singular"):
        read_geometry([path])


def test_a_label_with_a_trailing_axis_of_one_is_a_label(tmp_path):
    path = save(tmp_path / "l.nii.gz", np.ones((4, 5, 6, 1), np.uint8))
    assert read_label(path).shape == (4, 5, 6)
    path = save(tmp_path / "l.nii.gz", np.ones((4, 5, 6, 2), np.uint8))
    with pytest.raises(DataError, match="one class value per voxel"):
        read_label(path)


def test_names_lose_their_suffix_only(tmp_path):
    assert stem(tmp_path / "a.b.nii.gz") == "a.b"
    assert stem(tmp_path / "a.nii") == "a"


def test_plain_layout_a_missing_label_means_unlabeled(tmp_path):
    catalog = read_catalog(plain(tmp_path, cases=3, labeled=2))
    assert [(c.id, c.label is not None) for c in catalog.cases] == [
        ("c0", True),
        ("c1", True),
        ("c2", False),
    ]
    assert catalog.classes == (("background", 0), ("organ", 1), ("lesion", 4))
    assert catalog.problems == ()


def test_plain_layout_tells_of_labels_without_image(tmp_path):
    plain(tmp_path, cases=2, labeled=2)
    (tmp_path / "images" / "c1.nii.gz").unlink()
    assert "c1.nii.gz" in read_catalog(tmp_path).warnings[0]


def test_nnunet_layout_gathers_channels_and_declares_ignore(tmp_path):
    image, label = image_and_label()
    for name in ("a_0000", "a_0001", "b_0000", "b_0001"):
        save(tmp_path / "imagesTr" / f"{name}.nii.gz", image)
    save(tmp_path / "imagesTs" / "t_0000.nii.gz", image)
    save(tmp_path / "imagesTs" / "t_0001.nii.gz", image)
    save(tmp_path / "labelsTr" / "a.nii.gz", label)
    facts = {
        "channel_names": {"0": "T1", "1": "FLAIR"},
        "labels": {"background": 0, "tumor": 1, "ignore": 4},
    }
    (tmp_path / "dataset.json").write_text(json.dumps(facts), encoding="utf-8")
    catalog = read_catalog(tmp_path)
    assert [(c.id, len(c.images), c.label is not None) for c in catalog.cases] == [
        ("a", 2, True),
        ("b", 2, False),
        ("t", 2, False),
    ]
    assert catalog.channels == ("T1", "FLAIR")
    assert catalog.classes == (("background", 0), ("tumor", 1))
    assert catalog.ignore == 4


def test_msd_layout_takes_its_test_images_as_unlabeled(tmp_path):
    image, label = image_and_label()
    save(tmp_path / "imagesTr" / "a.nii.gz", image)
    save(tmp_path / "labelsTr" / "a.nii.gz", label)
    save(tmp_path / "imagesTs" / "t.nii.gz", image)
    facts = {
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "organ"},
        "training": [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}],
        "test": ["./imagesTs/t.nii.gz"],
    }
    (tmp_path / "dataset.json").write_text(json.dumps(facts), encoding="utf-8")
    catalog = read_catalog(tmp_path)
    assert [(c.id, c.label is not None) for c in catalog.cases] == [("a", True), ("t", False)]
    assert catalog.channels == ("CT",)


def test_a_manifest_names_channels_patients_and_splits(tmp_path):
    plain(tmp_path, cases=4, labeled=2)
    (tmp_path / "m.csv").write_text(
        "case,image_0,image_1,label,patient,split,age\n"
        "x,images/c0.nii.gz,images/c1.nii.gz,labels/c0.nii.gz,P1,labeled,50\n"
        "y,images/c2.nii.gz,images/c3.nii.gz,,P1,unlabled,50\n",
        encoding="utf-8",
    )
    catalog = read_catalog(tmp_path / "m.csv")
    assert [(c.id, c.group, len(c.images)) for c in catalog.cases] == [
        ("x", "P1", 2),
        ("y", "P1", 2),
    ]
    assert catalog.knows_patients
    assert catalog.splits == {"labeled": ("x",)}
    assert catalog.problems == (
        "case 'y': no split 'unlabled'; expected one of labeled, unlabeled, validation, test. "
        "Did you mean 'unlabeled'?",
    )
    assert not catalog.warnings
    assert {*catalog.known} == {"age"}


def test_a_manifest_may_list_channels_in_one_cell(tmp_path):
    plain(tmp_path, cases=2, labeled=0)
    text = "case,image\nx,images/c0.nii.gz; images/c1.nii.gz\n"
    (tmp_path / "m.csv").write_text(text, encoding="utf-8")
    assert len(read_catalog(tmp_path / "m.csv").cases[0].images) == 2


def test_a_manifest_without_its_columns_is_refused(tmp_path):
    (tmp_path / "m.csv").write_text("cases,image\nx,y\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"lacks the column case.*Did you mean 'cases'"):
        read_catalog(tmp_path / "m.csv")


def test_missing_files_and_double_names_are_all_told(tmp_path):
    (tmp_path / "m.csv").write_text("case,image\nx,a.nii\nx,b.nii\n", encoding="utf-8")
    problems = read_catalog(tmp_path / "m.csv").problems
    assert problems[0] == "case 'x' is there more than once. Rename or remove one."
    assert len(problems) == 3


def test_a_folder_in_no_known_layout_is_explained(tmp_path):
    with pytest.raises(DataError, match="holds no layout that is known: expected"):
        read_catalog(tmp_path)
    with pytest.raises(DataError, match="is no folder"):
        read_catalog(tmp_path / "gone")


def test_the_hippocampus_is_read_as_msd(data):
    catalog = read_catalog(data / "hippocampus")
    assert len(catalog.cases) == 220
    assert catalog.classes == (("background", 0), ("Anterior", 1), ("Posterior", 2))
    assert catalog.problems == ()
