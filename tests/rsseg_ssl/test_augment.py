"""Weak moves pixels, strong changes their values."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rsseg_ssl.augment import Strong, Weak, resampled, turned


def test_the_eight_symmetries_are_all_different_and_move_all_axes_alike():
    pixels = np.arange(2 * 5 * 5).reshape(2, 5, 5)
    views = {turned(pixels, symmetry).tobytes() for symmetry in range(8)}
    expected = {
        np.ascontiguousarray(np.rot90(flip, k, axes=(1, 2))).tobytes()
        for flip in (pixels, pixels[:, :, ::-1])
        for k in range(4)
    }
    assert views == expected
    for symmetry in range(8):
        np.testing.assert_array_equal(turned(pixels, symmetry)[1], turned(pixels[1], symmetry))


def test_symmetry_zero_changes_nothing():
    pixels = np.arange(12).reshape(3, 4)
    np.testing.assert_array_equal(turned(pixels, 0), pixels)


@pytest.mark.parametrize("side", [3, 6, 12])
def test_resampling_takes_the_nearest_pixel(side):
    pixels = np.arange(36).reshape(6, 6)
    nearest = [int((i + 0.5) * 6 / side) for i in range(side)]
    expected = np.array([[pixels[r, c] for c in nearest] for r in nearest])
    np.testing.assert_array_equal(resampled(pixels, side), expected)


@pytest.mark.parametrize("bands", [1, 2, 13])
def test_strong_keeps_the_shape_and_pixels_without_data_for_any_number_of_bands(bands):
    torch.manual_seed(0)
    image = torch.randn(6, bands, 24, 24)
    image[:, :, :6] = 0
    view = Strong()(image)
    assert view.shape == image.shape
    assert view.isfinite().all()
    assert (view[:, :, :6] == 0).all()
    assert (view[:, :, 6:] != image[:, :, 6:]).float().mean() > 0.5


def test_strong_of_images_without_any_data_is_nothing():
    view = Strong()(torch.zeros(2, 4, 16, 16))
    assert (view == 0).all()


def test_strong_with_all_shares_zero_changes_nothing():
    still = Strong.model_validate(
        {name: {"share": 0.0} for name in ("gamma", "blur", "noise", "band_dropout")}
        | {name: {"share": 0.0, "gain": 1.0, "offset": 1.0} for name in ("scene", "bands")}
    )
    image = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(still(image), image)


@pytest.mark.parametrize(("symmetries", "axes"), [(1, ()), (2, (1,)), (4, (0, 1)), (8, (0, 1))])
def test_mirrors_are_the_axes_that_the_symmetries_mirror(symmetries, axes):
    """By what the symmetries do to a window: 0 is y, 1 is x."""
    pixels = np.arange(6).reshape(2, 3)
    views = [turned(pixels, each) for each in range(symmetries)]
    mirrored = [
        any(np.array_equal(view, np.flip(pixels, axis)) for view in views) for axis in (0, 1)
    ]
    assert Weak(symmetries=symmetries).mirrors == tuple(np.flatnonzero(mirrored)) == axes
