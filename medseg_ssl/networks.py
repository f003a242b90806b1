"""Networks for volumes: MONAI's by name, or any module of the user's own."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from monai.networks import nets
from pydantic import Field

from common.errors import ConfigError
from common.networks import Custom
from common.parts import Parted
from common.settings import Count, Fraction, Positive
from medseg_ssl import parts
from medseg_ssl.network_base import (
    Kernel,
    Levels,
    Sides,
    Strides,
    VolumeNetwork,
    per_level,
    product,
)
from medseg_ssl.transformers import UNETR, SwinUNETR


class UNet(VolumeNetwork):
    """Residual U-Net [1]: the default, 1.2 million weights.

    [1] Kerfoot et al., Left-ventricle quantification using residual U-Net, 2019.
    """

    name: Literal["unet"] = "unet"
    features: Levels = (16, 32, 64, 128)
    strides: Strides = "halve"  # between levels; thick slices: 2 2 1
    kernel: Kernel = (3, 3, 3)  # 3 3 1: slices do not see each other, a network in 2D
    residual_units: Count = 2  # per level
    norm: Literal["instance", "batch"] = "instance"
    dropout: Fraction = 0.0

    @property
    def multiple(self) -> Sides:
        return product(per_level(self.strides, self.features))

    def make(self, channels: int, classes: int) -> Parted:
        whole = nets.UNet(
            spatial_dims=3,
            in_channels=channels,
            out_channels=classes,
            channels=self.features,
            strides=per_level(self.strides, self.features),
            kernel_size=self.kernel,
            up_kernel_size=self.kernel,
            num_res_units=self.residual_units,
            norm=self.norm,
            dropout=self.dropout,
        )
        return parts.unet(whole)


class DynUNet(VolumeNetwork):
    """The U-Net of nnU-Net [1], kernels and strides as its planner would set them.

    [1] Isensee et al., nnU-Net, 2021, Nature Methods 18.
    """

    name: Literal["dynunet"] = "dynunet"
    features: Levels = (16, 32, 64, 128)
    strides: Strides = "halve"  # between levels; thick slices: 2 2 1
    kernel: Kernel = (3, 3, 3)  # 3 3 1: slices do not see each other, a network in 2D
    blocks: Literal["plain", "residual"] = "plain"
    dropout: Fraction = 0.0

    @property
    def multiple(self) -> Sides:
        return product(per_level(self.strides, self.features))

    def make(self, channels: int, classes: int) -> Parted:
        strides = per_level(self.strides, self.features)
        whole = nets.DynUNet(
            spatial_dims=3,
            in_channels=channels,
            out_channels=classes,
            kernel_size=[self.kernel] * len(self.features),
            strides=[(1, 1, 1), *strides],
            upsample_kernel_size=strides,
            filters=self.features,
            dropout=self.dropout or None,
            res_block=self.blocks == "residual",
        )
        return parts.dynunet(whole)


class AttentionUNet(VolumeNetwork):
    """U-Net whose skip connections are gated by attention [1]; batch norm.

    [1] Oktay et al., Attention U-Net, 2018, arXiv:1804.03999.
    """

    name: Literal["attention_unet"] = "attention_unet"
    features: Levels = (16, 32, 64, 128)
    strides: Strides = "halve"
    dropout: Fraction = 0.0

    @property
    def multiple(self) -> Sides:
        return product(per_level(self.strides, self.features))

    def make(self, channels: int, classes: int) -> Parted:
        whole = nets.AttentionUnet(
            spatial_dims=3,
            in_channels=channels,
            out_channels=classes,
            channels=self.features,
            strides=per_level(self.strides, self.features),
            dropout=self.dropout,
        )
        return parts.attention_unet(whole)


class BasicUNet(VolumeNetwork):
    """The plain five-level U-Net of [1], two convolutions per level.

    [1] Falk et al., U-Net: deep learning for cell counting, 2019, Nature Methods 16.
    """

    name: Literal["basic_unet"] = "basic_unet"
    features: Annotated[tuple[Positive, ...], Field(min_length=5, max_length=5)] = (
        8,
        16,
        32,
        64,
        128,
    )
    dropout: Fraction = 0.0

    @property
    def multiple(self) -> Sides:
        return 16, 16, 16

    def make(self, channels: int, classes: int) -> Parted:
        whole = nets.BasicUNet(
            spatial_dims=3,
            in_channels=channels,
            out_channels=classes,
            features=(*self.features, self.features[0]),  # the last: after the last upsampling
            dropout=self.dropout,
        )
        return parts.basic_unet(whole)


class SegResNet(VolumeNetwork):
    """Residual encoder with a light decoder [1], group norm.

    [1] Myronenko, 3D MRI brain tumor segmentation using autoencoder regularization, 2018,
    arXiv:1810.11654.
    """

    name: Literal["segresnet"] = "segresnet"
    features: Positive = 8  # of the finest level, doubled at each coarser one
    blocks_down: Levels = (1, 2, 2, 4)
    dropout: Fraction = 0.0

    @property
    def multiple(self) -> Sides:
        side = 2 ** (len(self.blocks_down) - 1)
        return side, side, side

    def make(self, channels: int, classes: int) -> Parted:
        whole = nets.SegResNet(
            spatial_dims=3,
            init_filters=self.features,
            in_channels=channels,
            out_channels=classes,
            dropout_prob=self.dropout or None,
            norm=("group", {"num_groups": math.gcd(8, self.features)}),
            blocks_down=self.blocks_down,
            blocks_up=(1,) * (len(self.blocks_down) - 1),
        )
        return parts.segresnet(whole)


class VNet(VolumeNetwork):
    """V-Net [1] as MONAI builds it: 45 million weights, five times the V-Net of most papers.

    [1] Milletari et al., V-Net, 2016, arXiv:1606.04797.
    """

    name: Literal["vnet"] = "vnet"
    dropout: Fraction = 0.5

    @property
    def multiple(self) -> Sides:
        return 16, 16, 16

    def make(self, channels: int, classes: int) -> Parted:
        whole = nets.VNet(
            spatial_dims=3,
            in_channels=channels,
            out_channels=classes,
            dropout_prob_down=self.dropout,
            dropout_prob_up=(self.dropout, self.dropout),
        )
        return parts.vnet(whole)


class MedNeXt(VolumeNetwork):
    """Convolutions after the manner of transformers [1]; small here, as the paper's S is heavy.

    [1] Roy et al., MedNeXt, 2023, arXiv:2303.09975.
    """

    name: Literal["mednext"] = "mednext"
    features: Positive = 8  # of the finest level, doubled at each coarser one; paper: 32
    blocks: Positive = 1  # per level; paper: 2
    expansion: Positive = 2
    kernel: Literal[3, 5, 7] = 3

    @property
    def multiple(self) -> Sides:
        return 16, 16, 16

    def make(self, channels: int, classes: int) -> Parted:
        whole = nets.MedNeXt(
            spatial_dims=3,
            init_filters=self.features,
            in_channels=channels,
            out_channels=classes,
            encoder_expansion_ratio=self.expansion,
            decoder_expansion_ratio=self.expansion,
            bottleneck_expansion_ratio=self.expansion,
            kernel_size=self.kernel,
            blocks_down=(self.blocks,) * 4,
            blocks_bottleneck=self.blocks,
            blocks_up=(self.blocks,) * 4,
        )
        return parts.mednext(whole)


class CustomVolume(VolumeNetwork):
    """Any importable module of your own, called with ``arguments``."""

    name: Literal["custom"] = "custom"
    target: str  # "package.module:Name"
    arguments: dict[str, Any] = {}
    divisor: Positive = 1  # what the sides of its patches must be a multiple of

    @property
    def multiple(self) -> Sides:
        return self.divisor, self.divisor, self.divisor

    def make(self, channels: int, classes: int) -> object:
        return Custom(target=self.target, arguments=self.arguments).build()


AnyNetwork = Annotated[
    UNet
    | DynUNet
    | AttentionUNet
    | BasicUNet
    | SegResNet
    | VNet
    | MedNeXt
    | SwinUNETR
    | UNETR
    | CustomVolume,
    Field(discriminator="name"),
]
"""What ``domain.network:`` may say in a YAML file."""


def check_patch(network: AnyNetwork, patch: Sides) -> None:
    """See that ``network`` can take patches of ``patch`` voxels.

    Raises:
        ConfigError: Naming the nearest patch that would do.
    """
    if isinstance(network, UNETR) and network.patch != patch:
        raise ConfigError(
            f"domain.network.patch is {list(network.patch)}, the run cuts patches of "
            f"{list(patch)}: unetr is built for one patch size. Give both the same."
        )
    sides = [(side, of) for side, of in zip(patch, network.multiple, strict=True)]
    if any(side % of for side, of in sides):
        near = [max(1, round(side / of)) * of for side, of in sides]
        raise ConfigError(
            f"domain.patch {list(patch)} does not fit network {network.name!r}, whose patches must "
            f"be multiples of {list(network.multiple)}. Take {near}."
        )
    if math.prod(network.multiple) > 1 and patch == network.multiple:
        raise ConfigError(
            f"domain.patch {list(patch)} leaves network {network.name!r} a single voxel at its "
            f"coarsest level, which cannot be normalized. Take {[2 * side for side in patch]}."
        )
