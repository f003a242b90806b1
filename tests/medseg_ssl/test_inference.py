"""Whole volumes through windows."""

from __future__ import annotations

import tempfile

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.inferers.utils import sliding_window_inference
from pydantic import ValidationError
from torch import Tensor, nn

from common.batch import label_map
from common.errors import ShapeError
from medseg_ssl.inference import InferenceSettings, predict_volume
from medseg_ssl.networks import UNet

PATCH = (8, 12, 6)


class Echo(nn.Module):
    """Logits whose softmax is the image: its channels are the log-probabilities."""

    def forward(self, image: Tensor) -> Tensor:
        return image


class Counting(Echo):
    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, image: Tensor) -> Tensor:
        self.shapes.append(tuple(image.shape))
        return image


def coordinates(shape: tuple[int, int, int]) -> Tensor:
    """Probabilities of four classes that name the voxel they belong to."""
    axes = torch.meshgrid(*[(torch.arange(n) + 1) / (4 * n) for n in shape], indexing="ij")
    parts = torch.stack(axes)
    return torch.cat([parts, 1 - parts.sum(0, keepdim=True)])


def echo(probs: Tensor, patch: tuple[int, int, int] = PATCH, **values: float) -> Tensor:
    return predict_volume(
        Echo(), probs.log(), patch=patch, classes=len(probs), settings=InferenceSettings(**values)
    )


@settings(deadline=None, max_examples=25)
@given(
    shape=st.tuples(*[st.integers(3, 25)] * 3),
    patch=st.tuples(*[st.integers(2, 12)] * 3),
    overlap=st.sampled_from([0.0, 0.25, 0.5, 0.75]),
    windows=st.integers(1, 5),
)
def test_an_identity_network_returns_its_input_whatever_the_windows(shape, patch, overlap, windows):
    probs = coordinates(shape)
    predicted = echo(probs, patch, overlap=overlap, windows_per_batch=windows)
    torch.testing.assert_close(predicted, probs, atol=1e-5, rtol=0)


def test_a_volume_smaller_than_the_patch_comes_back_in_its_own_place():
    probs = coordinates((5, 20, 3))
    network = Counting()
    predicted = predict_volume(
        network, probs.log(), patch=PATCH, classes=4, settings=InferenceSettings()
    )
    torch.testing.assert_close(predicted, probs, atol=1e-5, rtol=0)
    assert {shape[2:] for shape in network.shapes} == {PATCH}


def test_probabilities_of_a_real_network_sum_to_one_and_lie_on_the_cpu_in_float32():
    torch.manual_seed(0)
    network = UNet(features=(4, 8, 8, 8)).build(2, 3).eval()
    predicted = predict_volume(
        network,
        torch.randn(2, 19, 33, 14),
        patch=(16, 16, 16),
        classes=3,
        settings=InferenceSettings(),
    )
    assert predicted.shape == (3, 19, 33, 14)
    assert predicted.dtype == torch.float32
    assert predicted.device.type == "cpu"
    assert not predicted.requires_grad
    torch.testing.assert_close(predicted.sum(0), torch.ones(19, 33, 14))


def test_windows_of_one_patch_agree_with_a_single_forward_pass():
    torch.manual_seed(0)
    network = UNet(features=(4, 8, 8, 8)).build(1, 2).eval()
    image = torch.randn(1, 16, 16, 16)
    predicted = predict_volume(
        network, image, patch=(16, 16, 16), classes=2, settings=InferenceSettings()
    )
    torch.testing.assert_close(predicted, network(image[None]).softmax(1)[0].detach())


def test_probabilities_are_averaged_and_not_logits():
    """Two windows, one shouting: averaged logits would give it everything."""

    class Shouting(nn.Module):
        calls = 0

        def forward(self, image: Tensor) -> Tensor:
            self.calls += 1
            loud = 1000.0 if self.calls == 1 else -1.0
            return torch.cat([torch.zeros_like(image), torch.full_like(image, loud)], dim=1)

    predicted = predict_volume(
        Shouting(),
        torch.zeros(1, 12, 8, 8),
        patch=(8, 8, 8),
        classes=2,
        settings=InferenceSettings(windows_per_batch=1),
    )
    quiet = torch.tensor([0.0, -1.0]).softmax(0)[1]
    middle = predicted[1, 4:8]
    assert quiet < middle.min()
    assert middle.max() < 0.999
    torch.testing.assert_close(predicted[1, 11], quiet.expand(8, 8))


@pytest.mark.filterwarnings("error")
def test_nothing_warns_and_the_image_is_left_as_it_was():
    image = coordinates((9, 13, 7)).log()
    before = image.clone()
    predict_volume(Echo(), image, patch=PATCH, classes=4, settings=InferenceSettings())
    assert torch.equal(image, before)


def test_a_network_with_another_number_of_classes_is_refused_in_words():
    with pytest.raises(ShapeError, match=r"with \(1, 4, 8, 12, 6\), expected .* 3 classes"):
        predict_volume(
            Echo(),
            torch.zeros(4, 8, 12, 6),
            patch=PATCH,
            classes=3,
            settings=InferenceSettings(),
        )


def test_a_network_with_several_heads_is_refused_in_words():
    class Heads(nn.Module):
        def forward(self, image: Tensor) -> list[Tensor]:
            return [image, image]

    with pytest.raises(ShapeError, match="with list, expected one tensor"):
        predict_volume(
            Heads(), torch.zeros(2, *PATCH), patch=PATCH, classes=2, settings=InferenceSettings()
        )


def test_full_overlap_would_never_advance_and_is_refused():
    with pytest.raises(ValidationError, match="less than 1"):
        InferenceSettings(overlap=1.0)


@settings(deadline=None, max_examples=25)
@given(
    shape=st.tuples(*[st.integers(3, 25)] * 3),
    patch=st.tuples(*[st.integers(2, 12)] * 3),
    overlap=st.sampled_from([0.0, 0.25, 0.5, 0.7]),
    windows=st.integers(1, 5),
)
def test_windows_and_weights_are_those_of_monai(shape, patch, overlap, windows):
    torch.manual_seed(0)
    network = nn.Conv3d(1, 3, 3, padding=1)  # sees the edges of a window
    image = torch.randn(1, *shape)
    ours = predict_volume(
        network,
        image,
        patch=patch,
        classes=3,
        settings=InferenceSettings(overlap=overlap, windows_per_batch=windows),
    )
    with torch.no_grad():
        theirs = sliding_window_inference(
            image[None],
            patch,
            windows,
            lambda pixels: network(pixels).softmax(dim=1),
            overlap=overlap,
            mode="gaussian",
            sigma_scale=0.125,
        )[0]
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_a_large_result_lies_on_disk_and_says_the_same(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    probs = coordinates((40, 17, 13))
    small, large = (echo(probs, memory_mb=memory_mb) for memory_mb in (2048, 0))
    assert small.dtype == torch.float32
    assert large.dtype == torch.float16
    torch.testing.assert_close(large.float(), small, atol=1e-3, rtol=0)
    assert not [*tmp_path.iterdir()]  # the file has no name any more
    expected = small.argmax(dim=0)
    told = small.sort(dim=0).values.diff(dim=0)[-1] > 2e-3
    assert torch.equal(label_map(large, rows=7)[told], expected[told].to(torch.int16))
