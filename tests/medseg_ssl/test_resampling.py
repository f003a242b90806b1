"""Slab by slab, as MONAI does it at once."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import (
    Compose,
    NormalizeIntensity,
    Orientation,
    ScaleIntensityRange,
    Spacing,
)

from medseg_ssl import resampling, voxels
from medseg_ssl.cases import VolumeCase, read_geometry
from medseg_ssl.intensity import Window, ZScore, ZScoreNonzero
from medseg_ssl.preprocess import Recipe, grid_of, normalized, preprocess, preprocess_label
from medseg_ssl.preprocess import nearest as nearest_label
from tests.medseg_ssl.volumes import oblique, save

STEPS = {
    "zscore": (ZScore(), NormalizeIntensity(channel_wise=True)),
    "zscore_nonzero": (ZScoreNonzero(), NormalizeIntensity(nonzero=True, channel_wise=True)),
    "window": (
        Window(window_hu=(-20, 60)),
        ScaleIntensityRange(-20, 60, b_min=-1.0, b_max=1.0, clip=True),
    ),
}


def sheared():
    affine = oblique((1.0, 1.2, 2.5), codes="LPS")
    affine[:3, 2] += 0.3 * affine[:3, 1]  # a tilted gantry
    return affine


AFFINES = {
    "RAS": oblique(),
    "PSR": oblique((0.7, 1.2, 3.0), codes="PSR"),
    "AIL": oblique((2.0, 0.5, 1.0), codes="AIL"),
    "LPS, straight": np.diag([-1.0, -1.0, 2.0, 1.0]),
    "sheared": sheared(),
}
SPACINGS = ["own", (1.5, 1.5, 1.5), (0.5, 0.6, 1.25), (2.0, 1.0, 5.0), (40.0, 40.0, 40.0)]


def at_once(array, affine, recipe, *, mode, step=None):
    """What MONAI makes of ``(C, X, Y, Z)``, in memory as a whole."""
    loaded = MetaTensor(torch.from_numpy(array.astype(np.float32)), affine=torch.from_numpy(affine))
    steps = [
        Orientation(axcodes="RAS", labels=None),
        Spacing(pixdim=recipe.spacing_mm, mode=mode, padding_mode="border"),
    ]
    made = Compose([*steps, *([step] if step else [])])(loaded)
    return made.as_tensor().numpy(), np.asarray(made.affine)


def own_spacing(path):
    geometry = read_geometry([path])
    order = np.argsort(nib.io_orientation(geometry.affine)[:, 0])
    return tuple(geometry.spacing_mm[axis] for axis in order)


def recipe_of(path, spacing, normalize=None):
    spacing_mm = own_spacing(path) if spacing == "own" else spacing
    return Recipe(spacing_mm=spacing_mm, normalize=normalize or ZScore())


def require_ties(found, expected, path, recipe):
    """Where two labels differ, the place is half-way between voxels: rounding decides."""
    assert found.shape == expected.shape
    geometry = read_geometry([path])
    matrix = np.linalg.inv(geometry.affine) @ grid_of(geometry, recipe).affine
    index = np.argwhere(found != expected)
    places = index @ matrix[:3, :3].T + matrix[:3, 3]
    assert (np.abs(places % 1 - 0.5) < 1e-5).any(axis=1).all()
    return len(index)


@pytest.fixture(params=[10**6, 50], ids=["one slab", "many slabs"])
def slab(request, monkeypatch):
    monkeypatch.setattr(resampling, "SLAB", request.param)
    monkeypatch.setattr(voxels, "PART", request.param)


@pytest.mark.parametrize("kind", STEPS)
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("name", AFFINES)
def test_images_are_those_of_monai(tmp_path, slab, name, spacing, kind):
    rng, (ours, theirs) = np.random.default_rng(0), STEPS[kind]
    array = rng.normal(20, 30, (11, 9, 8, 2)).astype(np.float32)
    array[:3] = 0
    path = save(tmp_path / "v.nii.gz", array, AFFINES[name])
    recipe = recipe_of(path, spacing, ours)
    affine = read_geometry([path]).affine
    expected, grid = at_once(
        np.moveaxis(array, -1, 0), affine, recipe, mode="bilinear", step=theirs
    )
    made = preprocess([path], recipe)
    assert made.image.dtype == np.float32
    assert made.image.flags.c_contiguous
    np.testing.assert_allclose(made.affine, grid, atol=1e-9)
    np.testing.assert_allclose(made.image, expected, atol=1e-4)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("name", AFFINES)
def test_labels_are_those_of_monai_but_for_ties(tmp_path, slab, name, spacing):
    array = np.random.default_rng(0).integers(0, 5, (11, 9, 8)).astype(np.uint8)
    path = save(tmp_path / "v.nii.gz", array, AFFINES[name])
    geometry, recipe = read_geometry([path]), recipe_of(path, spacing)
    expected, _ = at_once(array[None], geometry.affine, recipe, mode="nearest")
    require_ties(nearest_label(array, geometry, recipe), expected[0], path, recipe)


@pytest.mark.parametrize("spacing", ["own", (2.0, 2.0, 2.0), (0.9, 1.1, 3.0)])
@pytest.mark.parametrize(
    "name",
    ["sct_t2", "sct_t2s", "example_mr_sm", "example_ct_sm", "sct_t2_seg-manual", "sct_t2s_seg"],
)
def test_real_volumes_are_those_of_monai(data, name, spacing):
    path = data / "geometry_fixtures" / f"{name}.nii.gz"
    recipe, image = recipe_of(path, spacing), nib.load(path)
    array, affine = np.asanyarray(image.dataobj)[None], read_geometry([path]).affine
    made = preprocess([path], recipe)
    expected, grid = at_once(
        array, affine, recipe, mode="bilinear", step=NormalizeIntensity(channel_wise=True)
    )
    np.testing.assert_allclose(made.affine, grid, atol=1e-9)
    np.testing.assert_allclose(made.image, expected, atol=1e-4)
    label = (array[0] > np.median(array)).astype(np.uint8)
    expected, _ = at_once(label[None], affine, recipe, mode="nearest")
    found = nearest_label(label, read_geometry([path]), recipe)
    require_ties(found, expected[0], path, recipe)


@pytest.mark.parametrize("off_mm", [0.0, 5e-4, -9e-4])
def test_a_spacing_that_is_nearly_that_of_the_file_interpolates_nothing(tmp_path, off_mm):
    array = np.random.default_rng(0).normal(size=(30, 9, 8)).astype(np.float32)
    path = save(tmp_path / "v.nii.gz", array, AFFINES["PSR"])
    spacing_mm = tuple(mm + off_mm for mm in own_spacing(path))
    recipe = Recipe(spacing_mm=spacing_mm, normalize=Window(window_hu=(-9, 9)))
    made = preprocess([path], recipe).image
    np.testing.assert_array_equal(
        np.sort(made.ravel()), np.sort(normalized([path], recipe).ravel())
    )


def test_numbers_that_a_header_scales_are_scaled(tmp_path, slab):
    image = nib.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), np.eye(4))
    image.header.set_slope_inter(0.5, -10)
    nib.save(image, tmp_path / "v.nii.gz")
    stored = voxels.read_voxels(tmp_path / "v.nii.gz")
    expected = np.asanyarray(nib.load(tmp_path / "v.nii.gz").dataobj)
    assert stored.stored.dtype == np.int16
    assert stored.dtype == expected.dtype
    np.testing.assert_array_equal(stored[...], expected)
    np.testing.assert_array_equal(np.concatenate([*stored.parts()], axis=2), expected)
    recipe = Recipe(spacing_mm=(1, 1, 1), normalize=Window(window_hu=(-100, 100)))
    made = preprocess([tmp_path / "v.nii.gz"], recipe).image[0]
    np.testing.assert_allclose(made, expected / 100, atol=1e-6)


def test_a_label_of_fractions_is_read_as_its_header_scales_it(tmp_path):
    image = nib.Nifti1Image(np.arange(8, dtype=np.int16).reshape(2, 2, 2) % 2, np.eye(4))
    image.header.set_slope_inter(3, 1)
    nib.save(image, tmp_path / "l.nii.gz")
    case = VolumeCase("x", "x", (tmp_path / "l.nii.gz",), tmp_path / "l.nii.gz", values=(1, 4))
    found = preprocess_label(case, Recipe(spacing_mm=(1, 1, 1)))
    assert found.dtype == np.uint8
    assert found.ravel().tolist() == [0, 1] * 4


@pytest.mark.parametrize("shape", [(7, 8, 9), (300, 2, 2), (2, 2, 300), (1, 1, 1)])
def test_pieces_of_a_volume_are_small_and_make_up_the_whole(shape):
    for axis in range(3):
        pieces = [*voxels.along(shape, axis, most=40)]
        assert np.concatenate([np.arange(shape[axis])[p] for p in pieces]).tolist() == [
            *range(shape[axis])
        ]
        slice_voxels = np.prod(shape) // shape[axis]
        assert all((p.stop - p.start) * slice_voxels <= max(40, slice_voxels) for p in pieces)


def test_a_coarse_grid_rests_on_few_voxels_of_a_fine_one_at_a_time(monkeypatch):
    monkeypatch.setattr(resampling, "SLAB", 5000)
    matrix = np.diag([10.0, 10.0, 10.0, 1.0])
    touched = []
    for rows, sources in resampling.slabs(matrix, (100, 100, 20), (10, 10, 2)):
        assert sources.shape == (rows.stop - rows.start, 10, 2, 3)
        touched.append(np.ptp(sources[..., 0]) + 1)
    assert len(touched) == 10
    assert max(touched) == 1
