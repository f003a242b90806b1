"""Networks for volumes that attend: MONAI's transformers."""

from __future__ import annotations

from typing import Literal

from monai.networks import nets

from common.parts import Parted
from common.settings import Fraction, Positive
from medseg_ssl import parts
from medseg_ssl.network_base import Sides, VolumeNetwork


class SwinUNETR(VolumeNetwork):
    """Shifted-window transformer encoder, convolutional decoder [1].

    [1] Hatamizadeh et al., Swin UNETR, 2022, arXiv:2201.01266.
    """

    name: Literal["swin_unetr"] = "swin_unetr"
    features: Positive = 12  # a multiple of 12; paper: 48
    depths: tuple[Positive, Positive, Positive, Positive] = (2, 2, 2, 2)
    heads: tuple[Positive, Positive, Positive, Positive] = (3, 6, 12, 24)
    window: Positive = 7
    dropout: Fraction = 0.0

    @property
    def multiple(self) -> Sides:
        return 32, 32, 32

    def make(self, channels: int, classes: int) -> Parted:
        whole = nets.SwinUNETR(
            in_channels=channels,
            out_channels=classes,
            depths=self.depths,
            num_heads=self.heads,
            window_size=self.window,
            feature_size=self.features,
            drop_rate=self.dropout,
        )
        return parts.swin_unetr(whole)


class UNETR(VolumeNetwork):
    """Vision transformer encoder, convolutional decoder [1]. Bound to one patch size.

    [1] Hatamizadeh et al., UNETR, 2021, arXiv:2103.10504.
    """

    name: Literal["unetr"] = "unetr"
    patch: Sides  # the patch of the run: positions are learned for exactly these voxels
    features: Positive = 8  # paper: 16
    hidden: Positive = 192  # paper: 768
    mlp: Positive = 768  # paper: 3072
    heads: Positive = 6  # paper: 12
    dropout: Fraction = 0.0

    @property
    def multiple(self) -> Sides:
        return 16, 16, 16

    def make(self, channels: int, classes: int) -> Parted:
        whole = nets.UNETR(
            in_channels=channels,
            out_channels=classes,
            img_size=self.patch,
            feature_size=self.features,
            hidden_size=self.hidden,
            mlp_dim=self.mlp,
            num_heads=self.heads,
            dropout_rate=self.dropout,
        )
        return parts.unetr(whole)
