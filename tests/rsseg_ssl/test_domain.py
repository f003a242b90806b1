"""From a folder of scenes to trained weights, predictions and numbers."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio
import torch

from common import config, verbs
from common.adapter import Adapter, Wish
from common.batch import check_batch
from common.domain import Domain
from common.errors import ConfigError, DataError
from common.evaluate import predictions, rows, table
from rsseg_ssl import reader
from rsseg_ssl.adapter import rsseg
from rsseg_ssl.domain import Scenes
from rsseg_ssl.settings import RssegRun
from rsseg_ssl.synthetic import Landscape, make_scenes
from tests.rsseg_ssl.scenes import mosaic, noise, save
from tests.toy import briefly

SHORT = [
    "fit.steps=2",
    "fit.log_every=1",
    "domain.batch={labeled: 2, unlabeled: 2}",
    "domain.network.encoder=tu-mobilenetv3_small_050",
]


def drafted(folder: Path, data: Path, wish: Wish, *overrides: str) -> RssegRun:
    path = folder / "run.yaml"
    path.write_text(rsseg.draft(data, wish), encoding="utf-8")
    return verbs.load(path, rsseg, [*SHORT, *overrides])


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    return make_scenes(
        tmp_path_factory.mktemp("world"), cases=12, labeled=8, seed=0, landscape=Landscape(side=64)
    )


def test_the_adapter_and_its_domain_keep_their_promises(world, tmp_path):
    run = rsseg.resolve(drafted(tmp_path, world, Wish(labeled=2)))
    adapter: Adapter = rsseg
    domain: Domain = adapter.open(run)
    assert domain.task.channels == 4
    assert domain.headline == ("miou", "")
    assert domain.describe().splits["labeled"] == run.domain.splits.labeled


def test_synthetic_scenes_are_the_same_each_time_and_sound(world, tmp_path):
    again = make_scenes(tmp_path, cases=1, labeled=1, seed=0, landscape=Landscape(side=64))
    for name in ("images", "masks"):
        file = f"{name}/scene_000.tif"
        with rasterio.open(world / file) as one, rasterio.open(again / file) as two:
            np.testing.assert_array_equal(one.read(), two.read())
    found = rsseg.inspect(world)
    assert found.problems == ()
    assert found.warnings == ()
    assert dict(found.facts)["spatial blocks"].startswith("6 ")


def test_a_resolved_run_is_complete_and_stays_as_it_is(world, tmp_path):
    run = rsseg.resolve(drafted(tmp_path, world, Wish(labeled=2, validation=2)))
    assert rsseg.resolve(run) == run
    config.save(run, tmp_path / "saved.yaml")
    assert config.load(tmp_path / "saved.yaml", RssegRun) == run
    assert run.domain.data.is_absolute()
    assert isinstance(run.domain.splits.unlabeled, tuple)
    assert len(run.domain.measured.mean) == 4


def test_statistics_come_from_training_scenes_alone(world, tmp_path):
    run = rsseg.resolve(drafted(tmp_path, world, Wish(labeled=2, validation=2)))
    splits, seen = run.domain.splits, []
    for name in (*splits.labeled, *splits.unlabeled):
        with rasterio.open(world / "images" / f"{name}.tif") as source:
            pixels = source.read().astype(float)
        seen.append(pixels[:, (pixels != 0).all(axis=0)])
    expected = np.concatenate(seen, axis=1)
    assert run.domain.measured.mean == pytest.approx(expected.mean(axis=1), rel=1e-5)
    assert run.domain.measured.std == pytest.approx(expected.std(axis=1), rel=1e-5)


def test_training_never_opens_the_mask_of_an_unlabeled_scene(world, tmp_path, monkeypatch):
    opened: list[Path] = []
    real = reader.opened
    monkeypatch.setattr(reader, "opened", lambda path: opened.append(path) or real(path))
    run = drafted(tmp_path, world, Wish(labeled=2))
    opened.clear()
    rsseg.check(run)
    run = rsseg.resolve(run)
    batches = rsseg.open(run).batches(seed=0, first_step=0)
    for _ in range(3):
        next(batches)
    read = {path.stem for path in opened if path.parent.name == "masks"}
    assert read
    assert not read & {*run.domain.splits.unlabeled}


def test_batches_are_normalized_finite_and_a_function_of_the_step(world, tmp_path):
    run = rsseg.resolve(drafted(tmp_path, world, Wish(labeled=2)))
    stream = rsseg.open(run).batches(seed=3, first_step=0)
    batches = [next(stream) for _ in range(4)]
    for batch in batches:
        check_batch(batch, 4, 5)
        invalid = ~batch.unlabeled.valid
        assert (batch.unlabeled.image.movedim(1, -1)[invalid] == 0).all()
    later = next(rsseg.open(run).batches(seed=3, first_step=3))
    assert later.labeled.image.equal(batches[3].labeled.image)
    assert later.unlabeled.valid.equal(batches[3].unlabeled.valid)
    pixels = torch.cat([b.unlabeled.image.movedim(1, 0)[:, b.unlabeled.valid] for b in batches], 1)
    assert pixels.mean().abs() < 0.5
    assert 0.5 < pixels.std() < 2


def test_it_trains_predicts_writes_and_measures(world, tmp_path):
    run = drafted(tmp_path, world, Wish(labeled=2, validation=2), "fit.validate_every=0")
    assert verbs.train(run, rsseg, tmp_path / "run").finished
    log = pd.read_csv(tmp_path / "run" / "log.csv")
    assert np.isfinite(log["value"]).all()
    image = world / "images" / "scene_000.tif"
    (path,) = verbs.predict(tmp_path / "run", rsseg, [image], tmp_path / "out")
    with rasterio.open(path) as written, rasterio.open(image) as source:
        assert (written.crs, written.transform, written.shape) == (
            source.crs, source.transform, source.shape,
        )  # fmt: skip
        labels, empty = written.read(1), (source.read() == 0).all(axis=0)
        assert (labels[empty] == written.nodata).all()
        assert (labels[~empty] < 5).all()
    domain, network = verbs.trained(tmp_path / "run", rsseg)
    cases = pd.concat(
        rows(domain, case, probs, "test") for case, probs in predictions(domain, network, "test")
    )
    assert 0 <= domain.summarize(table(cases))["miou", ""] <= 1


def test_a_perfect_prediction_scores_one(world, tmp_path):
    domain = rsseg.open(rsseg.resolve(drafted(tmp_path, world, Wish(labeled=2))))
    for case in domain.cases("test"):
        truth = case.truth
        probs = torch.nn.functional.one_hot(truth.clamp_max(4), 5).permute(2, 0, 1).float()
        scores = {(m.metric, m.label): m.value for m in domain.measure(probs, case)}
        assert scores["miou", ""] == 1


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["domain.splits.labeled=[]"], "splits.labeled names no case"),
        (["domain.splits.labeled=[scene_0]"], "the data holds no case 'scene_0'"),
        (["domain.splits.test=[scene_004, scene_011]"], "have none: scene_011"),
        (["domain.splits.labeled=[scene_000]", "domain.splits.test=[scene_001]"], "two sides"),
        (["domain.splits.labeled=[scene_000]", "domain.splits.test=[scene_001]"], "name: single"),
        (["domain.splits.unlabeled=[]"], "use method.name=supervised"),
        (["domain.tile=70"], "must be divisible by 32 for this network. Set it to 64."),
        (["domain.statistics={mean: [0, 0], std: [1, 1]}"], "domain.statistics names 2 bands"),
        (["domain.bands=[1, 9]"], "band 9 was asked for, but scene_"),
        (["domain.classes=[{name: a, value: 0}, {name: b, value: 1}]"], "are no classes"),
    ],
)
def test_what_would_fail_in_training_is_found_by_check(world, tmp_path, overrides, words):
    run = drafted(tmp_path, world, Wish(labeled=2), *overrides)
    assert words in "\n".join(rsseg.check(run).problems)


def test_peers_are_partners_in_turn_and_errors_name_the_partner(world, tmp_path):
    partners = "domain.partners=[{name: deeplabv3, encoder: resnet18}, {name: fpn, encoder: x}]"
    given = ["method.name=cross_pseudo", partners, "domain.tile=72"]
    run = rsseg.resolve(drafted(tmp_path, world, Wish(labeled=2), *given))
    domain = rsseg.open(run)
    weights = [sum(p.numel() for p in domain.new_network(peer).parameters()) for peer in (0, 1, 3)]
    assert weights[0] != weights[1] == weights[2]
    with pytest.raises(ConfigError, match=r"^domain\.partners\.1\.encoder: no 'x' here"):
        domain.new_network(2)
    problems = "\n".join(rsseg.check(run).problems)
    assert "divisible by 32 for network and partners. Set it to 64." in problems


def test_to_predict_neither_network_nor_partner_asks_for_its_first_weights(world, tmp_path):
    given = ["method.name=cross_pseudo", "domain.network.weights=a.pt"]
    partners = "domain.partners=[{name: fpn, weights: b.pt}]"
    run = drafted(tmp_path, world, Wish(labeled=2), *given, partners)
    bare = rsseg.for_prediction(run).domain
    assert [bare.network.weights, bare.partners[0].weights] == [None, None]
    assert bare.partners[0].name == "fpn"


def test_splits_side_by_side_are_allowed_where_asked_for_and_then_reported(world, tmp_path):
    run = drafted(
        tmp_path, world, Wish(labeled=2), "domain.blocks={name: single}",
        "domain.splits.labeled=[scene_000]", "domain.splits.test=[scene_001]",
    )  # fmt: skip
    found = rsseg.check(run)
    assert found.problems == ()
    text = "\n".join(found.warnings)
    assert "1 pairs of scenes of labeled and test touch (such as scene_000 and scene_001)" in text
    report = rsseg.open(rsseg.resolve(run)).describe()
    assert any("scene_000 and scene_001" in warning for warning in report.warnings)


def test_split_files_lie_beside_the_data_or_the_user_and_may_carry_endings(world, tmp_path):
    (tmp_path / "mine.txt").write_text("scene_000.tif\nscene_001\n")
    run = drafted(
        tmp_path, world, Wish(labeled=2), f"domain.splits.labeled={tmp_path / 'mine.txt'}",
        "domain.splits.test=[]",
    )  # fmt: skip
    assert rsseg.resolve(run).domain.splits.labeled == ("scene_000", "scene_001")
    gone = drafted(tmp_path, world, Wish(labeled=2), "domain.splits.labeled=nowhere.txt")
    assert "nowhere.txt cannot be read" in "\n".join(rsseg.check(gone).problems)


def test_what_cannot_be_predicted_is_listed_at_once(world, tmp_path):
    domain = rsseg.open(rsseg.resolve(drafted(tmp_path, world, Wish(labeled=2))))
    three = save(tmp_path / "three.tif", noise(bands=3))
    (tmp_path / "empty").mkdir()
    twice = save(tmp_path / "scene_000.tif", noise(bands=4))
    with pytest.raises(DataError) as caught:
        domain.find([three, tmp_path / "empty", tmp_path / "gone.tif", twice, world])
    text = str(caught.value)
    assert "scene 'three' has 3 bands, the run was trained on bands 1, 2, 3, 4. Give" in text
    assert "empty' holds no raster" in text
    assert "gone.tif' does not exist" in text
    assert "two inputs are called 'scene_000'" in text
    assert len(domain.find([world])) == 12
    assert all(case.mask is None for case in domain.find([world / "images"]))


def test_tiles_without_crs_train_with_a_warning(tmp_path):
    data = mosaic(tmp_path / "data", side=32, crs=None)
    run = drafted(tmp_path, data, Wish(labeled=2))
    assert any("no CRS" in warning for warning in rsseg.check(run).warnings)
    assert verbs.train(run, rsseg, tmp_path / "run").finished


def test_a_scene_that_is_gone_later_is_named(world, tmp_path):
    run = rsseg.resolve(drafted(tmp_path, world, Wish(labeled=2)))
    splits = run.domain.splits.model_copy(update={"test": ("atlantis",)})
    domain = Scenes(run.domain.model_copy(update={"splits": splits}))
    with pytest.raises(DataError, match=r"no longer holds scene 'atlantis' of splits\.test"):
        next(domain.cases("test"))


def a_few_tiles(source: Path, folder: Path) -> Path:
    """NAIP with the first tiles of each of its splits."""
    for kind in ("images", "masks", "splits"):
        (folder / kind).mkdir(parents=True)
    for split, most in (
        ("labeled_1_32_seed0", 4),
        ("block_train", 3),
        ("block_val", 2),
        ("block_test", 2),
    ):
        names = (source / "splits" / f"{split}.txt").read_text().split()[:most]
        (folder / "splits" / f"{split}.txt").write_text("\n".join(names))
        for name in names:
            for kind in ("images", "masks"):
                if not (folder / kind / name).exists():
                    (folder / kind / name).symlink_to((source / kind / name).absolute())
    (folder / "classes.json").symlink_to((source / "classes.json").absolute())
    return folder


def finite(run: RssegRun, folder: Path) -> None:
    """Train two steps, predict and measure the test scenes; nothing may be NaN."""
    assert verbs.train(run, rsseg, folder / "run").finished
    assert np.isfinite(pd.read_csv(folder / "run" / "log.csv")["value"]).all()
    domain, network = verbs.trained(folder / "run", rsseg)
    for case, probs in predictions(domain, network, "test"):
        assert probs.isfinite().all()
        domain.measure(probs, case)
        with rasterio.open(domain.write(probs, case, folder)) as written:
            assert written.shape == case.grid.shape_yx


def test_real_tiles_with_near_infrared_train_and_predict(data, tmp_path):
    tiles = a_few_tiles(data / "naip_landcover", tmp_path / "data")
    finite(drafted(tmp_path, tiles, Wish(labeled=3), "domain.tile=64"), tmp_path)


def test_real_radar_with_an_empty_image_and_an_ignored_mask_trains_without_a_nan(data, tmp_path):
    finite(
        drafted(
            tmp_path,
            data / "sen1floods11_sample",
            Wish(labeled=3),
            "domain.tile=64",
            "domain.splits.labeled=[Ghana_83483, Mekong_333434]",
            "domain.splits.test=[Paraguay_34417, Nigeria_812045]",
        ),
        tmp_path,
    )


CONFIGS = [
    path
    for path in sorted((Path(__file__).parents[2] / "configs" / "rsseg").glob("*.yaml"))
    if not path.stem.startswith(("voc_", "cityscapes_"))  # test_photographs.py
]


@pytest.fixture(scope="module")
def tiles(data, tmp_path_factory):
    return a_few_tiles(data / "naip_landcover", tmp_path_factory.mktemp("naip"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_of_this_adapter_takes_two_steps(tiles, path, tmp_path):
    assert path.read_text().startswith("# ")
    lean = ["domain.tile=32", "domain.splits.validation=[]", "domain.splits.test=[]"]
    run = verbs.load(path, rsseg, [f"domain.data={tiles}", *SHORT, *lean])
    assert len(rsseg.resolve(run).domain.splits.labeled) == 4
    assert verbs.train(briefly(run), rsseg, tmp_path / "run").finished


def test_nothing_in_a_resolved_run_is_left_to_be_decided(world, tmp_path):
    run = rsseg.resolve(drafted(tmp_path, world, Wish(labeled=2)))
    text = json.dumps(run.model_dump(mode="json"))
    assert '"measure"' not in text
    assert '"rest"' not in text
    assert dataclasses.is_dataclass(rsseg.open(run).task)
