"""Whole scenes from overlapping windows."""

from __future__ import annotations

import ctypes
import itertools
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from common.errors import DataError
from rsseg_ssl.inference import InferenceSettings, blend, predict_scene, starts
from rsseg_ssl.reader import Window


class Scene:
    """An array that is read in windows; beyond its edge nothing is valid."""

    def __init__(self, pixels: np.ndarray, valid: np.ndarray | None = None) -> None:
        self.pixels = pixels
        self.valid = np.ones(pixels.shape[1:], bool) if valid is None else valid
        self.windows: list[Window] = []

    def __call__(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        self.windows.append(window)
        rows = slice(window.top, window.top + window.height)
        columns = slice(window.left, window.left + window.width)
        inside, valid = self.pixels[:, rows, columns], self.valid[rows, columns]
        beyond = [(0, window.height - valid.shape[0]), (0, window.width - valid.shape[1])]
        return np.pad(inside, [(0, 0), *beyond]), np.pad(valid, beyond)


class Log(nn.Module):
    """Logits whose softmax is the image, where its channels sum to one."""

    def forward(self, image):
        return image.clamp_min(1e-9).log()


def as_is(raw, valid):
    return torch.where(valid[:, None], raw, 0)


def predict(network, scene, *, tile=16, overlap=0.25, classes=3, normalize=as_is, **more):
    return predict_scene(
        network,
        scene,
        shape_yx=scene.valid.shape,
        tile=tile,
        classes=classes,
        settings=InferenceSettings(overlap=overlap, windows_per_batch=4, **more),
        normalize=normalize,
    )


def random_probs(*shape_yx: int) -> np.ndarray:
    return np.random.default_rng(0).dirichlet([1, 1, 1], shape_yx).transpose(2, 0, 1).astype("f4")


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.75])
@pytest.mark.parametrize("shape_yx", [(50, 37), (16, 16), (5, 9), (5, 40), (17, 16), (1, 1)])
def test_a_network_that_changes_nothing_returns_its_input(shape_yx, overlap):
    probs = random_probs(*shape_yx)
    found = predict(Log(), Scene(probs), overlap=overlap)
    assert found.dtype == torch.float32
    assert np.allclose(found.numpy(), probs, atol=1e-6)


def test_every_pixel_comes_back_at_its_own_coordinates():
    rows, columns = np.indices((45, 61))
    coordinates = np.stack([rows / 100, columns / 100, 1 - (rows + columns) / 100]).astype("f4")
    found = predict(Log(), Scene(np.abs(coordinates)), overlap=0.5).numpy()
    total = np.abs(coordinates).sum(axis=0)
    assert np.allclose(found[0] * total * 100, rows, atol=1e-3)
    assert np.allclose(found[1] * total * 100, columns, atol=1e-3)


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(4, 64), st.sampled_from([0.0, 0.25, 0.5, 0.75]))
def test_windows_cover_an_axis_stay_inside_and_overlap_as_asked(length, tile, overlap):
    tops = starts(length, tile, overlap)
    covered = {pixel for top in tops for pixel in range(top, top + tile)}
    assert covered >= {*range(length)}
    assert tops == sorted({*tops})
    assert tops[-1] + tile <= max(length, tile)
    assert all(a + tile - b >= overlap * tile for a, b in itertools.pairwise(tops))


