"""The data of semi-supervised papers, from its folders to a report, and their recipes."""

from __future__ import annotations

import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from common import verbs
from common.adapter import Wish
from common.errors import DataError
from common.splits import names_of, read_names
from medseg_ssl.adapter import medseg
from medseg_ssl.layouts import read_catalog
from tests.medseg_ssl.h5_files import LISTS, SHAPE, all_cases, make, write_h5
from tests.medseg_ssl.test_domain import home, run_of
from tests.medseg_ssl.volumes import image_and_label

__all__ = ["home"]  # a fixture
ROOT = Path(__file__).parents[2]
KINDS = ("la", "acdc", "pancreas", "brats")
RECIPES = sorted(p for k in KINDS for p in (ROOT / "configs" / "medseg").glob(f"{k}_*.yaml"))
SMALL = ["fit.steps=2", "fit.accelerator=cpu", "domain.network={name: unet, features: [4, 8]}"]
FLAT = (
    "domain.network={name: unet, features: [4, 8], kernel: [3, 3, 1], strides: [[2, 2, 1]]}",
    "domain.patch=[16, 16, 1]",
)
CUBE = ("domain.patch=[16, 16, 16]",)
PARTS = {  # labeled, unlabeled, validation, test cases
    "la_4": (4, 76, 0, 20),
    "la_8": (8, 72, 0, 20),
    "la_16": (16, 64, 0, 20),
    "acdc_3": (6, 134, 20, 40),
    "acdc_7": (14, 126, 20, 40),
    "pancreas_6": (6, 56, 0, 20),
    "pancreas_12": (12, 50, 0, 20),
    "brats_25": (25, 225, 25, 60),
    "brats_50": (50, 200, 25, 60),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """All cases of each benchmark, tiny, and a cache that their looks are remembered in."""
    whole = tmp_path_factory.mktemp("papers")
    for kind in KINDS:
        make(whole / kind, kind, all_cases(kind))
    return whole


def small(kind: str) -> list[str]:
    return [*SMALL, *(FLAT if kind == "acdc" else CUBE)]


def with_lists(folder: Path, **lists: list[str]) -> Path:
    for name, cases in lists.items():
        (folder / f"{name}.list").write_text("\n".join(cases) + "\n", "utf-8")
    return folder


NAMED = {
    "la": [f"{letter}6SR5RBREL16DQ6M8LWS" for letter in "BADCFE"],
    "acdc": [f"patient{n:03d}_frame{frame:02d}" for n in (9, 2, 5) for frame in (1, 2)],
    "pancreas": [f"image{n:04d}" for n in (9, 2, 7, 4, 5, 6)],
    "brats": [f"BraTS19_TCIA0{n}_370_1" for n in (9, 2, 7, 4, 5, 6)],
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_goes_from_inspect_to_a_report(kind, tmp_path):
    names = NAMED[kind]
    data = with_lists(make(tmp_path / kind, kind, names), train=names[:4], test=names[4:])
    found = medseg.inspect(data)
    assert found.problems == []
    facts = dict(found.facts)
    assert facts["layout"].endswith("(HDF5)")
    assert facts["cases"].startswith("6: 6 with a label")
    assert ("patients" in facts) == (kind == "acdc")
    path = tmp_path / "run.yaml"
    path.write_text(medseg.draft(data, Wish(labeled=2)), encoding="utf-8")
    run = verbs.load(path, medseg, [*small(kind), "domain.measures.parity=papers"])
    assert medseg.check(run).problems == []
    splits = run.domain.splits
    assert set(splits.labeled) == set(names[:2]), "the first of train.list"
    assert set(splits.test) == set(names[4:])
    assert verbs.train(run, medseg, tmp_path / "run").finished
    verbs.evaluate(tmp_path / "run", medseg)
    table = pd.read_csv(tmp_path / "run" / "cases.csv")
    assert {"dice", "hd95_voxel", "asd_voxel"} <= {*table["metric"]}
    file = next(data.rglob(f"*{names[4]}*")) if kind != "la" else next(data.rglob(names[4]))
    (written,) = verbs.predict([tmp_path / "run"], medseg, [file], tmp_path / "out")
    assert written.name == f"{names[4]}.nii.gz"
    image = nib.load(written)
    assert image.shape == SHAPE, "ACDC is turned from slices first to X, Y, Z"
    assert image.header.get_zooms() == pytest.approx([0.625 if kind == "la" else 1.0] * 3)


def test_slices_far_apart_are_drafted_in_2d_though_no_spacing_says_so(tmp_path):
    data = make(tmp_path / "ACDC", "acdc", NAMED["acdc"])
    text = medseg.draft(data, Wish(labeled=2))
    assert "patch: [16, 12, 1]  # one slice" in text
    assert "kernel: [3, 3, 1]" in text
    assert "right ventricle" in text


def test_lists_may_lie_beside_the_folder_as_those_of_ua_mt(tmp_path):
    names = NAMED["la"]
    make(tmp_path / "data", "la", names)
    with_lists(tmp_path / "data", train=names[:4], test=names[4:])
    catalog = read_catalog(tmp_path / "data" / "2018LA_Seg_Training Set")
    assert catalog.order == tuple(names[:4])
    assert catalog.splits == {"test": tuple(names[4:])}
    other = read_catalog(make(tmp_path / "data" / "ACDC", "acdc", NAMED["acdc"]))
    assert (other.order, other.splits, other.problems) == ((), {}, ()), "lists of other cases"


def test_lists_of_the_folder_may_be_those_of_a_config(tmp_path):
    names = NAMED["acdc"]
    data = with_lists(make(tmp_path, "acdc", names), train=names[:2], test=names[4:])
    splits = {"labeled": data / "train.list", "test": data / "test.list"}
    run = run_of(data, tmp_path / "cache", splits=splits, spacing_mm=[1, 1, 1])
    found = medseg.resolve(run).domain.splits
    assert (found.labeled, found.test) == (tuple(names[:2]), tuple(names[4:]))
    assert found.unlabeled == tuple(sorted(names[2:4]))


def test_a_list_that_names_an_absent_case_is_refused_with_its_remedy(tmp_path):
    names = NAMED["pancreas"]
    data = with_lists(make(tmp_path, "pancreas", names), train=[*names[:4], "image0099"])
    (problem,) = medseg.inspect(data).problems
    assert problem == (
        f"{data / 'train.list'} names image0099, of which there is no file. Restore it, or take "
        "its line out of the list."
    )
    with pytest.raises(DataError, match="image0099"):
        medseg.draft(data, Wish(labeled=2))


def test_slices_alone_are_refused(tmp_path):
    image = image_and_label()[0]
    write_h5(tmp_path / "data" / "slices" / "patient001_frame01_slice_0.h5", image=image[..., 0])
    problems = medseg.inspect(tmp_path).problems
    assert "holds slices only: expected volumes" in problems[0]


def test_slices_beside_their_volumes_are_left_alone(tmp_path):
    data = make(tmp_path, "acdc", NAMED["acdc"])
    write_h5(data / "data" / "slices" / "patient009_frame01_slice_0.h5", image=np.zeros((4, 4)))
    assert len(read_catalog(data).cases) == 6
    assert medseg.inspect(data).problems == []


def test_what_the_files_do_not_say_is_told(tmp_path):
    la = medseg.inspect(make(tmp_path / "la", "la", NAMED["la"])).warnings
    assert any("voxels as 0.625 mm, as LA is described" in said for said in la)
    acdc = medseg.inspect(make(tmp_path / "acdc", "acdc", NAMED["acdc"])).warnings
    assert any("does not say how large its voxels are, so 1 voxel counts" in s for s in acdc)
    assert not any("nothing says which cases are of one patient" in said for said in acdc)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_takes_two_steps_on_a_tiny_copy(path, folders, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    kind = path.stem.partition("_")[0]
    assert path.read_text(encoding="utf-8").startswith("# ")
    tiny = [f"domain.data={folders / kind}", f"domain.cache={folders / 'cache'}"]
    whole = verbs.load(path, medseg, [*tiny, "domain.spacing_mm=[1, 1, 1]"])
    splits = medseg.resolve(whole).domain.splits
    found = [len(names_of(splits, s)) for s in ("labeled", "unlabeled", "validation", "test")]
    assert tuple(found) == PARTS["_".join(path.stem.split("_")[:2])]
    few = {"labeled": 2, "unlabeled": 3, "validation": 0, "test": 1}
    brief = [f"domain.splits.{s}={[*names_of(splits, s)[:n]]}" for s, n in few.items()]
    unlabeled = 0 if "supervised" in path.stem else 2
    brief += [f"domain.batch={{labeled: 2, unlabeled: {unlabeled}}}"]
    assert medseg.check(verbs.load(path, medseg, [*tiny, *brief])).problems == []
    run = verbs.load(path, medseg, [*tiny, *brief, *small(kind)])
    assert verbs.train(run, medseg, tmp_path / "run").finished


def test_recipes_are_those_of_the_page_and_choose_nothing_on_the_test():
    assert len(RECIPES) == 11
    page = (ROOT / "docs" / "protocols.md").read_text(encoding="utf-8")
    for path in RECIPES:
        assert path.stem in page
        run = verbs.load(path, medseg)
        assert run.fit.validate_every == 0
        assert run.domain.measures.parity == "papers"


def test_a_longer_list_begins_with_the_shorter_one():
    for kind, counts in {
        "la": (4, 8, 16),
        "acdc": (3, 7),
        "pancreas": (6, 12),
        "brats": (25, 50),
    }.items():
        lists = [read_names(LISTS / f"{kind}_labeled_{count}.txt") for count in counts]
        for few, more in itertools.pairwise(lists):
            assert more[: len(few)] == few
