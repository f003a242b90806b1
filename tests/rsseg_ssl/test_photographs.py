"""PASCAL VOC and Cityscapes, from their folders to a report."""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from common import verbs
from common.adapter import Wish
from common.batch import IGNORE
from common.errors import DataError
from rsseg_ssl import layouts
from rsseg_ssl.adapter import rsseg
from rsseg_ssl.catalog import read_catalog
from rsseg_ssl.entries import scene_name
from rsseg_ssl.photographs import CITYSCAPES
from rsseg_ssl.settings import RssegRun
from tests.rsseg_ssl.pictures import make_cityscapes, make_voc, palette
from tests.rsseg_ssl.scenes import mosaic

ROOT = Path(__file__).parents[2]
RECIPES = sorted(
    path
    for kind in ("voc", "cityscapes")
    for path in (ROOT / "configs" / "rsseg").glob(f"{kind}_*.yaml")
)
SMALL = [
    "fit.steps=2",
    "fit.log_every=1",
    "fit.accelerator=cpu",
    "domain.tile=32",
    "domain.network.encoder=tu-mobilenetv3_small_050",
    "domain.network.weights=null",
]


@pytest.fixture(scope="module")
def voc(tmp_path_factory) -> Path:
    return make_voc(tmp_path_factory.mktemp("voc"))


@pytest.fixture(scope="module")
def cityscapes(tmp_path_factory) -> Path:
    return make_cityscapes(tmp_path_factory.mktemp("cityscapes"))


def recipe(name: str, data: Path, *overrides: str) -> RssegRun:
    batch = f"domain.batch={{labeled: 2, unlabeled: {0 if 'supervised' in name else 2}}}"
    given = [f"domain.data={data}", *SMALL, batch, *overrides]
    return verbs.load(ROOT / "configs" / "rsseg" / f"{name}.yaml", rsseg, given)


@pytest.mark.parametrize("kind", ["voc", "cityscapes"])
def test_a_folder_goes_from_inspect_to_a_report_with_the_numbers_of_the_survey(
    kind, request, tmp_path, caplog
):
    data = request.getfixturevalue(kind)
    found = rsseg.inspect(data)
    assert found.problems == ()
    assert found.warnings == ()
    assert dict(found.facts)["annotated scenes"] == "9 of 12"
    path = tmp_path / "run.yaml"
    path.write_text(rsseg.draft(data, Wish(labeled=3)), encoding="utf-8")
    run = verbs.load(path, rsseg, [*SMALL, "domain.batch={labeled: 2, unlabeled: 2}"])
    assert rsseg.check(run).problems == ()
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        assert verbs.train(run, rsseg, tmp_path / "run").finished
        report = verbs.evaluate(tmp_path / "run", rsseg)
    assert caplog.text.count("CRS") <= 1, "areas are left out: said once, however many there are"
    summary = pd.read_csv(tmp_path / "run" / "summary.csv", keep_default_na=False)
    assert not summary["metric"].str.contains("area").any()
    found = dict(zip(summary["metric"], summary["value"], strict=True))
    for metric, value in survey_metrics(run, tmp_path / "run").items():
        assert float(found[metric]) == pytest.approx(value, abs=1e-6), metric
    page = report.read_text(encoding="utf-8")
    for title in ("Pixel accuracy", "Mean accuracy", "Mean IoU", "Frequency-weighted IoU"):
        assert title in page


