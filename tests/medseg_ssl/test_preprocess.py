from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.batch import IGNORE
from common.errors import DataError
from medseg_ssl.cases import Geometry, VolumeCase, read_geometry
from medseg_ssl.intensity import Window, ZScoreNonzero
from medseg_ssl.preprocess import (
    Recipe,
    foreground_voxels,
    preprocess,
    preprocess_label,
    ras,
    restore,
)
from tests.medseg_ssl.volumes import image_and_label, oblique, save

ORIENTATIONS = ["RAS", "LPS", "PSR", "LAS", "SPL", "AIR"]


def place_of_voxels(shape, affine):
    """World coordinates in mm of every voxel, ``(3, *shape)``."""
    index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), axis=-1)
    return np.moveaxis(index @ affine[:3, :3].T + affine[:3, 3], -1, 0)


def as_probs(values):
    """Any positive volume as the first of two classes."""
    return torch.stack([values, 1 - values])


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_turning_to_ras_and_back_changes_no_bit(tmp_path, codes):
    affine = oblique(codes=codes)
    image = np.random.default_rng(0).random((9, 7, 8)).astype(np.float32)
    path = save(tmp_path / "v.nii.gz", image, affine)
    geometry = read_geometry([path])
    shape, spacing_mm = ras(geometry)
    volume = preprocess([path], Recipe(spacing_mm=spacing_mm, normalize=Window(window_hu=(0, 1))))
    assert volume.image.shape == (1, *shape)
    probs = as_probs((torch.from_numpy(volume.image[0]) + 1) / 2)
    back = restore(probs, volume.affine, geometry)[0]
    expected = torch.from_numpy(image)
    torch.testing.assert_close(back, expected, atol=1e-6, rtol=0)
    again = restore(probs, volume.affine, geometry)
    assert torch.equal(again.sum(0).flatten().sort()[0], probs.sum(0).flatten().sort()[0])


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_places_survive_resampling_both_ways(tmp_path, codes):
    """Voxels that hold their own place in mm still do, on the new grid and back on the old."""
    affine = oblique((1.0, 1.2, 2.5), codes=codes)
    shape = (12, 11, 10)
    places = place_of_voxels(shape, affine)
    path = save(tmp_path / "v.nii.gz", np.moveaxis(places, 0, -1).astype(np.float32), affine)
    low, high = places.min() - 1, places.max() + 1
    recipe = Recipe(spacing_mm=(1.5, 1.5, 1.5), normalize=Window(window_hu=(low, high)))
    volume = preprocess([path], recipe)
    found = (volume.image + 1) / 2 * (high - low) + low
    expected = place_of_voxels(volume.image.shape[1:], volume.affine)
    inner = (slice(None), *[slice(1, -2)] * 3)
    np.testing.assert_allclose(found[inner], expected[inner], atol=1e-2)

    unit = torch.from_numpy((expected - low) / (high - low)).float()
    for axis in range(3):
        back = restore(as_probs(unit[axis]), volume.affine, read_geometry([path]))
        got = back[0].numpy() * (high - low) + low
        middle = tuple(slice(2, -2) for _ in range(3))
        np.testing.assert_allclose(got[middle], places[axis][middle], atol=1e-2)


