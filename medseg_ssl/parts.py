"""MONAI's networks taken apart: encoder, decoder, head; every layer stays MONAI's own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from monai.networks import nets
from monai.networks.nets.attentionunet import AttentionLayer
from torch import Tensor, nn

from common.batch import Image
from common.parts import Features, Parted


def unet(whole: nets.UNet) -> Parted:
    """The head is the finest of the upward layers, which also doubles the resolution."""
    downs: list[nn.Module] = []
    ups: list[nn.Module] = []
    block: nn.Module = whole.model
    for _ in whole.channels[1:]:
        down, skip, up = cast(nn.Sequential, block)
        downs.append(down)
        ups.append(up)
        block = cast(nn.Module, skip.submodule)
    head, *rest = ups
    steps = map(_Joined, [*reversed(rest), nn.Identity()])
    return Parted(_Descent([*downs, block]), _Ascent(steps), head)


def dynunet(whole: nets.DynUNet) -> Parted:
    """One map per level; the head is its output block."""
    return Parted(
        _Descent([whole.input_block, *whole.downsamples, whole.bottleneck]),
        _Ascent(whole.upsamples),
        whole.output_block,
    )


def attention_unet(whole: nets.AttentionUnet) -> Parted:
    """One map per level, before attention has seen it; the head is its last convolution."""
    finest, top, head = whole.model
    layer = cast(AttentionLayer, top)
    downs, steps = [finest], [_Gated(layer)]
    for _ in whole.channels[2:]:
        down, below = cast(nn.Sequential, layer.submodule)
        layer = cast(AttentionLayer, below)
        downs.append(down)
        steps.append(_Gated(layer))
    return Parted(_Descent([*downs, layer.submodule]), _Ascent(reversed(steps)), head)


def basic_unet(whole: nets.BasicUNet) -> Parted:
    """Five maps; the head is its last convolution."""
    return Parted(
        _Descent([whole.conv_0, whole.down_1, whole.down_2, whole.down_3, whole.down_4]),
        _Ascent([whole.upcat_4, whole.upcat_3, whole.upcat_2, whole.upcat_1]),
        whole.final_conv,
    )


def segresnet(whole: nets.SegResNet) -> Parted:
    """One map per level; the head normalizes before it tells classes apart."""
    dropout = [whole.dropout] if whole.dropout_prob is not None else []
    first, *rest = whole.down_layers
    return Parted(
        _Descent([nn.Sequential(whole.convInit, *dropout, first), *rest]),
        _Ascent(map(_Added, whole.up_samples, whole.up_layers)),
        whole.conv_final,
    )


def vnet(whole: nets.VNet) -> Parted:
    """Five maps; the head still looks at 5 x 5 x 5 voxels."""
    return Parted(
        _Descent(
            [whole.in_tr, whole.down_tr32, whole.down_tr64, whole.down_tr128, whole.down_tr256]
        ),
        _Ascent([whole.up_tr256, whole.up_tr128, whole.up_tr64, whole.up_tr32]),
        whole.out_tr,
    )


def mednext(whole: nets.MedNeXt) -> Parted:
    """Five maps; the head is its output block."""
    before = [whole.stem, *whole.down_blocks]
    stages = [*whole.enc_stages, whole.bottleneck]
    return Parted(
        _Descent(map(nn.Sequential, before, stages)),
        _Ascent(map(_Added, whole.up_blocks, whole.dec_stages)),
        whole.out_0,
    )


def swin_unetr(whole: nets.SwinUNETR) -> Parted:
    """Six maps, the finest of the image itself; the head is its output block."""
    shifted = _Shifted(whole.swinViT, whole.normalize)
    coarse = [whole.encoder2, whole.encoder3, whole.encoder4, nn.Identity(), whole.encoder10]
    ups = [whole.decoder5, whole.decoder4, whole.decoder3, whole.decoder2, whole.decoder1]
    return Parted(_Attending(shifted, [whole.encoder1, *coarse]), _Ascent(ups), whole.out)


def unetr(whole: nets.UNETR) -> Parted:
    """Five maps, the finest of the image itself; the head is its output block."""
    for block in whole.vit.blocks:
        del block.norm_cross_attn  # never used here, and several processes would wait for it
    tokens = _Tokens(whole.vit, whole.feat_size)
    coarse = [whole.encoder2, whole.encoder3, whole.encoder4, nn.Identity()]
    ups = [whole.decoder5, whole.decoder4, whole.decoder3, whole.decoder2]
    return Parted(_Attending(tokens, [whole.encoder1, *coarse]), _Ascent(ups), whole.out)


class _Descent(nn.Module):
    """Levels one after the other; what each makes is a feature map."""

    def __init__(self, levels: Iterable[nn.Module]) -> None:
        super().__init__()
        self.levels = nn.ModuleList(levels)

    def forward(self, image: Image) -> Features:
        features: list[Tensor] = []
        for level in self.levels:
            features.append(level(features[-1] if features else image))
        return tuple(features)


class _Attending(nn.Module):
    """A transformer, and a block of convolutions for the image and each map it made."""

    def __init__(self, transformer: nn.Module, blocks: Iterable[nn.Module]) -> None:
        super().__init__()
        self.transformer = transformer
        self.blocks = nn.ModuleList(blocks)

    def forward(self, image: Image) -> Features:
        maps = (image, *self.transformer(image))
        return tuple(block(each) for block, each in zip(self.blocks, maps, strict=True))


class _Shifted(nn.Module):
    """A shifted-window transformer: its five maps."""

    def __init__(self, swin: nn.Module, normalize: bool) -> None:
        super().__init__()
        self.swin = swin
        self.normalize = normalize

    def forward(self, image: Image) -> Features:
        return tuple(self.swin(image, self.normalize))


class _Tokens(nn.Module):
    """A vision transformer: what it knows after 4, 7, 10 and all 12 layers, as maps."""

    def __init__(self, vit: nn.Module, grid: Iterable[int]) -> None:
        super().__init__()
        self.vit = vit
        self.grid = tuple(grid)

    def forward(self, image: Image) -> Features:
        last, hidden = self.vit(image)
        tokens = (hidden[3], hidden[6], hidden[9], last)
        return tuple(
            each.transpose(1, 2).contiguous().unflatten(2, self.grid)  # (B, N, F) to (B, F, *S)
            for each in tokens
        )


class _Ascent(nn.Module):
    """From the coarsest map up, each step joining the next finer one."""

    def __init__(self, steps: Iterable[nn.Module]) -> None:
        super().__init__()
        self.steps = nn.ModuleList(steps)

    def forward(self, features: Features) -> Tensor:
        *skips, pixels = features
        for step, skip in zip(self.steps, reversed(skips), strict=True):
            pixels = step(pixels, skip)
        return pixels


class _Joined(nn.Module):
    """Side by side, then a layer."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, coarse: Tensor, skip: Tensor) -> Tensor:
        joined: Tensor = self.layer(torch.cat([skip, coarse], dim=1))
        return joined


class _Added(nn.Module):
    """Made finer, added, then a layer."""

    def __init__(self, up: nn.Module, layer: nn.Module) -> None:
        super().__init__()
        self.up = up
        self.layer = layer

    def forward(self, coarse: Tensor, skip: Tensor) -> Tensor:
        added: Tensor = self.layer(self.up(coarse) + skip)
        return added


class _Gated(nn.Module):
    """Made finer, and joined to what attention lets through of the skip connection."""

    def __init__(self, layer: AttentionLayer) -> None:
        super().__init__()
        self.up = layer.upconv
        self.attention = layer.attention
        self.merge = layer.merge

    def forward(self, coarse: Tensor, skip: Tensor) -> Tensor:
        finer = self.up(coarse)
        merged: Tensor = self.merge(torch.cat([self.attention(finer, skip), finer], dim=1))
        return merged
