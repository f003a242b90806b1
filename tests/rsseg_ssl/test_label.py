"""From a run on scenes to label maps that QGIS opens, and that train another run."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
import rasterio
import torch

from common import verbs
from common.adapter import Wish
from common.trained import restored
from rsseg_ssl.adapter import rsseg
from rsseg_ssl.synthetic import Landscape, make_scenes
from tests.rsseg_ssl.test_domain import drafted


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_scenes(
        tmp_path_factory.mktemp("world"), cases=8, labeled=6, seed=0, landscape=Landscape(side=64)
    )


def test_pseudo_labels_lie_where_their_scene_lies_and_teach_another_run(world, tmp_path):
    half = "method.filter={name: class_ratio, kept: 0.5}"
    run = drafted(tmp_path, world, Wish(labeled=2), half)
    verbs.train(run, rsseg, tmp_path / "run")
    written = verbs.label([tmp_path / "run"], rsseg, tmp_path / "pool")

    found = restored(tmp_path / "run", rsseg)
    cases = [*found.domain.cases("unlabeled")]
    assert len(written) == len(cases) > 0
    for path, case in zip(written, cases, strict=True):
        with rasterio.open(path) as label, rasterio.open(case.images[0]) as image:
            assert (label.crs, label.transform, label.shape) == (
                image.crs,
                image.transform,
                image.shape,
            )
            values = label.read(1)
            assert label.tags()["about"].startswith("pseudo-label of run, checkpoint ")
            marked = values != label.nodata
        valid = found.domain.whole(case).weak.valid[0].numpy()
        assert not marked[~valid].any()
        probs = found.domain.predict(found.learner.nets.predictor.eval(), case)
        with rasterio.open(tmp_path / "pool" / "confidence" / path.name) as sure:
            assert (sure.dtypes[0], sure.crs, sure.transform) == (
                "uint8",
                image.crs,
                image.transform,
            )
            shares = sure.read(1) * sure.scales[0]
            assert (sure.read(1)[~valid] == sure.nodata).all()
        np.testing.assert_allclose(shares[valid], probs.amax(0).numpy()[valid], atol=0.51 / 254)
        assert 0.4 < marked[valid].mean() < 0.6
        predicted = found.domain.predict(found.learner.nets.predictor.eval(), case).argmax(0)
        values_of = np.array(case.values or range(len(found.domain.task.classes)))
        np.testing.assert_array_equal(values[marked], values_of[predicted.numpy()[marked]])

    weak = f"domain.weak_labels={{scribbles: {tmp_path / 'pool' / 'labels'}}}"
    sure = "method.filter={name: confidence, threshold: 1.0}"
    again = drafted(tmp_path, world, Wish(labeled=2), weak, sure)
    assert verbs.train(again, rsseg, tmp_path / "second").finished
    log = (tmp_path / "second" / "log.csv").read_text("utf-8")
    coverage = [line for line in log.splitlines() if ",coverage," in line]
    assert 0.3 < float(coverage[-1].split(",")[2]) < 0.8


def test_scenes_that_lie_on_disk_are_combined_row_by_row(world, tmp_path):
    """Both runs leave float16 files; what is combined is their mean."""
    folders = []
    for seed in (0, 1):
        run = drafted(
            tmp_path, world, Wish(labeled=2), "domain.inference.memory_mb=0", f"seed={seed}"
        )
        folders.append(tmp_path / f"run{seed}")
        verbs.train(run, rsseg, folders[-1])
    founds = [restored(folder, rsseg) for folder in folders]
    case = next(iter(founds[0].domain.cases("test")))
    probs = [found.domain.predict(found.learner.nets.predictor.eval(), case) for found in founds]
    assert all(each.dtype == torch.float16 for each in probs)
    (path,) = verbs.predict(folders, rsseg, case.images, tmp_path / "out")
    mean = torch.stack([each.float() for each in probs]).mean(dim=0).half().float().numpy()
    with rasterio.open(path) as label:
        values, nodata = label.read(1), label.nodata
    values_of = np.array(case.values or range(len(mean)))
    there = values != nodata
    assert there.any()
    np.testing.assert_array_equal(values[there], values_of[mean.argmax(axis=0)[there]])


def test_a_scene_inside_of_an_archive_is_predicted(world, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a path of GDAL that counts from the folder
    run = drafted(tmp_path, world, Wish(labeled=2), "method.name=supervised")
    verbs.train(run, rsseg, tmp_path / "run")
    first = next(iter(restored(tmp_path / "run", rsseg).domain.cases("unlabeled"))).images[0]
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(first, "scene.tif")
    (tmp_path / "m.csv").write_text("image\n/vsizip/a.zip/scene.tif\n", "utf-8")
    (path,) = verbs.predict(tmp_path / "run", rsseg, [tmp_path / "m.csv"], tmp_path / "out")
    (plain,) = verbs.predict(tmp_path / "run", rsseg, [first], tmp_path / "plain")
    with rasterio.open(path) as one, rasterio.open(plain) as other:
        np.testing.assert_array_equal(one.read(), other.read())