@settings(deadline=None)
@given(st.integers(1, 600))
def test_blend_weights_are_symmetric_and_never_zero(tile):
    weights = blend(tile)
    assert (weights > 0).all()
    assert int(weights.argmax()) in {tile // 2, (tile - 1) // 2}
    assert torch.allclose(weights, weights.flip(0), atol=1e-5)


def test_seams_vanish_where_windows_disagree():
    class PerWindow(nn.Module):
        count = 0

        def forward(self, image):
            level = torch.arange(self.count, self.count + len(image)).float()
            self.count += len(image)
            return torch.stack([level, -level], 1)[:, :, None, None].expand(
                -1, -1, *image.shape[2:]
            )

    found = predict(PerWindow(), Scene(np.ones((1, 16, 64), "f4")), overlap=0.5, classes=2)[0, 8]
    jumps = (found[1:] - found[:-1]).abs()
    assert jumps.max() < 0.1  # of the 0.38 between the first two windows


def test_windows_without_data_are_not_shown_and_their_pixels_prefer_no_class():
    class Counting(Log):
        seen = 0

        def forward(self, image):
            self.seen += len(image)
            return super().forward(image)

    probs = random_probs(64, 64)
    valid = np.zeros((64, 64), bool)
    valid[:10, :10] = True
    raw = np.where(valid, probs, np.nan).astype("f4")
    network = Counting()
    found = predict(network, Scene(raw, valid), overlap=0.5).numpy()
    assert network.seen == 4
    assert np.allclose(found[:, valid], probs[:, valid], atol=1e-6)
    assert (found[:, ~valid] == np.float32(1 / 3)).all()
    nothing = predict(network, Scene(raw, np.zeros((64, 64), bool)))
    assert network.seen == 4
    assert (nothing == 1 / 3).all()


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_probabilities_sum_to_one_whatever_is_valid(seed):
    rng = np.random.default_rng(seed)
    valid = np.zeros((40, 40), bool)
    top, left = rng.integers(0, 40, 2)
    valid[top : top + 15, left : left + 15] = True
    found = predict(nn.Conv2d(2, 3, 3, padding=1), Scene(rng.random((2, 40, 40), "f4"), valid))
    assert torch.allclose(found.sum(dim=0), torch.ones(40, 40), atol=1e-5)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "float64"])
def test_stored_types_reach_normalization_as_float32(dtype):
    seen = []

    def normalize(raw, valid):
        seen.append(raw.dtype)
        return raw / 200

    values = np.random.default_rng(0).integers(0, 200, (3, 20, 20)).astype(dtype)
    predict(nn.Identity(), Scene(values), normalize=normalize)
    assert {*seen} == {torch.float32}


def test_a_large_result_lies_in_a_file_that_is_gone_with_it(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    probs = random_probs(50, 37)
    found = predict(Log(), Scene(probs), memory_mb=0)
    assert found.dtype == torch.float16
    assert np.allclose(found.float().numpy(), probs, atol=1e-3)
    assert [*tmp_path.iterdir()] == []


def test_a_disk_without_room_is_found_before_any_window_is_read(monkeypatch):
    usage = shutil._ntuple_diskusage(10, 10, 0)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    scene = Scene(random_probs(50, 37))
    with pytest.raises(
        DataError, match=r"3 x 50 x 37 needs .* Set the environment variable TMPDIR"
    ):
        predict(Log(), scene, memory_mb=0)
    assert scene.windows == []


def test_a_scene_four_times_as_high_needs_no_more_memory():
    tile = np.ones((2, 500, 500), np.uint16), np.ones((500, 500), bool)
    seen = []

    class Cheap(nn.Module):
        def forward(self, image):
            seen.append(_unshared_mib())
            return image

    highest = []
    for height in (3000, 12_000):
        seen.clear()
        found = predict_scene(
            Cheap(),
            lambda window: tile,
            shape_yx=(height, 3000),
            tile=500,
            classes=2,
            settings=InferenceSettings(memory_mb=50),
            normalize=as_is,
        )
        assert (found[:, ::100, ::100] == 0.5).all()
        highest.append(max(seen))
    assert highest[1] - highest[0] < 60  # MiB; the result itself has 137, or 275 as float32


def _unshared_mib() -> float:
    """Memory of this process which is not backed by a file."""
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # what was freed, but not yet given back
        with Path("/proc/self/status").open() as status:
            line = next(line for line in status if line.startswith("RssAnon"))
        return int(line.split()[1]) / 1024
    except (OSError, AttributeError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
