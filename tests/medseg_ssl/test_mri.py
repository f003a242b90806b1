"""What a scanner leaves on an image: fields, ringing and noise of magnitudes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline
from torch import Tensor

from common.views import Cutout
from medseg_ssl.augment import StrongView
from medseg_ssl.mri import BiasField, Gibbs, Rician

MRI = {
    "bias_field": BiasField(share=1, strength=0.6),
    "gibbs": Gibbs(share=1, strength=0.7),
    "rician": Rician(share=1, deviation=0.3),
}
each_step = pytest.mark.parametrize("step", MRI.values(), ids=MRI.keys())
each_shape = pytest.mark.parametrize("sides", [(9, 8, 7), (12, 10, 1), (1, 6, 1)], ids=str)


def images(sides: tuple[int, ...] = (9, 8, 7), *, batch: int = 3, channels: int = 2) -> Tensor:
    return torch.randn(batch, channels, *sides, generator=torch.Generator().manual_seed(1))


def view(step: object, image: Tensor, seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    return step(image)


@each_step
@each_shape
def test_the_grid_stays_all_is_finite_and_nothing_happens_in_place(step, sides):
    image = images(sides)
    before = image.clone()
    for seed in range(5):
        changed = view(step, image, seed)
        assert changed.shape == image.shape
        assert changed.dtype == image.dtype
        assert changed.isfinite().all()
    assert torch.equal(image, before)


@each_step
def test_the_view_is_a_function_of_torch_s_seed(step):
    image = images()
    assert torch.equal(view(step, image, 4), view(step, image, 4))
    assert not torch.equal(view(step, image, 4), view(step, image, 5))


@each_step
def test_each_image_has_a_draw_of_its_own(step):
    twins = images(batch=1).expand(6, -1, -1, -1, -1)
    changed = view(step, twins)
    # Few frequencies are to lose along a short axis, so two draws may lose the same.
    assert len({tuple(each.flatten().tolist()) for each in changed}) >= 4


@pytest.mark.parametrize("kind", [BiasField, Gibbs, Rician, Cutout])
def test_without_a_share_it_is_the_image_itself_and_nothing_is_drawn(kind):
    image = images()
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    assert kind(share=0)(image) is image
    assert torch.equal(torch.rand(3), expected)


@each_step
def test_about_a_share_of_the_images_is_changed(step):
    image = images((5, 4, 3), batch=400)
    rare = step.model_copy(update={"share": 0.3})
    changed = (view(rare, image) != image).flatten(1).any(dim=1).float().mean()
    assert float(changed) == pytest.approx(0.3, abs=0.08)


@each_step
def test_what_was_not_measured_stays_as_it_is(step):
    image = images()
    image[0, :, :4] = 0  # padding, or a skull that was stripped
    image[1, 0, :4] = 0  # one channel alone: the voxel was measured
    image[2] = 0
    changed = view(step, image)
    assert (changed[0, :, :4] == 0).all()
    assert (changed[0, :, 4:] != image[0, :, 4:]).any()
    assert (changed[1, :, :4] != image[1, :, :4]).any()
    assert (changed[2] == 0).all()


@pytest.mark.parametrize(
    "step",
    [BiasField(share=1, strength=0), Gibbs(share=1, strength=0), Rician(share=1, deviation=0)],
)
def test_without_strength_nothing_changes(step):
    image = images()
    torch.testing.assert_close(view(step, image), image)


@each_step
def test_it_works_where_a_batch_lies_and_asks_it_nothing(step):
    away = torch.zeros(2, 1, 8, 8, 8, device="meta")  # a value asked of it would raise
    assert step(away).device.type == "meta"


def cubic(side: int) -> np.ndarray:
    """The four cubic B-splines of one interval that spans ``side`` pixels, ``(4, side)``."""
    knots = np.arange(-3, 5, dtype=float)
    places = np.linspace(0, 1, side)
    return np.stack([BSpline(knots, np.eye(4)[i], 3)(places) for i in range(4)])


def test_the_bias_field_is_the_exponential_of_a_cubic_times_the_signal():
    image = images((7, 6, 5), batch=2)
    step = BiasField(share=1, strength=0.8)
    changed = view(step, image, 3).numpy()
    torch.manual_seed(3)
    control, size = torch.randn(2, 1, 4, 4, 4).numpy(), torch.rand(2).numpy() * 0.8
    for n in range(2):
        bent = np.zeros((7, 6, 5))
        for i, j, k in itertools.product(range(4), repeat=3):
            x, y, z = (cubic(side)[at] for side, at in zip((7, 6, 5), (i, j, k), strict=True))
            bent += control[n, 0, i, j, k] * np.multiply.outer(np.multiply.outer(x, y), z)
        bent -= bent.mean()
        field = np.exp(size[n] * bent / np.abs(bent).max())
        for c in range(2):
            channel = image[n, c].numpy()
            expected = (channel - channel.min()) * field + channel.min()
            np.testing.assert_allclose(changed[n, c], expected, atol=1e-5)


def test_the_bias_field_is_within_its_strength_and_smooth():
    image = torch.rand(20, 1, 24, 20, 16) + 1
    image[:, :, 0, 0, 0] = 1e-3  # no signal
    gain = (view(BiasField(share=1, strength=0.4), image) / image).log()[:, :, 1:]
    assert 0.2 < float(gain.abs().max()) <= 0.4 + 1e-3
    assert float(gain.diff(dim=2).abs().max()) < 0.1


def test_rician_noise_is_the_magnitude_of_a_signal_with_two_noises():
    image = images((7, 6, 5), batch=2)
    changed = view(Rician(share=1, deviation=0.5), image, 3).numpy()
    torch.manual_seed(3)
    deviation = torch.rand(2, 1, 1, 1, 1).numpy() * 0.5
    one, other = (torch.randn(image.shape).numpy() for _ in range(2))
    pixels = image.numpy()
    darkest = pixels.min(axis=(2, 3, 4), keepdims=True)
    real, imaginary = pixels - darkest + deviation * one, deviation * other
    np.testing.assert_allclose(changed, np.sqrt(real**2 + imaginary**2) + darkest, atol=1e-5)


def test_rician_noise_brightens_where_there_is_no_signal_and_is_gaussian_where_it_is_strong():
    image = torch.ones(1, 1, 40, 40, 40)
    image[..., :20] = 21.0
    noise = np.concatenate(
        [(view(Rician(share=1, deviation=1.0), image, n) - image).numpy() for n in range(4)]
    )
    torch.manual_seed(0)
    for n, (dark, bright) in enumerate(zip(noise[..., 20:], noise[..., :20], strict=True)):
        torch.manual_seed(n)
        deviation = float(torch.rand(1))
        assert dark.min() >= 0  # a magnitude
        assert dark.mean() == pytest.approx(deviation * np.sqrt(np.pi / 2), rel=0.02)  # Rayleigh
        assert bright.mean() == pytest.approx(0, abs=0.06)
        assert bright.std() == pytest.approx(deviation, rel=0.02)


@pytest.mark.parametrize("sides", [(16, 12, 9), (16, 15, 1)])
def test_gibbs_ringing_leaves_out_the_highest_frequencies_of_each_axis(sides):
    image = images(sides, batch=2, channels=1)
    changed = view(Gibbs(share=1, strength=0.8), image, 2)
    torch.manual_seed(2)
    kept = 1 - 0.8 * torch.rand(2).numpy()
    for n in range(2):
        waves = np.fft.fftn(image[n, 0].numpy() - image[n, 0].min().numpy())
        for at in np.ndindex(*sides):
            cycles = [min(i, side - i) / side for i, side in zip(at, sides, strict=True)]
            if max(cycles) > kept[n] / 2:
                waves[at] = 0
        expected = np.fft.ifftn(waves).real + image[n, 0].min().numpy()
        np.testing.assert_allclose(changed[n, 0].numpy(), expected, atol=1e-5)


def test_gibbs_ringing_overshoots_at_an_edge_and_moves_it_nowhere():
    edge = torch.zeros(1, 1, 32, 8, 8) + 1.0
    edge[:, :, 8:24] = 2.0
    changed = view(Gibbs(share=1, strength=0.9), edge)[0, 0, :, 4, 4]
    assert changed.max() > 2.03
    assert changed.min() < 0.97
    assert changed[10:22].min() > 1.5 > changed[:6].max()


def test_the_file_names_a_step_to_switch_it_on():
    image = images()
    for name in (*MRI, "cutout"):
        assert getattr(StrongView(), name).share == 0
        off = {each: {"share": 0} for each in StrongView.model_fields if each != "monai"}
        del off[name]
        chosen = StrongView.model_validate(off | {name: {}})
        assert any(not torch.equal(view(chosen, image, seed), image) for seed in range(8))
