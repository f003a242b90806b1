"""From a config on scenes to a diagnosis, its words and its section of the report."""

from __future__ import annotations

import pytest
import torch

from common.adapter import Wish
from rsseg_ssl.adapter import rsseg
from rsseg_ssl.synthetic import Landscape, make_scenes
from tests.common import diagnosed
from tests.rsseg_ssl.scenes import mosaic
from tests.rsseg_ssl.test_domain import drafted


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_scenes(
        tmp_path_factory.mktemp("world"), cases=12, labeled=8, seed=0, landscape=Landscape(side=64)
    )


def test_a_run_is_diagnosed_on_its_validation_cases(world, tmp_path):
    run = drafted(tmp_path, world, Wish(labeled=2, validation=2), "fit.validate_every=0")
    found = diagnosed.follow(run, rsseg, tmp_path / "run")
    assert found.split == "validation"
    assert all(name.endswith(" m") for name in [each.name for each in found.distances][1:])
    assert sum(found.prior) == pytest.approx(1)


def test_without_validation_the_truth_of_unlabeled_scenes_is_read_and_said(world, tmp_path):
    run = drafted(tmp_path, world, Wish(labeled=2))
    found = diagnosed.follow(run, rsseg, tmp_path / "run")
    assert found.split == "unlabeled"
    page = (tmp_path / "run" / "report.html").read_text("utf-8")
    assert "who sets thresholds by it uses labels that the run claims not to have" in page


def test_a_whole_scene_is_normalized_and_knows_where_it_holds_data(world, tmp_path):
    domain = rsseg.open(rsseg.resolve(drafted(tmp_path, world, Wish(labeled=2))))
    case = next(domain.cases("test"))
    weak, pixel = domain.whole(case)
    assert weak.image.shape == (1, 4, *case.grid.shape_yx)
    assert (weak.image.movedim(1, -1)[~weak.valid] == 0).all()
    assert torch.equal(weak.valid[0] | (case.truth == 255), torch.ones_like(weak.valid[0]))
    assert pixel.unit == "m"


def test_pixels_of_a_scene_without_crs_are_pixels(tmp_path):
    data = mosaic(tmp_path / "data", side=32, crs=None)
    domain = rsseg.open(rsseg.resolve(drafted(tmp_path, data, Wish(labeled=2))))
    assert domain.pixel == domain.whole(next(domain.cases("test"))).pixel
    assert domain.pixel.unit == "pixel"
