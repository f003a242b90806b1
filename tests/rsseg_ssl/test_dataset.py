"""torchgeo's samplers, splitters and set operations work on our scenes."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
import torch
from rasterio.enums import ColorInterp
from torch.utils.data import DataLoader

from common.batch import IGNORE
from common.errors import DataError
from rsseg_ssl.catalog import without_truth
from rsseg_ssl.dataset import SceneDataset
from tests.rsseg_ssl.scenes import halves, noise, north_up, save, scene

torchgeo = pytest.importorskip("torchgeo")
datasets = pytest.importorskip("torchgeo.datasets")
samplers = pytest.importorskip("torchgeo.samplers")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def cases(tmp_path):
    """Three tiles in a row that touch, and one far away."""
    return [
        scene(
            save(tmp_path / f"t{i}.tif", noise(i), transform=north_up(column)),
            mask=save(tmp_path / f"m{i}.tif", halves(i), transform=north_up(column)),
        )
        for i, column in enumerate((0, 1, 2, 9))
    ]


def test_each_tile_is_found_once_and_read_as_it_is_stored(cases):
    dataset = SceneDataset(cases)
    samples = [dataset[query] for query in samplers.PreChippedGeoSampler(dataset)]
    assert len(samples) == len(dataset) == 4
    for i, sample in enumerate(samples):
        np.testing.assert_array_equal(sample["image"].numpy(), noise(i))
        np.testing.assert_array_equal(sample["mask"].numpy(), halves(i)[0])
        assert sample["valid"].all()
        assert sample["transform"] == north_up((0, 1, 2, 9)[i])
        assert sample["crs"] == dataset.crs


def test_a_rectangle_over_two_tiles_shows_both_and_beyond_them_nothing(cases):
    dataset = SceneDataset(cases)
    x, y, _ = dataset.bounds
    sample = dataset[x.start + 16 : x.start + 48, y.start : y.stop + 4]
    expected = np.concatenate([noise(0)[:, :, 8:], noise(1)[:, :, :8]], axis=2)
    assert sample["image"].shape == (3, 18, 16)
    np.testing.assert_array_equal(sample["image"][:, 2:].numpy(), expected)
    assert not sample["valid"][:2].any()
    assert (sample["mask"][:2] == IGNORE).all()


def test_random_and_grid_samplers_give_whole_patches(cases):
    dataset = SceneDataset(cases)
    for sampler in (
        samplers.RandomGeoSampler(dataset, size=8, length=20),
        samplers.GridGeoSampler(dataset, size=8, stride=8),
    ):
        for query in sampler:
            sample = dataset[query]
            assert sample["image"].shape == (3, 8, 8)
            assert sample["valid"].all()


def test_splitters_give_data_sets_that_can_be_read(cases):
    dataset = SceneDataset(cases)
    for parts in (
        datasets.random_bbox_assignment(dataset, [0.5, 0.5]),
        datasets.random_grid_cell_assignment(dataset, [0.5, 0.5], grid_size=2),
    ):
        for part in parts:
            for query in samplers.RandomGeoSampler(part, size=4, length=4):
                assert part[query]["valid"].all()


def test_a_part_does_not_show_the_tiles_of_another(cases):
    dataset = SceneDataset(cases)
    one, _ = datasets.random_bbox_assignment(dataset, [2, 2])
    x, y, _ = dataset.bounds
    sample = one[x.start : x.start + 96, y.start : y.stop]
    kept = {int(path[-5]) for path in one.index.filepath}
    seen = sample["valid"].reshape(16, 3, 16).all(dim=(0, 2)).tolist()
    assert seen == [i in kept for i in range(3)]


def test_the_union_shows_whichever_holds_data_and_the_intersection_both(cases):
    left, right = SceneDataset(cases[:2]), SceneDataset(cases[2:])
    both = left | right
    x, y, _ = both.bounds
    sample = both[x.start + 48 : x.start + 80, y.start : y.stop]
    expected = np.concatenate([noise(1)[:, :, 8:], noise(2)[:, :, :8]], axis=2)
    np.testing.assert_array_equal(sample["image"].numpy(), expected)
    assert sample["valid"].all()
    stacked = SceneDataset(cases) & SceneDataset([without_truth(case) for case in cases[3:]])
    assert len(stacked) == 1
    query = next(iter(samplers.PreChippedGeoSampler(stacked)))
    assert stacked[query]["image"].shape == (6, 16, 16)


def test_near_infrared_flagged_alpha_stays_data(tmp_path):
    pixels = noise(bands=4)
    pixels[3, :8] = 0
    path = save(tmp_path / "a.tif", pixels)
    with rasterio.open(path, "r+") as target:
        target.colorinterp = (*[ColorInterp.gray] * 3, ColorInterp.alpha)
    dataset = SceneDataset([scene(path)])
    (query,) = samplers.PreChippedGeoSampler(dataset)
    np.testing.assert_array_equal(dataset[query]["image"].numpy(), pixels)
    assert "mask" not in dataset[query]


def test_other_resolutions_and_crs_take_the_nearest_pixel(cases):
    dataset = SceneDataset(cases[:1])
    x, y, _ = dataset.bounds
    coarse = dataset[x.start : x.stop : 4.0, y.start : y.stop : 4.0]
    assert coarse["image"].shape == (3, 8, 8)
    assert np.isin(coarse["image"].numpy(), noise(0)).all()
    dataset.crs = "EPSG:25832"  # the same place within centimetres
    (query,) = samplers.PreChippedGeoSampler(dataset)
    np.testing.assert_array_equal(dataset[query]["image"][:, 2:-2, 2:-2], noise(0)[:, 2:-2, 2:-2])


def test_a_query_elsewhere_is_an_index_error(cases):
    dataset = SceneDataset(cases)
    x, y, _ = dataset.bounds
    with pytest.raises(IndexError, match="not found in index"):
        dataset[x.stop + 100 : x.stop + 120, y.start : y.stop]
    with pytest.raises(IndexError):
        dataset[x.start + 120 : x.start + 140, y.start : y.stop]  # between the tiles


def test_transforms_are_applied(cases):
    dataset = SceneDataset(cases, transforms=lambda sample: sample | {"seen": True})
    assert dataset[dataset.bounds]["seen"]


def test_scenes_without_crs_are_refused_in_words(tmp_path):
    with pytest.raises(DataError, match="has no CRS"):
        SceneDataset([scene(save(tmp_path / "a.tif", noise(), crs=None))])


def test_workers_may_fork_after_the_parent_has_read(cases):
    dataset = SceneDataset(cases)
    sampler = samplers.GridGeoSampler(dataset, size=8, stride=8)
    here = [dataset[query]["image"] for query in sampler]
    loader = DataLoader(
        dataset,
        sampler=sampler,
        batch_size=4,
        num_workers=2,
        collate_fn=datasets.stack_samples,
        multiprocessing_context="fork",
    )
    there = torch.cat([batch["image"] for batch in loader])
    assert there.equal(torch.stack(here))