def survey_metrics(run: RssegRun, folder: Path) -> dict[str, float]:
    """PA, MA, mIoU and FWIoU, counted pixel by pixel from the files of the test set."""
    catalog = read_catalog(run.domain)
    truths, labels = [], []
    for case in catalog.used("test"):
        truths.append(case.truth.numpy().ravel())
        with Image.open(folder / "predictions" / f"{case.id}.tif") as label:
            labels.append(np.asarray(label).ravel())
    truth, label = np.concatenate(truths), np.concatenate(labels)
    truth, label = truth[truth != IGNORE], label[truth != IGNORE]
    recalls, ious, shares = [], [], []
    for value in range(len(run.domain.classes)):
        mine, said = truth == value, label == value
        if mine.any():
            recalls.append((mine & said).sum() / mine.sum())
        if (mine | said).any():
            ious.append((mine & said).sum() / (mine | said).sum())
            shares.append(mine.mean())
    return {
        "pixel_accuracy": float((truth == label).mean()),
        "mean_accuracy": float(np.mean(recalls)),
        "miou": float(np.mean(ious)),
        "fwiou": float(np.dot(ious, shares)),
    }


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_takes_two_steps_on_a_tiny_copy(path, request, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kind = path.stem.partition("_")[0]
    run = recipe(path.stem, request.getfixturevalue(kind))
    assert path.read_text(encoding="utf-8").startswith("# ")
    assert rsseg.check(run).problems == ()
    splits = rsseg.resolve(run).domain.splits
    labeled, unlabeled, test = {"voc": (4, 6, 2), "cityscapes": (3, 3, 3)}[kind]
    unlabeled = 0 if "supervised" in path.stem else unlabeled
    assert [len(splits.labeled), len(splits.unlabeled), len(splits.test)] == [
        labeled,
        unlabeled,
        test,
    ]
    assert verbs.train(run, rsseg, tmp_path / "run").finished


def test_there_are_six_recipes_whose_tiles_fit_the_network_and_whose_classes_are_the_layouts():
    assert len(RECIPES) == 6
    for path in RECIPES:
        domain = verbs.load(path, rsseg).domain
        assert domain.tile % domain.network.multiple == 0
        assert domain.network.weights == "imagenet"
        assert domain.measured.mean == (123.675, 116.28, 103.53)
        assert len(domain.classes) == (21 if path.stem.startswith("voc") else 19)


def test_recipes_describe_the_classes_that_the_layouts_know(voc, cityscapes):
    for name, data in (("voc_supervised", voc), ("cityscapes_supervised", cityscapes)):
        domain, layout = recipe(name, data).domain, layouts.survey(data)
        given = [(each.name, each.value, each.color) for each in domain.classes]
        assert given == [(each.name, each.value, each.color) for each in layout.classes]
        assert domain.ignore == layout.ignore


def test_masks_of_voc_are_indices_and_never_colors_with_void_ignored(voc):
    catalog = read_catalog(recipe("voc_supervised", voc).domain)
    truth = catalog.cases["2007_000000"].truth
    with Image.open(voc / "SegmentationClass" / "2007_000000.png") as mask:
        assert mask.mode == "P"
        stored = np.asarray(mask)
    np.testing.assert_array_equal(truth.numpy(), np.where(stored == 255, IGNORE, stored))
    assert truth.unique().tolist() == [0, 1, 15, IGNORE]


def test_ids_of_cityscapes_become_train_ids_and_all_others_are_ignored(tmp_path):
    city = tmp_path / "gtFine" / "train" / "ulm"
    view = tmp_path / "leftImg8bit" / "train" / "ulm" / "ulm_000000_000019_leftImg8bit.png"
    for folder in (city, view.parent):
        folder.mkdir(parents=True)
    every_id = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(np.stack([every_id] * 3, axis=-1)).save(view)
    Image.fromarray(every_id).save(city / "ulm_000000_000019_gtFine_labelIds.png")
    settings = recipe(
        "cityscapes_supervised", tmp_path, "domain.splits.labeled=[ulm_000000_000019]"
    ).domain
    truth = read_catalog(settings).cases["ulm_000000_000019"].truth.flatten()
    expected = torch.full((256,), IGNORE)
    for train_id, label in enumerate(
        (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
    ):
        expected[label] = train_id
    assert truth.equal(expected)
    assert len(CITYSCAPES) == 19


def test_train_ids_give_the_truth_that_ids_give(cityscapes, tmp_path):
    other = make_cityscapes(tmp_path, kind="labelTrainIds")
    for name in ("aachen_000000_000019", "lindau_000002_000019"):
        one, two = (
            read_catalog(recipe("cityscapes_supervised", data).domain).cases[name].truth
            for data in (cityscapes, other)
        )
        assert one.equal(two)
        assert (one == IGNORE).any()


def test_streets_of_one_city_are_one_block_and_empty_test_masks_are_no_truth(cityscapes):
    cases = read_catalog(recipe("cityscapes_supervised", cityscapes).domain).cases
    assert cases["aachen_000001_000019"].group == "aachen"
    assert {case.group for case in cases.values()} == {"aachen", "bremen", "lindau", "berlin"}
    assert cases["berlin_000000_000019"].mask is None


def test_a_city_on_both_sides_is_a_leak(cityscapes):
    run = recipe(
        "cityscapes_supervised",
        cityscapes,
        "domain.splits.labeled=[aachen_000000_000019]",
        "domain.splits.test=[aachen_000001_000019]",
    )
    assert any("group 'aachen'" in each for each in rsseg.check(run).problems)


def test_augmented_masks_are_read_only_where_asked_for(voc):
    plain = layouts.survey(voc)
    more = layouts.survey(voc, "SegmentationClassAug")
    assert [sum(e.mask is not None for e in each.entries) for each in (plain, more)] == [9, 11]
    assert plain.kind.endswith("not of SegmentationClassAug/")
    run = recipe("voc_supervised", voc, "domain.masks=SegmentationClassAug")
    case = read_catalog(run.domain).cases["2007_000010"]
    assert case.mask is not None
    assert case.mask.parent.name == "SegmentationClassAug"
    wrong = recipe("voc_supervised", voc, "domain.masks=SegmentationClassSBD")
    assert any(
        "holds no folder 'SegmentationClassSBD'. Correct domain.masks." in each
        for each in rsseg.check(wrong).problems
    )


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("2007_000032", "2007_000032"),
        ("2007_000032.jpg", "2007_000032"),
        ("JPEGImages/2007_000032.jpg SegmentationClass/2007_000032.png", "2007_000032"),
        ("/JPEGImages/2007_000032.jpg\t/SegmentationClassAug/2007_000032.png", "2007_000032"),
        ("leftImg8bit/val/ulm/ulm_0_1_leftImg8bit.png gtFine/val/ulm/ulm_0_1.png", "ulm_0_1"),
        ("val/ulm/ulm_0_1_leftImg8bit.png", "ulm_0_1"),
        ("ulm_0_1_leftImg8bit", "ulm_0_1"),
        ("two words.tif", "two words"),
        ("two words", "two words"),
        ("block 3/scene.tif", "block 3/scene.tif"),
        ("nobody knows", "nobody knows"),
        ("images/nobody.png masks/nobody.png", "nobody"),
        ("v1.5", "v1.5"),
    ],
)
def test_lines_of_split_lists_name_scenes(line, name):
    known = {"2007_000032", "ulm_0_1", "two words", "block 3/scene.tif"}
    assert scene_name(line, known) == name


