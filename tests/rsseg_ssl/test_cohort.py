from __future__ import annotations

from dataclasses import replace

from rsseg_ssl.cohort import cohort
from tests.rsseg_ssl.scenes import noise, north_up, save, scene


def test_scenes_are_counted_by_place_and_measured_in_metres(tmp_path):
    one = scene(save(tmp_path / "a.tif", noise(side=16), transform=north_up(size=2.0)))
    other = scene(save(tmp_path / "b.tif", noise(side=24), transform=north_up(90, size=0.6)))
    other = replace(other, group=one.group)
    assert cohort([one]) == "1 scene in 1 block; 16 x 16 pixels of 2 m"
    assert cohort([one, other]) == ("2 scenes in 1 block; 16 to 24 x 16 to 24 pixels of 0.6 to 2 m")
    assert cohort([]) == "0 scenes"


def test_a_grid_that_lies_nowhere_has_no_metres(tmp_path):
    case = scene(save(tmp_path / "a.tif", noise(side=16), crs=None))
    assert cohort([case]) == "1 scene in 1 block; 16 x 16 pixels"
