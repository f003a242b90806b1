"""From a run on scenes to label maps that QGIS opens, and that train another run."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio

from common import verbs
from common.adapter import Wish
from common.trained import restored
from rsseg_ssl.domain import rsseg
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