@pytest.mark.parametrize("spacing", ["own", (2.0, 2.0, 2.0), (0.9, 1.1, 3.0)])
@pytest.mark.parametrize(
    "name", ["sct_t2", "sct_t2s", "example_mr_sm", "example_ct_sm", "sct_t2_seg-manual"]
)
def test_real_volumes_come_back_on_their_own_grid(data, name, spacing):
    path = data / "geometry_fixtures" / f"{name}.nii.gz"
    geometry = read_geometry([path])
    own = ras(geometry)[1]
    recipe = Recipe(spacing_mm=own if spacing == "own" else spacing)
    volume = preprocess([path], recipe)
    truth = place_of_voxels(geometry.shape, geometry.affine)
    places = torch.from_numpy(place_of_voxels(volume.image.shape[1:], volume.affine))
    low, high = float(truth.min()) - 100, float(truth.max()) + 100
    for axis in range(3):
        back = restore(as_probs((places[axis] - low) / (high - low)), volume.affine, geometry)
        got = back[0].numpy() * (high - low) + low
        assert got.shape == geometry.shape
        off = np.abs(got - truth[axis])
        inside = tuple(slice(n // 4, -(n // 4)) for n in geometry.shape)
        assert off[inside].max() < 0.02 * max(geometry.spacing_mm) + 1e-2
        if spacing == "own":
            assert off.max() < 1e-2


@settings(max_examples=20, deadline=None)
@given(
    shape=st.tuples(*[st.integers(4, 9)] * 3),
    zoom=st.tuples(*[st.floats(0.5, 2)] * 3),
    seed=st.integers(0, 99),
)
def test_restored_probabilities_sum_to_one_on_the_grid_of_the_file(shape, zoom, seed):
    probs = torch.rand((3, *shape), generator=torch.Generator().manual_seed(seed)).softmax(0)
    affine = np.diag([*zoom, 1.0])
    file = Geometry((5, 8, 6), np.eye(4), 1)
    back = restore(probs, affine, file)
    assert back.shape == (3, 5, 8, 6)
    torch.testing.assert_close(back.sum(0), torch.ones(5, 8, 6))
    assert float(back.min()) >= 0


def test_zscore_is_per_channel_and_per_volume(tmp_path):
    rng = np.random.default_rng(0)
    image = np.stack([rng.normal(1e6, 3e5, (8, 8, 8)), rng.normal(0, 1e-3, (8, 8, 8))], axis=-1)
    path = save(tmp_path / "v.nii.gz", image.astype(np.float32))
    made = preprocess([path], Recipe(spacing_mm=(1, 1, 1))).image
    assert made.shape == (2, 8, 8, 8)
    assert made.dtype == np.float32
    np.testing.assert_allclose(made.mean(axis=(1, 2, 3)), 0, atol=1e-4)
    np.testing.assert_allclose(made.std(axis=(1, 2, 3)), 1, atol=1e-3)


def test_zscore_nonzero_looks_at_no_voxel_that_is_zero(tmp_path):
    image = np.random.default_rng(0).normal(300, 40, (8, 8, 8)).astype(np.float32)
    for empty in (0, 3, 6):  # however much of the volume is empty, tissue is as bright
        image[:, :, :empty] = 0
        path = save(tmp_path / f"v{empty}.nii.gz", image)
        made = preprocess([path], Recipe(spacing_mm=(1, 1, 1), normalize=ZScoreNonzero())).image[0]
        inside = image[:, :, empty:]
        wanted = (inside - inside.mean()) / inside.std()
        np.testing.assert_allclose(made[:, :, empty:], wanted, atol=1e-4)
        assert not made[:, :, :empty].any()


def test_a_window_is_clipped_and_mapped_to_minus_one_to_one(tmp_path):
    image = np.linspace(-1000, 1000, 64).reshape(4, 4, 4).astype(np.float32)
    path = save(tmp_path / "v.nii.gz", image)
    recipe = Recipe(spacing_mm=(1, 1, 1), normalize=Window(window_hu=(-100, 300)))
    made = preprocess([path], recipe).image[0]
    np.testing.assert_allclose(made, np.clip((image - 100) / 200, -1, 1), atol=1e-5)


def test_a_window_without_width_is_refused():
    with pytest.raises(ValueError, match="window_hu: the first must be below the second, got 5, 5"):
        Window(window_hu=(5, 5))


def test_channel_files_and_a_4d_file_make_the_same_volume(tmp_path):
    one, _ = image_and_label(0)
    other, _ = image_and_label(1)
    affine = oblique(codes="PSR")
    paths = [save(tmp_path / f"{n}.nii.gz", each, affine) for n, each in enumerate((one, other))]
    both = save(tmp_path / "both.nii.gz", np.stack([one, other], axis=-1), affine)
    recipe = Recipe(spacing_mm=(1.5, 1.5, 1.5))
    np.testing.assert_array_equal(preprocess(paths, recipe).image, preprocess([both], recipe).image)


def test_labels_lie_on_the_grid_of_their_image(tmp_path):
    image, label = image_and_label()
    label[0, 0] = 9
    affine = oblique(codes="LPS")
    case = VolumeCase(
        "x",
        "x",
        (save(tmp_path / "i.nii.gz", image, affine),),
        save(tmp_path / "l.nii.gz", label, affine),
        values=(0, 1, 4),
        ignore=9,
    )
    recipe = Recipe(spacing_mm=(0.8, 0.8, 1.0))
    target = preprocess_label(case, recipe)
    assert target.shape == preprocess(case.images, recipe).image.shape[1:]
    assert target.dtype == np.uint8
    assert set(np.unique(target)) == {0, 1, 2, IGNORE}
    volume_mm3 = (target == 2).sum() * 0.8 * 0.8 * 1.0
    assert volume_mm3 == pytest.approx((label == 4).sum() * 1.0 * 1.2 * 2.5, rel=0.25)


def test_nan_voxels_are_refused_with_a_remedy(tmp_path):
    image, _ = image_and_label()
    image[0, 0, 0] = np.nan
    path = save(tmp_path / "v.nii.gz", image)
    with pytest.raises(DataError, match=r"holds NaN or infinite voxels. Replace them"):
        preprocess([path], Recipe(spacing_mm=(1, 1, 1)))


def test_foreground_voxels_are_those_of_each_class():
    target = np.zeros((4, 5, 6), np.uint8)
    target[1, 2, 3] = target[3, 4, 5] = 2
    target[0, 0, 0] = 1
    target[0, 0, 1] = IGNORE
    rows = foreground_voxels(target)
    assert rows.tolist() == [[1, 0, 0, 0], [2, 1, 2, 3], [2, 3, 4, 5]]
    assert foreground_voxels(np.zeros((2, 2, 2), np.uint8)).shape == (0, 4)


def test_foreground_voxels_of_a_large_class_are_a_fixed_random_part(monkeypatch):
    monkeypatch.setattr("medseg_ssl.preprocess.MOST_PER_CLASS", 7)
    target = np.ones((5, 5, 5), np.uint8)
    rows = foreground_voxels(target)
    assert len(rows) == 7
    np.testing.assert_array_equal(rows, foreground_voxels(target))
