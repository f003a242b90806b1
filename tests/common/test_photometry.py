"""Strong views: values change, pixels stay where they are."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from common import photometry

Op = Callable[[Tensor, float], Tensor]

OPS: dict[str, Op] = {
    "gain_offset": partial(photometry.gain_offset, gain=0.3, offset=0.4, bands=False),
    "gain_offset_by_band": partial(photometry.gain_offset, gain=0.3, offset=0.4, bands=True),
    "contrast": partial(photometry.contrast, strength=0.4),
    "gamma": partial(photometry.gamma, strength=0.5),
    "noise": partial(photometry.noise, deviation=0.2),
    "blur": partial(photometry.blur, sigma_pixels=1.2),
    "low_resolution": partial(photometry.low_resolution, factor=2.5),
    "band_dropout": photometry.band_dropout,
    "cutout": partial(photometry.cutout, boxes=2, side=0.4),
}
every_op = pytest.mark.parametrize("op", OPS.values(), ids=OPS.keys())
dimensions = pytest.mark.parametrize("dims", [2, 3], ids=["tiles", "volumes"])


def images(dims: int, *, batch: int = 3, channels: int = 2, side: int = 12) -> Tensor:
    sides = [side, side + 3, side - 4][:dims]
    return torch.randn(batch, channels, *sides, generator=torch.Generator().manual_seed(dims))


@every_op
@dimensions
def test_the_shape_stays_and_all_is_finite(op: Op, dims: int) -> None:
    image = images(dims)
    before = image.clone()
    for seed in range(5):
        torch.manual_seed(seed)
        view = op(image, 1.0)
        assert view.shape == image.shape
        assert view.dtype == image.dtype
        assert view.isfinite().all()
    assert torch.equal(image, before)  # nothing happens in place


@every_op
@dimensions
def test_a_share_of_0_changes_no_bit(op: Op, dims: int) -> None:
    image = images(dims)
    assert torch.equal(op(image, 0.0), image)


@every_op
@dimensions
def test_a_share_of_1_changes_every_sample(op: Op, dims: int) -> None:
    image = images(dims, batch=6)
    torch.manual_seed(1)
    view = op(image, 1.0)
    assert all(not torch.equal(a, b) for a, b in zip(view, image, strict=True))


@every_op
def test_about_a_share_of_the_samples_is_changed(op: Op) -> None:
    torch.manual_seed(0)
    image = images(2, batch=600, side=6)
    changed = (op(image, 0.3) != image).flatten(1).any(dim=1).float().mean()
    assert float(changed) == pytest.approx(0.3, abs=0.08)


@every_op
@dimensions
def test_the_view_is_a_function_of_torch_s_seed(op: Op, dims: int) -> None:
    image = images(dims)
    views = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        views.append(op(image, 1.0))
    assert torch.equal(views[0], views[1])
    assert not torch.equal(views[0], views[2])


@pytest.mark.parametrize("name", [each for each in OPS if each != "low_resolution"])
@dimensions
def test_each_sample_draws_its_own_strength(name: str, dims: int) -> None:
    twins = images(dims, batch=1, channels=5).expand(8, -1, *[-1] * dims).clone()
    torch.manual_seed(2)
    view = OPS[name](twins, 1.0)
    first = view[:1].expand_as(view)
    assert (view != first).flatten(1).any(dim=1).sum() >= 5


def bump(sides: list[int], center: list[float], width: float = 2.5) -> Tensor:
    axes = np.meshgrid(*[np.arange(side) for side in sides], indexing="ij")
    squares = sum((axis - at) ** 2 for axis, at in zip(axes, center, strict=True))
    return torch.from_numpy(np.exp(-squares / (2 * width**2))).float()


def center_of(view: Tensor) -> np.ndarray:
    """Where the mass above the surroundings lies."""
    mass = (view - view.median()).abs().double().numpy()
    mass = np.where(mass > 0.2 * mass.max(), mass, 0)
    return np.array(ndimage.center_of_mass(mass))


@pytest.mark.parametrize("name", [each for each in OPS if each not in ("noise", "cutout")])
@dimensions
def test_nothing_moves_on_average_over_places_and_draws(name: str, dims: int) -> None:
    side = 32 if dims == 2 else 24
    rng = np.random.default_rng(0)
    shifts = []
    for seed in range(12):
        center = [side / 2 + rng.uniform(-3, 3) for _ in range(dims)]
        image = torch.stack([bump([side] * dims, center)] * 2)[None]
        torch.manual_seed(seed)
        kept = [c for c in OPS[name](image, 1.0)[0] if c.amax() - c.amin() > 0.1]
        shifts += [center_of(c) - center_of(image[0, 0]) for c in kept]
    assert np.abs(np.mean(shifts, axis=0)).max() < 0.15, np.mean(shifts, axis=0)


@pytest.mark.parametrize("name", ["gain_offset", "gain_offset_by_band", "contrast", "gamma"])
@dimensions
def test_a_single_bright_pixel_stays_the_brightest(name: str, dims: int) -> None:
    for place in range(0, 8**dims, 7):
        image = torch.zeros(1, 1, *[8] * dims)
        image.view(-1)[place] = 1.0
        torch.manual_seed(place)
        view = OPS[name](image, 1.0)
        assert int(view.argmax()) == place
        assert len(view.unique()) == 2  # all others stay alike


@dimensions
def test_a_blurred_pixel_spreads_evenly_around_itself(dims: int) -> None:
    image = torch.zeros(1, 1, *[13] * dims)  # so that no border reflects the pixel
    image[(0, 0, *[6] * dims)] = 1.0
    view = photometry.blur(image, 1.0, sigma_pixels=1.5)
    assert float(view.sum()) == pytest.approx(1, abs=1e-5)
    assert int(view.argmax()) == int(image.argmax())
    for axis in range(2, view.ndim):
        torch.testing.assert_close(view, view.flip(axis))


@dimensions
@pytest.mark.parametrize("sigmas", [(0.3, 0.7, 1.0), (1.3, 2.0, 0.5)])
def test_the_blur_is_the_one_of_scipy(dims: int, sigmas: tuple[float, ...]) -> None:
    image = images(dims)
    sigma = torch.tensor(sigmas).view(3, 1, *[1] * dims)
    view = photometry.gaussian(image, sigma)
    for sample, own in enumerate(sigmas):
        for channel in range(2):
            expected = ndimage.gaussian_filter(
                image[sample, channel].double().numpy(), own, mode="mirror", radius=4
            )
            np.testing.assert_allclose(view[sample, channel].numpy(), expected, atol=1e-5)


@dimensions
def test_a_constant_image_stays_constant_under_all_but_noise(dims: int) -> None:
    image = torch.full((2, 2, *[6] * dims), 0.7)
    for name in ("contrast", "gamma", "blur", "low_resolution"):
        torch.testing.assert_close(OPS[name](image, 1.0), image, msg=name)


@dimensions
def test_an_axis_of_few_pixels_is_no_obstacle(dims: int) -> None:
    for thin in (1, 2, 3):
        image = torch.randn(2, 2, thin, *[8] * (dims - 1))
        for name, op in OPS.items():
            view = op(image, 1.0)
            assert view.shape == image.shape, name
            assert view.isfinite().all(), name


@dimensions
def test_gamma_keeps_both_ends_of_each_channel(dims: int) -> None:
    image = images(dims)
    view = photometry.gamma(image, 1.0, strength=0.7)
    for ends in ("amin", "amax"):
        before, after = (getattr(each.flatten(2), ends)(dim=2) for each in (image, view))
        torch.testing.assert_close(after, before, atol=5e-3, rtol=0)
    order = image.flatten(2).argsort(dim=2)
    assert (view.flatten(2).gather(2, order).diff(dim=2) >= -1e-5).all()


@dimensions
def test_contrast_keeps_the_mean(dims: int) -> None:
    image = images(dims)
    view = photometry.contrast(image, 1.0, strength=0.7)
    torch.testing.assert_close(
        view.flatten(2).mean(dim=2), image.flatten(2).mean(dim=2), atol=1e-5, rtol=1e-5
    )


def test_gain_and_offset_stay_within_their_bounds() -> None:
    torch.manual_seed(0)
    image = torch.cat([torch.zeros(500, 1, 1, 1), torch.ones(500, 1, 1, 1)], dim=-1)
    view = photometry.gain_offset(image, 1.0, gain=0.3, offset=0.4, bands=False)
    shift, factor = view[..., 0], view[..., 1] - view[..., 0]
    assert -0.4 <= float(shift.min()) < -0.35
    assert 0.35 < float(shift.max()) <= 0.4
    assert np.exp(-0.3) - 1e-6 <= float(factor.min()) < np.exp(-0.27)
    assert np.exp(0.27) < float(factor.max()) <= np.exp(0.3) + 1e-6


@pytest.mark.parametrize("bands", [True, False])
def test_bands_change_together_or_each_by_itself(bands: bool) -> None:
    torch.manual_seed(0)
    view = photometry.gain_offset(torch.ones(4, 3, 2, 2), 1.0, gain=0.3, offset=0.4, bands=bands)
    assert torch.equal(view[:, 0], view[:, 1]) is not bands


def test_the_noise_has_the_deviation_asked_for() -> None:
    torch.manual_seed(0)
    found = photometry.noise(torch.zeros(400, 1, 40, 40), 1.0, deviation=0.5).flatten(1).std(dim=1)
    assert float(found.max()) == pytest.approx(0.5, abs=0.03)
    assert float(found.mean()) == pytest.approx(0.25, abs=0.03)


def test_one_band_is_lost_and_a_lone_band_is_kept() -> None:
    torch.manual_seed(0)
    view = photometry.band_dropout(torch.ones(200, 4, 2, 2), 1.0)
    lost = (view == 0).all(dim=-1).all(dim=-1)
    assert (lost.sum(dim=1) == 1).all()
    assert lost.any(dim=0).all()
    alone = torch.ones(3, 1, 2, 2)
    assert photometry.band_dropout(alone, 1.0) is alone


@dimensions
def test_cutout_hides_boxes_behind_the_mean_and_changes_nothing_else(dims: int) -> None:
    image = images(dims, batch=30)
    torch.manual_seed(0)
    view = photometry.cutout(image, 1.0, boxes=1, side=0.5)
    for before, after in zip(image, view, strict=True):
        hidden = (before != after).all(dim=0)
        assert torch.equal(hidden, (before != after).any(dim=0))  # of all channels alike
        places = hidden.nonzero()
        sides = places.amax(dim=0) - places.amin(dim=0) + 1
        assert len(places) == int(sides.prod())  # a full box
        assert all(n <= 0.5 * whole + 0.5 for n, whole in zip(sides, hidden.shape, strict=True))
        mean = before.flatten(1).mean(dim=1, keepdim=True)
        torch.testing.assert_close(after[:, hidden], mean.expand(-1, len(places)))


def test_cutout_hides_the_border_as_well() -> None:
    torch.manual_seed(0)
    image = torch.randn(4000, 1, 9, 9)
    hidden = (photometry.cutout(image, 1.0, boxes=1, side=0.5) != image).float().mean(dim=(0, 1))
    assert float(hidden.min()) > float(hidden.max()) / 4
    torch.testing.assert_close(hidden, hidden.flip(0), atol=0.03, rtol=0)
    torch.testing.assert_close(hidden, hidden.T, atol=0.03, rtol=0)


@every_op
def test_a_view_waits_for_no_device(op: Op) -> None:
    image = torch.zeros(2, 3, 8, 8, device="meta")  # a value asked of it would raise
    assert op(image, 0.5).shape == image.shape
