"""Weak labels of scenes from a config to training: checked, cut, resumed, reported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import shapely
import torch

from common import verbs
from common.adapter import Wish
from common.batch import check_batch
from common.errors import ConfigError, DataError
from common.sampling import generator
from rsseg_ssl import reader, statements
from rsseg_ssl.adapter import rsseg
from rsseg_ssl.augment import Weak
from rsseg_ssl.batches import Cutting, Memory, UnlabeledPool
from rsseg_ssl.catalog import without_truth
from rsseg_ssl.hints import Boxes, Painted, Shapes
from rsseg_ssl.settings import Statistics
from rsseg_ssl.weak_labels import SceneHints, WeakLabels
from tests.rsseg_ssl.pictures import make_cityscapes, make_voc
from tests.rsseg_ssl.scenes import noise, save, scene
from tests.rsseg_ssl.weak import (
    POINTS,
    ROW,
    SIDE,
    config_of,
    first_batch,
    on_map,
    run_of,
    saved,
)

pytestmark = pytest.mark.usefixtures("home")


COMMANDS = """
import contextlib, sys
from pathlib import Path
import torch
from common import verbs
from rsseg_ssl.cli import main

torch.set_num_threads(1)

def say(*words):
    sys.argv = ["rsseg-ssl", *words]
    try:
        main()
    except SystemExit as end:
        return end.code

@contextlib.contextmanager
def asked_at_once():
    yield lambda: True