def test_an_own_classes_json_beside_the_folders_is_believed(tmp_path):
    data = make_voc(tmp_path, images=2, labeled=2)
    classes = [{"id": 0, "name": "soil"}, {"id": 1, "name": "crop"}]
    (data / "classes.json").write_text(json.dumps({"classes": classes}), encoding="utf-8")
    layout = layouts.survey(data)
    assert [each.name for each in layout.classes] == ["soil", "crop"]
    assert layout.ignore == ()


def test_masks_of_another_folder_are_read_in_any_layout_but_a_manifest(tmp_path):
    data = mosaic(tmp_path / "data")
    (data / "masks").rename(data / "masks_2023")
    assert not any(entry.mask for entry in layouts.survey(data).entries)
    assert all(entry.mask for entry in layouts.survey(data, "masks_2023").entries)
    manifest = tmp_path / "data" / "list.csv"
    manifest.write_text("image\nimages/t0.tif\n", encoding="utf-8")
    (problem,) = layouts.survey(manifest, "masks_2023").problems
    assert problem.endswith("names the mask of each scene itself. Remove domain.masks.")


def test_a_gray_photograph_is_named_with_a_remedy(tmp_path):
    data = make_voc(tmp_path)
    gray = data / "JPEGImages" / "2007_000001.jpg"
    Image.open(gray).convert("L").save(gray)
    (problem,) = rsseg.inspect(data).problems
    assert "most scenes have 3 bands, but these have not: 2007_000001 (1)." in problem
    assert "make gray photographs RGB" in problem
    run = recipe("voc_supervised", data)
    with pytest.raises(DataError, match=r"2007_000001.jpg holds 1\..*gray photographs: RGB"):
        verbs.train(run, rsseg, tmp_path / "run")


