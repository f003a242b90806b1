from __future__ import annotations

import math

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from common import config
from common.adapter import Wish, held_out
from common.errors import ConfigError, DataError
from common.splits import Known, OneOf
from medseg_ssl import draft as drafting
from medseg_ssl.adapter import medseg
from medseg_ssl.augment import StrongView
from medseg_ssl.intensity import Window, ZScore, ZScoreNonzero
from medseg_ssl.lots import draw
from medseg_ssl.settings import MedsegRun
from tests.medseg_ssl.volumes import image_and_label, plain, save


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))


def load(tmp_path, text):
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return config.load(path, MedsegRun)


def test_a_draft_loads_and_checks_without_a_problem(tmp_path):
    folder = plain(tmp_path / "data", cases=12, labeled=8)
    run = load(tmp_path, medseg.draft(folder, Wish(labeled=3, validation=1)))
    assert medseg.check(run).problems == []
    splits = run.domain.splits
    assert [len(names) for names in (splits.labeled, splits.validation, splits.test)] == [3, 1, 2]
    assert splits.unlabeled == "rest"
    assert run.method.name == "fixmatch"
    assert run.domain.values == (0, 1, 4)
    assert run.fit.validate_every > 0


def test_a_draft_is_a_function_of_its_seed(tmp_path):
    folder = plain(tmp_path / "data", cases=12, labeled=8)
    texts = [medseg.draft(folder, Wish(labeled=3, seed=seed)) for seed in (0, 0, 1)]
    assert texts[0] == texts[1] != texts[2]


def test_without_unlabeled_cases_the_draft_is_supervised(tmp_path):
    folder = plain(tmp_path / "data", cases=5, labeled=5)
    run = load(tmp_path, medseg.draft(folder, Wish()))
    assert run.method.name == "supervised"
    assert medseg.check(run).problems == []


def test_the_labeled_cases_may_be_a_list(tmp_path):
    folder = plain(tmp_path / "data", cases=8, labeled=6)
    names = tmp_path / "mine.txt"
    names.write_text("c5\nc0\n", encoding="utf-8")
    run = load(tmp_path, medseg.draft(folder, Wish(labeled=names)))
    assert run.domain.splits.labeled == ("c0", "c5")
    assert not {"c0", "c5"} & set(run.domain.splits.test)
    names.write_text("c5\nc7\nx\n", encoding="utf-8")
    with pytest.raises(DataError) as error:
        medseg.draft(folder, Wish(labeled=names))
    assert "no case 'c7' with a label" in str(error.value)
    assert "no case 'x' with a label" in str(error.value)


def test_more_cases_than_there_are_cannot_be_labeled(tmp_path):
    folder = plain(tmp_path / "data")
    with pytest.raises(DataError) as error:
        medseg.draft(folder, Wish(labeled=4))
    assert str(error.value) == (
        "4 labeled cases were asked for, but after test and validation 3 annotated cases are left. "
        "Ask for fewer, or hold out less."
    )


def test_a_broken_folder_is_refused_with_all_its_problems(tmp_path):
    folder = plain(tmp_path / "data")
    for name in ("c0", "c5"):
        (folder / "images" / f"{name}.nii.gz").write_bytes(b"")
    with pytest.raises(DataError, match="2 problems"):
        medseg.draft(folder, Wish(labeled=1))


def test_the_splits_of_a_manifest_are_kept(tmp_path):
    plain(tmp_path, cases=5, labeled=5)
    rows = [("c0", "labeled"), ("c1", "test"), ("c2", "unlabeled"), ("c3", "validation")]
    text = "case,image,label,patient,split\n" + "".join(
        f"{name},images/{name}.nii.gz,labels/{name}.nii.gz,P{name},{split}\n"
        for name, split in rows
    )
    (tmp_path / "m.csv").write_text(text, encoding="utf-8")
    run = load(tmp_path, medseg.draft(tmp_path / "m.csv", Wish()))
    splits = run.domain.splits
    assert splits.labeled == ("c0",)
    assert splits.test == ("c1",)
    assert splits.unlabeled == ("c2",)
    assert splits.validation == ("c3",)


def test_names_that_yaml_would_misread_come_back_as_they_are(tmp_path):
    image, label = image_and_label()
    names = ["001", "1e3", "yes", "null", "a: b", "ü#1", "rest"]
    for name in names:
        save(tmp_path / "d" / "images" / f"{name}.nii.gz", image)
        save(tmp_path / "d" / "labels" / f"{name}.nii.gz", label)
    run = load(tmp_path, medseg.draft(tmp_path / "d", Wish(test=0)))
    assert set(run.domain.splits.labeled) == set(names)


def test_ct_is_given_a_window_and_mri_a_zscore(tmp_path):
    image, label = image_and_label()
    for kind, shown in (("mr", image), ("ct", image - 1100)):
        shown[0, 0, 0] = shown.min() - 1
        save(tmp_path / kind / "images" / "a.nii.gz", shown)
        save(tmp_path / kind / "labels" / "a.nii.gz", label)
    mr, ct = (
        load(tmp_path, medseg.draft(tmp_path / kind, Wish(test=0))).domain.normalize
        for kind in ("mr", "ct")
    )
    assert mr == ZScore()
    assert isinstance(ct, Window)
    inside = (image - 1100)[label > 0]
    assert ct.window_hu[0] == pytest.approx(np.percentile(inside, 0.5), abs=1)


