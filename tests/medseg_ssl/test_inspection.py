from __future__ import annotations

import time

import nibabel as nib
import numpy as np
import pytest

from medseg_ssl import look as looking
from medseg_ssl.inspection import check, inspect, median_spacing_mm, survey
from medseg_ssl.look import Look, look
from medseg_ssl.settings import MedsegRun
from tests.medseg_ssl.volumes import CLASSES, image_and_label, oblique, plain, save


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))  # where the default cache lies
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path):
    return plain(tmp_path / "data")


def run_of(folder, cache, *, method="fixmatch", **domain):
    classes = [{"name": name, "value": value} for name, value in CLASSES.items()]
    splits = {"labeled": ["c0", "c1"], "test": ["c2", "c3"]}
    settings = {"data": folder, "cache": cache, "classes": classes, "splits": splits}
    settings |= {"patch": [16, 16, 16], **domain}
    values = {"domain": settings, "method": {"name": method}, "fit": {"steps": 2}}
    return MedsegRun.model_validate(values)


def test_a_sound_folder_has_facts_and_no_problems(folder):
    found = inspect(folder)
    facts = dict(found.facts)
    assert found.problems == []
    assert facts["cases"] == "6: 4 with a label, 2 without"
    assert facts["shape (right, front, top)"] == "14 x 12 x 10"
    assert facts["orientation"] == "RAS"
    assert facts["voxel type"] == "float32"
    assert facts["class lesion (value 4)"].startswith("1.61 % of the voxels, in 4 of 4 labels")
    assert "nothing says which cases are of one patient" in found.warnings[0]


def broken(folder, kind):
    """Break case c0 as ``kind`` says; returns words of the sentence that tells of it."""
    image, label = image_and_label()
    images, labels = folder / "images" / "c0.nii.gz", folder / "labels" / "c0.nii.gz"
    match kind:
        case "truncated":
            images.write_bytes(images.read_bytes()[:900])
            return "cannot be read"
        case "not nifti":
            images.write_bytes(b"hello")
            return "cannot be read"
        case "truncated label":
            labels.write_bytes(labels.read_bytes()[:60])
            return "cannot be read"
        case "2D":
            save(images, image[..., 0])
            return "expected a volume"
        case "nan":
            image[0, 0, :2] = np.nan
            save(images, image)
            return "holds 2 NaN or infinite voxels. Replace them"
        case "inf":
            image[0, 0, 0] = np.inf
            save(images, image)
            return "holds 1 NaN or infinite voxels"
        case "constant":
            save(images, np.full_like(image, 7))
            return "every voxel of channel 0 is 7, so there is nothing to see"
        case "other shape":
            save(labels, label[1:])
            return "They must share one grid: resample the label (nearest)"
        case "other affine":
            save(labels, label, oblique())
            return "They must share one grid"
        case "interpolated label":
            save(labels, label.astype(np.float32) * 0.7)
            return "holds values that are no whole numbers, such as 0.7"
        case "strange value":
            label[0, 0, 0] = 3
            save(labels, label)
            return "the label value 3 is none of the classes"
        case "image as label":
            save(labels, np.arange(label.size).reshape(label.shape).astype(np.int32))
            return "that is an image, not a label"
        case "more channels":
            save(images, np.stack([image, image], axis=-1))
            return "c0: 2 channels, while most cases have 1"
        case "twice":
            save(folder / "images" / "c0.nii", image)
            return "case 'c0' is there more than once"
    raise AssertionError(kind)


