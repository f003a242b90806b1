"""Checkpoints of SAM and SAM 2 with a few thousand random weights, made here, once per process."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

import torch
from transformers import (
    Sam2Config,
    Sam2HieraDetConfig,
    Sam2ImageProcessor,
    Sam2MaskDecoderConfig,
    Sam2Model,
    Sam2Processor,
    Sam2PromptEncoderConfig,
    Sam2VisionConfig,
    SamConfig,
    SamImageProcessor,
    SamMaskDecoderConfig,
    SamModel,
    SamProcessor,
    SamPromptEncoderConfig,
    SamVisionConfig,
)

SIDE, WIDTH = 64, 16
MASK = {"height": SIDE // 2, "width": SIDE // 2}


@functools.cache
def tiny_sam() -> str:
    """The folder of a SAM."""
    torch.manual_seed(0)
    config = SamConfig(
        vision_config=SamVisionConfig(
            hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=2, image_size=SIDE,
            patch_size=8, output_channels=WIDTH, mlp_dim=WIDTH, global_attn_indexes=[0],
            window_size=2, num_pos_feats=WIDTH // 2,
        ),
        prompt_encoder_config=SamPromptEncoderConfig(
            hidden_size=WIDTH, image_size=SIDE, patch_size=8, mask_input_channels=4
        ),
        mask_decoder_config=SamMaskDecoderConfig(
            hidden_size=WIDTH, mlp_dim=WIDTH, num_hidden_layers=1, num_attention_heads=2,
            iou_head_hidden_dim=WIDTH, iou_head_depth=2,
        ),
    )  # fmt: skip
    size = {"longest_edge": SIDE}
    images = SamImageProcessor(
        size=size, pad_size={"height": SIDE, "width": SIDE},
        mask_size={"longest_edge": MASK["height"]}, mask_pad_size=MASK,
    )  # fmt: skip
    return _saved(SamModel(config), SamProcessor(images))


@functools.cache
def tiny_sam_2() -> str:
    """The folder of a SAM 2."""
    torch.manual_seed(0)
    config = Sam2Config(
        vision_config=Sam2VisionConfig(
            backbone_config=Sam2HieraDetConfig(
                hidden_size=8, num_attention_heads=1, image_size=[SIDE, SIDE],
                blocks_per_stage=[1, 1, 2, 1], embed_dim_per_stage=[8, 16, 32, 64],
                num_attention_heads_per_stage=[1, 1, 1, 1], window_size_per_stage=[8, 4, 4, 4],
                global_attention_blocks=[3], window_positional_embedding_background_size=[2, 2],
            ),
            backbone_channel_list=[64, 32, 16, 8], fpn_hidden_size=WIDTH,
            backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
        ),
        prompt_encoder_config=Sam2PromptEncoderConfig(
            hidden_size=WIDTH, image_size=SIDE, patch_size=16, mask_input_channels=4
        ),
        mask_decoder_config=Sam2MaskDecoderConfig(
            hidden_size=WIDTH, mlp_dim=WIDTH, num_hidden_layers=1, num_attention_heads=2,
            iou_head_hidden_dim=WIDTH, iou_head_depth=2,
        ),
    )  # fmt: skip
    sides = {"height": SIDE, "width": SIDE}
    images = Sam2ImageProcessor(size=sides, mask_size={"height": 16, "width": 16})
    return _saved(Sam2Model(config), Sam2Processor(images, target_size=SIDE))


def _saved(model: torch.nn.Module, processor: object) -> str:
    folder = Path(tempfile.mkdtemp(prefix="tiny-sam-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)