def test_mri_is_offered_what_scanners_do_and_ct_is_not(tmp_path):
    image, label = image_and_label()
    for kind, shown in (("mr", image), ("ct", image - 1100)):
        save(tmp_path / kind / "images" / "a.nii.gz", shown)
        save(tmp_path / kind / "labels" / "a.nii.gz", label)
    mr, ct = (medseg.draft(tmp_path / kind, Wish(test=0)) for kind in ("mr", "ct"))
    assert "strong:" not in ct
    assert load(tmp_path, mr).domain.strong == StrongView()
    switched_on = load(tmp_path, mr.replace("  # strong:", "  strong:")).domain.strong
    assert (switched_on.bias_field.share, switched_on.rician.share) == (0.3, 0.2)


def test_where_much_of_an_image_is_exactly_zero_it_has_no_say_in_the_zscore(tmp_path):
    image, label = image_and_label()
    for kind, empty in (("stripped", slice(0, 6)), ("whole", slice(0, 1))):
        shown = image.copy()
        shown[:, :, empty] = 0
        save(tmp_path / kind / "images" / "a.nii.gz", shown)
        save(tmp_path / kind / "labels" / "a.nii.gz", label)
        drafted = load(tmp_path, medseg.draft(tmp_path / kind, Wish(test=0))).domain.normalize
        assert drafted == (ZScoreNonzero() if kind == "stripped" else ZScore())


def test_axes_that_class_names_tell_apart_are_not_flipped():
    assert drafting._told_apart(["background", "Anterior", "Posterior"]) == ("back_front",)
    assert drafting._told_apart(["left kidney", "kidney_right"]) == ("left_right",)
    assert drafting._told_apart(["liver", "leftover"]) == ()


@given(shape=st.tuples(*[st.floats(4, 400)] * 3), spacing_mm=st.tuples(*[st.floats(0.3, 8)] * 3))
def test_a_drafted_patch_fits_the_network_and_memory(shape, spacing_mm):
    strides = drafting._strides(shape, spacing_mm)
    patch = drafting._patch(shape, strides)
    multiple = np.prod(strides, axis=0)
    assert (np.array(patch) % multiple == 0).all()
    assert (np.array(patch) >= 2 * multiple).all()
    assert np.prod(patch) <= drafting.most_voxels()
    ceiling = np.maximum(np.ceil(np.array(shape) / multiple), 2) * multiple
    assert (np.array(patch) <= ceiling).all()


@pytest.mark.parametrize(
    ("gpu", "gib", "sides"),
    [
        (False, 64.0, (96, 96, 96)),  # on a CPU time runs out first
        (False, math.nan, (96, 96, 96)),
        (False, 2.0, (48, 64, 64)),
        (True, 80.0, (128, 144, 144)),
        (True, 8.0, (96, 96, 96)),
    ],
)
def test_a_patch_is_as_large_as_the_memory_at_hand(monkeypatch, gpu, gib, sides):
    monkeypatch.setattr(drafting.torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(drafting, "memory_gib", lambda: gib)
    patch = drafting._patch((300, 300, 200), [(2, 2, 2)] * 4)
    assert patch == sides


def test_thick_slices_are_not_halved():
    strides = drafting._strides((320, 320, 12), (0.6, 0.6, 6.0))
    assert strides == ((2, 2, 1), (2, 2, 1), (2, 2, 1))


@given(
    groups=st.lists(st.integers(0, 6), min_size=4, max_size=20),
    seed=st.integers(0, 20),
    labeled=st.integers(1, 4),
)
def test_drawn_patients_are_on_one_side_only(groups, seed, labeled):
    known = [Known(f"c{n}", f"p{group}", True) for n, group in enumerate(groups)]
    try:
        drawn = draw(known, Wish(labeled=labeled, seed=seed), given={})
    except DataError:
        return
    patient = {case.name: case.group for case in known}
    test = {patient[name] for name in drawn.test}
    assert not test & {patient[name] for name in drawn.labeled}
    assert len(drawn.labeled) == labeled
    more = draw(known, Wish(labeled=None, seed=seed), given={})
    assert more.test == drawn.test
    assert set(drawn.labeled) <= set(more.labeled)


def test_folds_test_every_annotated_case_once(tmp_path):
    known = [Known(f"c{n:02d}", f"p{n // 2}", n < 20) for n in range(24)]
    tested = []
    for number in range(1, 6):
        drawn = draw(known, Wish(labeled=4, test=OneOf(number, 5)), given={})
        patients = {case.name: case.group for case in known}
        assert not {patients[n] for n in drawn.test} & {patients[n] for n in drawn.labeled}
        assert len(drawn.labeled) == 4
        tested += drawn.test
    assert sorted(tested) == [f"c{n:02d}" for n in range(20)]
    text = medseg.draft(plain(tmp_path / "data"), Wish(test=OneOf(2, 4)))
    assert len(yaml.safe_load(text)["domain"]["splits"]["test"]) == 1


@pytest.mark.parametrize("text", ["1.2", "-0.1", "a", "3/2", "1/0"])
def test_a_test_share_that_cannot_be_is_refused(text):
    with pytest.raises(ConfigError, match=f"--test {text}: give "):
        held_out(text)
    assert (held_out("0.25"), held_out("2/5")) == (0.25, OneOf(2, 5))


def test_the_hippocampus_draft_is_ready(tmp_path, data):
    run = load(tmp_path, medseg.draft(data / "hippocampus", Wish(labeled=4)))
    assert len(run.domain.splits.labeled) == 4
    assert len(run.domain.splits.test) == 44
    assert run.domain.patch == (40, 56, 40)
    assert run.domain.spacing_mm == (1.0, 1.0, 1.0)
    assert run.domain.weak.flip_axes == ("left_right", "down_up")
    assert medseg.check(run).problems == []