KINDS = [
    "truncated",
    "not nifti",
    "truncated label",
    "2D",
    "nan",
    "inf",
    "constant",
    "other shape",
    "other affine",
    "interpolated label",
    "strange value",
    "image as label",
    "more channels",
    "twice",
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_bad_input_is_found_by_inspect_and_by_check(folder, cache, kind):
    words = broken(folder, kind)
    for problems in (inspect(folder).problems, check(run_of(folder, cache)).problems):
        assert len(problems) == 1, problems
        assert words in problems[0]
        assert "c0" in problems[0]
        assert problems[0].rstrip().endswith(".")


def test_all_problems_are_told_at_once(folder):
    for name in ("c0", "c1", "c2"):
        path = folder / "images" / f"{name}.nii.gz"
        path.write_bytes(path.read_bytes()[:500])
    save(folder / "images" / "c4.nii.gz", np.zeros((8, 8, 8), np.float32))
    assert len(inspect(folder).problems) == 4


def test_whole_numbers_stored_as_floats_are_a_warning(folder):
    path = folder / "labels" / "c0.nii.gz"
    save(path, image_and_label()[1].astype(np.float32))
    found = inspect(folder)
    assert found.problems == []
    assert found.warnings[0] == (
        f"case 'c0': label {path} is stored as float32; its values are whole and are used."
    )


def test_a_folder_in_no_layout_is_a_problem_and_not_a_crash(tmp_path):
    found = inspect(tmp_path / "gone")
    assert len(found.problems) == 1
    assert "is no folder" in found.problems[0]


def test_check_looks_at_used_cases_only(folder, cache):
    broken(folder, "nan")
    splits = {"labeled": ["c1"], "unlabeled": ["c4"], "test": ["c2"]}
    assert check(run_of(folder, cache, splits=splits)).problems == []


def test_check_never_reads_a_label_of_an_unlabeled_case(folder, cache):
    splits = {"labeled": ["c1"], "unlabeled": ["c0", "c4"], "test": ["c2"]}
    (folder / "labels" / "c0.nii.gz").write_bytes(b"no label at all")
    assert check(run_of(folder, cache, splits=splits)).problems == []
    assert inspect(folder).problems != []


def test_check_tells_of_splits_patch_channels_and_values_together(folder, cache):
    run = run_of(
        folder,
        cache,
        splits={"labeled": ["c0", "c1x"], "test": ["c0", "c4"]},
        patch=[16, 15, 16],
        channels=["T1", "T2"],
        classes=[{"name": "background", "value": 0}, {"name": "organ", "value": 1}],
    )
    problems = "\n".join(check(run).problems)
    for words in (
        "splits.labeled: the data holds no case 'c1x'. Did you mean 'c1'?",
        "case 'c0' is in splits labeled and test",
        "splits.test needs labels, but these cases have none: c4",
        "domain.patch [16, 15, 16] does not fit network 'unet'",
        "domain.channels names 2 channels (T1, T2), the images have 1",
        "case 'c0': the label value 4 is none of the classes of domain.classes (0, 1)",
    ):
        assert words in problems


def test_check_looks_at_the_patch_of_each_partner(folder, cache):
    partners = [{"name": "segresnet"}, {"name": "unetr", "patch": [32, 32, 32]}, {"name": "vnet"}]
    run = run_of(folder, cache, method="cross_pseudo", patch=[16, 16, 16], partners=partners)
    problems = "\n".join(check(run).problems)
    assert "domain.partners.1.patch is [32, 32, 32], the run cuts patches of [16, 16, 1" in problems
    assert "leaves network 'vnet' a single voxel at its coarsest level" in problems
    assert "segresnet" not in problems


def test_without_unlabeled_cases_only_supervised_is_left(folder, cache):
    splits = {"labeled": ["c0", "c1"], "unlabeled": [], "test": ["c2"]}
    problems = check(run_of(folder, cache, splits=splits)).problems
    assert problems == [
        "splits.unlabeled is empty, but the method learns from unlabeled cases. Add some, or use "
        "method.name=supervised."
    ]
    assert check(run_of(folder, cache, splits=splits, method="supervised")).problems == []


def test_a_class_that_no_labeled_case_shows_is_a_warning(folder, cache):
    classes = [{"name": n, "value": v} for n, v in (*CLASSES.items(), ("rare", 9))]
    found = check(run_of(folder, cache, classes=classes))
    assert "no labeled case shows rare, so it cannot be learned." in found.warnings


def test_an_unchanged_file_is_looked_at_once_and_a_changed_one_again(folder, monkeypatch, cache):
    survey(folder, cache)
    calls = []
    monkeypatch.setattr(looking, "look", lambda case: calls.append(case.id) or look(case))
    survey(folder, cache)
    assert calls == []
    save(folder / "images" / "c3.nii.gz", image_and_label(9)[0])
    survey(folder, cache)
    assert calls == ["c3"]


def test_a_cache_that_cannot_be_written_is_done_without(folder, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    assert survey(folder, blocked).problems == []


def test_a_look_survives_its_cache(folder):
    case = survey(folder).catalog.cases[0]
    seen = look(case)
    assert Look.model_validate_json(seen.model_dump_json()) == seen
    assert seen.label_voxels == {0: 1680 - 7 * 6 * 6, 1: 7 * 6 * 6 - 27, 4: 27}


def test_the_median_spacing_is_per_axis_in_ras_order(tmp_path, cache):
    for number, codes in enumerate(["RAS", "PSR", "LPS"]):
        spacing = {"R": 1.0, "L": 1.0, "A": 2.0, "P": 2.0, "S": 3.0}
        affine = oblique(tuple(spacing[code] for code in codes), codes=codes)
        image, _ = image_and_label(number)
        save(tmp_path / "images" / f"{number}.nii.gz", image, affine)
    found = survey(tmp_path, cache)
    assert median_spacing_mm(found.looks.values()) == (1.0, 2.0, 3.0)


def test_the_hippocampus_is_sound_and_checked_fast(data, cache):
    found = inspect(data / "hippocampus")
    assert found.problems == []
    assert [w for w in found.warnings if "hippocampus_003" in w]
    assert [w for w in found.warnings if "hippocampus_243" in w]
    began = time.monotonic()
    again = inspect(data / "hippocampus")
    assert again == found
    assert time.monotonic() - began < 3
    assert dict(found.facts)["class Anterior (value 1)"].startswith("2.73 % of the voxels")


def test_an_image_whose_header_scales_it_is_read_scaled(tmp_path):
    image = nib.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), np.eye(4))
    image.header.set_slope_inter(0.5, 10)
    (tmp_path / "images").mkdir()
    nib.save(image, tmp_path / "images" / "a.nii.gz")
    seen = look(survey(tmp_path).catalog.cases[0])
    assert (seen.low, seen.high) == (10.0, 39.5)
