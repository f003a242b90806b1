"""Slices that lie far apart are images of their own: 2D networks, in-plane views, whole volumes."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch

from common import verbs
from common.adapter import Wish
from medseg_ssl.adapter import medseg
from medseg_ssl.augment import WeakView, place
from medseg_ssl.networks import DynUNet, UNet
from tests.medseg_ssl.test_domain import home
from tests.medseg_ssl.volumes import save

__all__ = ["home"]  # a fixture
TWO_D = {"kernel": (3, 3, 1), "strides": ((2, 2, 1),) * 3}


@pytest.mark.parametrize(
    "network", [UNet(**TWO_D, norm="batch"), DynUNet(**TWO_D)], ids=["unet", "dynunet"]
)
def test_a_flat_kernel_takes_single_slices_and_mixes_none(network):
    torch.manual_seed(0)
    net = network.build(1, 3).eval()
    assert network.multiple == (8, 8, 1)
    volume = torch.randn(2, 1, 16, 24, 5)
    one = net(volume[..., 2:3])
    assert one.shape == (2, 3, 16, 24, 1)
    if isinstance(network, UNet):  # instance norm looks at all slices that it is given
        torch.testing.assert_close(net(volume)[..., 2:3], one)


def test_a_turn_about_one_axis_keeps_a_slice_a_slice():
    weak = WeakView(affine_share=1.0, rotation_degrees=(0, 0, 20), flip_axes=())
    volume = np.zeros((1, 20, 20, 6), dtype=np.float32)
    volume[..., 3] = 1
    for seed in range(5):
        rng = np.random.default_rng(seed)
        patch = place(weak, (2, 2, 3), (16, 16, 1), spacing_mm=(1, 1, 8), rng=rng)
        assert patch.image(volume)[0, 6:10, 6:10, 0].min() == pytest.approx(1)


@pytest.fixture(params=[2, 0], ids=["axial", "sagittal"])
def thick(request, tmp_path):
    """Slices of 10 mm along one axis, pixels of 1.5 mm."""
    axis = request.param
    spacing = [1.5, 1.5, 1.5]
    spacing[axis] = 10.0
    for number in range(6):
        rng = np.random.default_rng(number)
        label = np.zeros((24, 28, 7), dtype=np.uint8)
        label[6:18, 8:20, 2:6] = 1
        image = 60.0 * label + 10 * rng.standard_normal(label.shape)
        turned = [np.moveaxis(each, 2, axis) for each in (image.astype(np.float32), label)]
        save(
            tmp_path / "data" / "images" / f"c{number}.nii.gz", turned[0], np.diag([*spacing, 1.0])
        )
        if number < 4:
            save(
                tmp_path / "data" / "labels" / f"c{number}.nii.gz",
                turned[1],
                np.diag([*spacing, 1.0]),
            )
    return axis, tmp_path


EVERY_VIEW = (
    "domain.weak.elastic={share: 1}",
    "domain.strong.bias_field={share: 1}",
    "domain.strong.gibbs={share: 1}",
    "domain.strong.rician={share: 1}",
    "domain.strong.cutout={share: 1}",
    "domain.strong.monai=[{target: RandBiasFieldd, arguments: {prob: 1}}]",
)


@pytest.mark.parametrize("method", ["fixmatch", "unimatch"])
def test_a_drafted_run_learns_from_slices_and_is_measured_on_volumes(thick, method):
    axis, folder = thick
    (folder / "a.yaml").write_text(medseg.draft(folder / "data", Wish(labeled=2)), "utf-8")
    short = ["fit.steps=2", "fit.accelerator=cpu", f"domain.cache={folder / 'cache'}"]
    small = ["domain.network.features=[4, 4, 8, 8]", f"method.name={method}"]
    views = EVERY_VIEW if method == "fixmatch" else ()
    run = verbs.load(folder / "a.yaml", medseg, [*short, *small, *views])
    assert medseg.check(run).problems == []
    assert run.domain.patch[axis] == 1
    assert run.domain.network.kernel[axis] == 1
    assert all(stride[axis] == 1 for stride in run.domain.network.strides)
    turns = run.domain.weak.rotation_degrees
    assert [index for index in range(3) if turns[index]] == [axis]
    verbs.train(run, medseg, folder / "run")
    verbs.evaluate(folder / "run", medseg)
    image = folder / "data" / "images" / "c5.nii.gz"
    (written,) = verbs.predict(folder / "run", medseg, [image], folder / "out")
    assert nib.load(written).shape == nib.load(image).shape