def test_a_mask_saved_in_colors_is_named_with_a_remedy(tmp_path):
    data = make_voc(tmp_path)
    mask = data / "SegmentationClass" / "2007_000002.png"
    Image.open(mask).convert("RGB").save(mask)
    (problem,) = rsseg.inspect(data).problems
    assert "scene '2007_000002': the mask has 3 bands, so it holds colors." in problem


def test_a_class_beyond_the_table_is_named(tmp_path):
    data = make_voc(tmp_path)
    odd = np.full((64, 80), 77, dtype=np.uint8)
    palette(odd).save(data / "SegmentationClass" / "2007_000000.png")
    (problem,) = rsseg.inspect(data).problems
    assert "scene '2007_000000': mask values 77 are no classes." in problem


def test_masks_without_an_image_are_told(tmp_path):
    voc, city = make_voc(tmp_path / "voc"), make_cityscapes(tmp_path / "city")
    (voc / "JPEGImages" / "2007_000000.jpg").unlink()
    next((city / "leftImg8bit" / "train" / "aachen").glob("*_000000_*")).unlink()
    for data, name in ((voc, "2007_000000"), (city, "aachen_000000_000019")):
        (warning,) = layouts.survey(data).warnings
        assert warning.startswith("masks without an image")
        assert name in warning


def test_the_folder_above_is_answered_with_the_folder_to_name(voc, tmp_path):
    make_voc(tmp_path / "VOC2012", images=2, labeled=2)
    (problem,) = layouts.survey(tmp_path).problems
    assert "the folder that holds JPEGImages/" in problem


def test_an_image_smaller_than_the_crop_is_padded_and_the_padding_teaches_nothing(voc):
    run = recipe("voc_fixmatch", voc, "domain.tile=96", "domain.weak={symmetries: 1}")
    domain = rsseg.open(rsseg.resolve(run))
    batch = next(domain.batches(seed=0, first_step=0))
    assert batch.labeled.image.shape == (2, 3, 96, 96)
    for target, image in zip(batch.labeled.target, batch.labeled.image, strict=True):
        outside = (image == 0).all(dim=0)
        assert outside.sum() >= 96 * 96 - 80 * 64
        assert (target[outside] == IGNORE).all()
    assert not batch.unlabeled.valid.all()


def test_predictions_keep_the_size_of_every_photograph(voc, tmp_path):
    run = recipe("voc_supervised", voc)
    verbs.train(run, rsseg, tmp_path / "run")
    written = verbs.predict(tmp_path / "run", rsseg, [voc], tmp_path / "out")
    assert len(written) == 12
    folder = voc / "JPEGImages"
    for path in written:
        with Image.open(path) as label, Image.open(folder / f"{path.stem}.jpg") as photograph:
            assert label.size == photograph.size
            assert np.asarray(label).max() <= 20
