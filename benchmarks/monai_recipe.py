"""MONAI's own supervised recipe for MR volumes, for comparison: no line of ours trains here.

Transforms, loss, optimizer and rate are those of its 3D segmentation tutorial (brain tumors, 3D
MRI: z-score, random crop, flips, scale and shift of intensity, Dice loss, Adam with weight decay
1e-5, cosine). Network, patch, batch, steps, cases and the axes that may be flipped are those of
our arms. Its rate of 1e-4 is meant for many more steps than ours, so the rate of our arms is run
as well. The prediction goes through its sliding window, and is measured as ours are.
"""

from __future__ import annotations

import time
from datetime import date

import numpy as np
import pandas as pd
import torch
from monai.data import CacheDataset, DataLoader
from monai.inferers import SlidingWindowInferer
from monai.losses import DiceLoss
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    LoadImaged,
    NormalizeIntensityd,
    Orientationd,
    RandFlipd,
    RandScaleIntensityd,
    RandShiftIntensityd,
    RandSpatialCropd,
    Spacingd,
    SpatialPadd,
)
from monai.utils import set_determinism
from torch import nn

from benchmarks.arms import Arm, Comparison
from common import environment, verbs
from medseg_ssl.cases import VolumeCase
from medseg_ssl.domain import Volumes
from medseg_ssl.preprocess import restore
from medseg_ssl.settings import MedsegSettings

RATES = {"monai": 1e-4, "monai-fast": 2e-3}
"""Of the tutorial, and of our own arms; the arm's name up to its last dash."""

BOTH = ["image", "label"]
INTERPOLATION = {"keys": BOTH, "mode": ("bilinear", "nearest")}


def monai_arm(comparison: Comparison, arm: Arm, seed: int) -> pd.DataFrame:
    """Train and test one arm of :data:`RATES`; a row as our own arms have it."""
    torch.set_num_threads(1)
    set_determinism(seed)
    overrides = [*arm.overrides_of(seed), f"seed={seed}"]
    run = comparison.adapter.resolve(verbs.load(arm.config, comparison.adapter, overrides))
    domain = comparison.adapter.open(run)
    assert isinstance(domain, Volumes)
    began = time.monotonic()
    network = domain.new_network()
    _fit(network, domain, steps=run.fit.steps, rate=RATES[arm.name.rpartition("-")[0]])
    minutes = (time.monotonic() - began) / 60
    dice = [_dice(network.eval(), case, domain) for case in domain.cases(comparison.split)]
    row = {"arm": arm.name, "seed": seed, "steps": run.fit.steps, "dice mean": np.mean(dice)}
    row |= {"minutes": minutes, "date": date.today().isoformat()}
    return pd.DataFrame([row | {"device": environment.device(run.fit.accelerator)}])


def _fit(network: nn.Module, domain: Volumes, *, steps: int, rate: float) -> None:
    settings = domain.settings
    files = [
        {"image": str(case.images[0]), "label": str(case.label)} for case in domain.cases("labeled")
    ]
    data = CacheDataset(files, _transforms(settings), num_workers=0, progress=False)
    loader = DataLoader(data, batch_size=settings.batch.labeled, shuffle=True, drop_last=True)
    loss_of = DiceLoss(to_onehot_y=True, softmax=True, smooth_nr=0, smooth_dr=1e-5)
    optimizer = torch.optim.Adam(network.parameters(), rate, weight_decay=1e-5)
    rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    network.train()
    step = 0
    while step < steps:
        for batch in loader:
            image, label = (batch[key].as_tensor() for key in BOTH)
            optimizer.zero_grad()
            loss_of(network(image), label).backward()
            optimizer.step()
            rates.step()
            step += 1
            if step == steps:
                break


def _transforms(settings: MedsegSettings) -> Compose:
    return Compose(
        [
            LoadImaged(BOTH),
            EnsureChannelFirstd(BOTH),
            Orientationd(BOTH, axcodes="RAS", labels=None),
            Spacingd(pixdim=settings.spacing_mm, **INTERPOLATION),
            NormalizeIntensityd("image", channel_wise=True),
            SpatialPadd(BOTH, settings.patch),
            RandSpatialCropd(BOTH, settings.patch, random_size=False),
            *(RandFlipd(BOTH, prob=0.5, spatial_axis=axis) for axis in settings.weak.mirrors),
            RandScaleIntensityd("image", factors=0.1, prob=1.0),
            RandShiftIntensityd("image", offsets=0.1, prob=1.0),
        ]
    )


@torch.no_grad()
def _dice(network: nn.Module, case: VolumeCase, domain: Volumes) -> float:
    """Mean Dice of a case, on the grid of its file."""
    inferer = SlidingWindowInferer(domain.settings.patch, 4, overlap=0.5, mode="gaussian")
    image, affine = domain.store.volume(case.images)
    pixels = torch.from_numpy(np.array(image))[None]
    probs = inferer(pixels, lambda windows: network(windows).softmax(dim=1))[0]
    measured = domain.measure(restore(probs, affine, case.geometry), case)
    return next(each.value for each in measured if (each.metric, each.label) == ("dice", "mean"))
