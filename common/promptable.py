"""A foundation model that draws masks where it is pointed at: SAM, SAM 2 and their kin."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor

from common.errors import ConfigError

Picture: TypeAlias = npt.NDArray[np.uint8]  # (H, W, 3)
Region: TypeAlias = npt.NDArray[np.bool_]  # (H, W)
Prompt = Literal["box", "point", "mask"]

AT_ONCE = 8
"""Regions asked about in one pass of the mask decoder."""
SURE = 10.0
"""Logit of a mask prompt, inside; its negative outside."""


class Promptable(NamedTuple):
    """A model and how it wants its images and prompts."""

    model: Any  # transformers: Sam, Sam2, SamHQ, ...
    processor: Any
    checkpoint: str

    @torch.no_grad()
    def masks(
        self,
        picture: Picture,
        regions: Sequence[Region],
        prompts: Sequence[Prompt],
        *,
        cache: Path | None = None,
    ) -> list[list[Region]]:
        """For each region the masks that the model offers, asked by prompts made of the region.

        Args:
            picture: Red, green and blue from 0 to 255.
            regions: Each at least one pixel, on the grid of the picture.
            prompts: What it is told of a region: the box around it, its innermost pixel, itself.
            cache: Folder of image embeddings; None computes them each time.
        """
        with torch.autocast(self.device.type, enabled=False):
            seen = self.processor(images=picture, return_tensors="pt")
            embeddings = self._embedded(seen["pixel_values"].to(self.device), picture, cache)
            offers: list[list[Region]] = []
            for at in range(0, len(regions), AT_ONCE):
                group = regions[at : at + AT_ONCE]
                offers += self._asked(picture, embeddings, group, prompts)
            return offers

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        device: torch.device = self.model.device
        return device

    def _asked(
        self,
        picture: Picture,
        embeddings: list[Tensor],
        regions: Sequence[Region],
        prompts: Sequence[Prompt],
    ) -> Iterator[list[Region]]:
        told = self.processor(
            images=[picture] * len(regions),
            input_boxes=[[box_of(each)] for each in regions] if "box" in prompts else None,
            input_points=[[[innermost(each)]] for each in regions] if "point" in prompts else None,
            segmentation_maps=[np.uint8(each) for each in regions] if "mask" in prompts else None,
            return_tensors="pt",
        )
        given = {key: told[key].float() for key in ("input_boxes", "input_points") if key in told}
        if "mask" in prompts:
            inside = (told["labels"] > 0).float().unsqueeze(1)
            given["input_masks"] = SURE * (2 * inside - 1)
        repeated = [each.expand(len(regions), *each.shape[1:]) for each in embeddings]
        out = self.model(
            image_embeddings=repeated if len(repeated) > 1 else repeated[0],
            multimask_output=True,
            **{key: value.to(self.device) for key, value in given.items()},
        )
        sizes = [told[key] for key in ("original_sizes", "reshaped_input_sizes") if key in told]
        for drawn in self.processor.post_process_masks(out.pred_masks.cpu(), *sizes):
            yield [mask.numpy() for mask in drawn.flatten(0, -3)]

    def _embedded(self, pixels: Tensor, picture: Picture, cache: Path | None) -> list[Tensor]:
        def compute() -> list[Tensor]:
            found = self.model.get_image_embeddings(pixels)
            return [found] if isinstance(found, Tensor) else [*found]

        if cache is None:
            return compute()
        shape = "x".join(str(side) for side in picture.shape)
        key = hashlib.sha256(f"{self.checkpoint}:{shape}:".encode() + picture.tobytes()).hexdigest()
        return [each.to(self.device) for each in kept_on_disk(cache / f"{key}.pt", compute)]


@functools.lru_cache(maxsize=2)
def load(checkpoint: str, device: torch.device) -> Promptable:
    """The model of a checkpoint folder, or of a name where it lies in the local cache or can load.

    Raises:
        ConfigError: When the package is missing, or there is no such model.
    """
    try:
        from transformers import AutoModelForMaskGeneration, AutoProcessor
        from transformers.utils import logging
    except ImportError as error:
        raise ConfigError(
            "refiner 'sam' needs the package transformers, which is not installed. Install it: "
            "pip install 'seg-ssl[sam]'."
        ) from error
    logging.disable_progress_bar()
    try:
        with torch.inference_mode(False):  # it may be asked for again where something trains
            model = AutoModelForMaskGeneration.from_pretrained(checkpoint)
        processor = AutoProcessor.from_pretrained(checkpoint)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(
            f"refiner 'sam' finds no model '{checkpoint}' that draws masks. Give checkpoint a "
            "folder with config.json, model.safetensors and processor_config.json as transformers "
            "saves them, or the name of a hub model, such as facebook/sam-vit-base, that this "
            "machine can download or already has."
        ) from error
    finally:
        logging.enable_progress_bar()
    return Promptable(model.to(device).eval().requires_grad_(False), processor, checkpoint)


def kept_on_disk(path: Path, compute: Callable[[], list[Tensor]]) -> list[Tensor]:
    """What ``compute`` says, or said when it was last asked; in half precision on the disk.

    A file that cannot be read is computed anew; one is written whole or not at all.

    Raises:
        ConfigError: When the folder cannot be written.
    """
    if path.exists():
        try:
            return [
                each.float() for each in torch.load(path, map_location="cpu", weights_only=True)
            ]
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError):
            pass  # torn by a disk that was full: it is written again
    halves = [each.half().cpu() for each in compute()]
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(halves, temporary)
        os.replace(temporary, path)  # noqa: PTH105
    except (OSError, RuntimeError) as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise ConfigError(
            f"refiner 'sam' cannot keep embeddings in '{path.parent}': {error}. Make room there, "
            "name another folder in cache, or none."
        ) from error
    return [each.float() for each in halves]


def box_of(region: Region) -> list[float]:
    """The box around a region: left, top, right, bottom, in pixels, borders included."""
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    return [float(each) for each in (columns[0], rows[0], columns[-1], rows[-1])]


def innermost(region: Region) -> list[float]:
    """The pixel of a region that is farthest from its outside: x, y."""
    depth = ndimage.distance_transform_edt(np.pad(region, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(int(depth.argmax()), depth.shape)
    return [float(column), float(row)]