usual = verbs.asked_to_stop
assert not say("check", "weak.yaml")
assert not say("train", "weak.yaml", "--output", "whole")
verbs.asked_to_stop = asked_at_once
say("train", "weak.yaml", "--output", "parts")
print("STOPPED" if not Path("parts/best.ckpt").exists() else "FINISHED")
verbs.asked_to_stop = usual
assert not say("train", "weak.yaml", "--output", "parts")
assert not say("train", "weak.yaml", "--output", "free", "--set", "domain.weak_labels=null")
assert not say("evaluate", "parts")
"""


def test_a_run_with_all_four_kinds_is_checked_and_resumes_bit_for_bit(folder, home):
    config_of(folder)
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "STOPPED" in done.stdout
    assert f"{statements.ROW} {ROW}" in " ".join(done.stdout.split())
    whole, parts, free = (
        torch.load(home / name / "best.ckpt", weights_only=False)["model"]
        for name in ("whole", "parts", "free")
    )
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert any(not torch.equal(whole[name], free[name]) for name in whole)
    assert ROW in (home / "parts" / "report.html").read_text(encoding="utf-8")


def test_windows_carry_a_flag_per_pixel_as_soon_as_one_file_tells_pixels_apart(folder):
    batch = first_batch(run_of(folder))
    assert batch.unlabeled.possible.shape == (4, 2, SIDE, SIDE)
    check_batch(batch, 3, 2)
    assert (batch.unlabeled.possible.sum(dim=(1, 2, 3)) < 2 * SIDE**2).sum() == 3
    tags = first_batch(run_of(folder, {"tags": "tags.csv"})).unlabeled
    assert tags.possible.shape == (4, 2, 1, 1)
    flags = sorted(tuple(each) for each in tags.possible.flatten(1).tolist())
    assert flags == [(True, False), (True, True), (True, True), (True, True)]
    both = first_batch(run_of(folder, {"tags": "tags.csv", "scribbles": "scribbles"}))
    assert both.unlabeled.possible.shape == (4, 2, SIDE, SIDE)


def test_a_run_without_weak_labels_is_free_and_reads_none(folder):
    run = verbs.load(config_of(folder), rsseg, ["domain.weak_labels=null"])
    assert first_batch(run).unlabeled.possible.shape == (4, 2, 1, 1)
    assert statements.ROW not in dict(rsseg.check(run).facts)
    assert statements.ROW not in dict(rsseg.open(rsseg.resolve(run)).describe().data)


@pytest.mark.parametrize("limit_mb", [0, 100])
@pytest.mark.parametrize("zoom", [1.0, 1.5])
def test_what_is_possible_moves_with_the_image(tmp_path, limit_mb, zoom):
    """Bands say where a pixel is; a mask rules land out where the row is even."""
    side, tile = 40, 16
    rows, columns = np.mgrid[:side, :side].astype(np.uint16)
    case = scene(save(tmp_path / "a.tif", np.stack([rows, columns])))
    drawn = np.where(rows % 2, 255, 1).astype(np.uint8)
    painted = Painted(save(tmp_path / "m.tif", drawn[None]), (0, 1), (255,))
    said = WeakLabels(2, {"a": SceneHints(drawn={"scribbles": painted})}, tell_pixels_apart=True)
    plain = Statistics(mean=(0.0, 0.0), std=(1.0, 1.0))
    cutting = Cutting(tile, 8, Weak(symmetries=8, zoom=zoom), plain)
    pool = UnlabeledPool([without_truth(case)], cutting, Memory(limit_mb), said)
    for seed in range(20):
        sample = pool.draw(0, generator(seed))
        assert sample.possible.shape == (2, tile, tile)
        assert sample.possible[0].equal(sample.image[0] % 2 == 1)
        assert sample.possible[1].all()


@pytest.mark.parametrize("limit_mb", [0, 100])
def test_beyond_the_edge_of_a_scene_every_class_is_possible(tmp_path, limit_mb):
    case = scene(save(tmp_path / "a.tif", noise(bands=2, side=10)))
    box = np.array([shapely.box(2, 3, 5, 6)], dtype=object)
    shapes = Shapes(box, np.array([1]), ("boxes.gpkg, feature 1",))
    boxes = Boxes(shapes, (10, 10), 2)
    tags = frozenset({0, 1})
    said = WeakLabels(2, {"a": SceneHints(tags, {"boxes": boxes})}, tell_pixels_apart=True)
    plain = Statistics(mean=(0.0, 0.0), std=(1.0, 1.0))
    pool = UnlabeledPool(
        [without_truth(case)], Cutting(16, 8, Weak(symmetries=1), plain), Memory(limit_mb), said
    )
    sample = pool.draw(0, generator(0))
    expected = torch.zeros(16, 16, dtype=torch.bool)
    expected[3 + 3 : 3 + 6, 3 + 2 : 3 + 5] = True
    assert sample.possible[1].equal(expected | ~sample.valid)
    assert sample.possible[0].all()


def test_workers_draw_what_the_training_process_draws(folder):
    alone = first_batch(run_of(folder))
    helped = first_batch(run_of(folder, batch={"labeled": 2, "unlabeled": 4, "workers": 1}))
    assert alone.unlabeled.possible.equal(helped.unlabeled.possible)
    windows = first_batch(run_of(folder, cache_mb=0))
    assert alone.unlabeled.possible.equal(windows.unlabeled.possible)


def test_resolving_makes_the_paths_absolute_and_all_files_count_in_the_digest(folder):
    saved(folder / "lines.shp", ("land", on_map(9, shapely.LineString([(1, 1), (5, 1)]))))
    run = rsseg.resolve(run_of(folder))
    assert run.domain.weak_labels.tags == folder / "tags.csv"
    assert rsseg.resolve(run) == run
    domain = rsseg.open(run)
    told = {path.relative_to(folder).as_posix() for path in domain.files()}
    assert {"tags.csv", "boxes.gpkg", "points.csv", "scribbles/t9.tif"} <= told
    assert dict(domain.describe().data)[statements.ROW] == ROW
    shapes = rsseg.open(rsseg.resolve(run_of(folder, {"scribbles": "lines.shp"})))
    assert {"lines.shp", "lines.dbf", "lines.prj"} <= {path.name for path in shapes.files()}
    (folder / "tags.csv").unlink()
    with pytest.raises(DataError, match=r"weak labels tags\.csv are neither in the current"):
        rsseg.resolve(run_of(folder))


def test_whoever_opens_a_run_with_weak_labels_that_cannot_be_used_is_told(folder):
    (folder / "tags.csv").write_text("case,class\nt66,land\n")
    domain = rsseg.open(rsseg.resolve(run_of(folder)))
    with pytest.raises(DataError) as error:
        next(domain.batches(seed=0, first_step=0))
    assert str(error.value) == (
        "domain.weak_labels: 1 problem\n  tags.csv, line 2: there is no case 't66'. Did you mean "
        "'t6'?"
    )


def test_a_method_without_pseudo_labels_refuses_weak_labels(folder):
    with pytest.raises(ConfigError) as error:
        verbs.load(config_of(folder), rsseg, ["method.name=supervised"])
    assert (
        "domain.weak_labels narrows pseudo-labels, but method 'supervised' makes none. Remove"
        in str(error.value)
    )


def test_no_mask_of_an_unlabeled_scene_is_read_for_its_weak_labels(folder, monkeypatch):
    opened: list[Path] = []
    real = reader.opened
    monkeypatch.setattr(reader, "opened", lambda path: opened.append(path) or real(path))
    run = run_of(folder)
    assert rsseg.check(run).problems == ()
    first_batch(run)
    read = {path.stem for path in opened if path.parent.name == "masks"}
    assert read == {f"t{number}" for number in range(6)}


@pytest.mark.parametrize("layout", [make_voc, make_cityscapes])
def test_photographs_have_weak_labels_in_pixels_or_none(home, layout):
    data = layout(home / "data")
    path = home / "run.yaml"
    path.write_text(rsseg.draft(data, Wish(labeled=1)), encoding="utf-8")
    run = verbs.load(path, rsseg)
    assert "weak_labels" not in path.read_text()
    assert statements.ROW not in dict(rsseg.check(run).facts)
    name = rsseg.resolve(run).domain.splits.unlabeled[0]
    (home / "points.csv").write_text(f"{POINTS}{name},{run.domain.classes[1].name},2,3\n")
    run = verbs.load(path, rsseg, ["domain.weak_labels={points: points.csv}"])
    found = rsseg.check(run)
    assert dict(found.facts)[statements.ROW].startswith("tags of 0, boxes of 0, points of 1, ")
    check_batch(first_batch(run), 3, len(run.domain.classes))
