"""MONAI's own dictionary transforms in the strong view, for those who want theirs."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Sequence
from typing import Any, Self, TypeAlias

import torch
from monai import transforms
from monai.utils import convert_to_tensor
from pydantic import model_validator
from torch import Tensor

from common.batch import Image
from common.settings import Settings

KEY = "image"
PHOTOMETRIC = ("monai.transforms.intensity.dictionary", "monai.transforms.smooth_field.dictionary")
MOVING = ("RandSmoothDeformd",)  # lies among them

Made: TypeAlias = Any
"""A transform of MONAI, which is not typed."""


class MonaiTransform(Settings):
    """One dictionary transform of MONAI, made with ``arguments`` and the key of the image.

    It is given one image at a time, and a seed drawn from torch's generator on the host, where
    several of MONAI's transforms compute. Only transforms of intensities are let through: what
    moves voxels would move them away from their pseudo-labels.
    """

    target: str  # "RandBiasFieldd"
    arguments: dict[str, Any] = {}

    @model_validator(mode="after")
    def _can_be_made(self) -> Self:
        kinds = _dictionary_transforms()
        photometric = [name for name, kind in kinds.items() if _keeps_places(kind)]
        if self.target not in photometric:
            if self.target in kinds:
                raise ValueError(
                    f"{self.target!r} is no transform of intensities, and in the strong view "
                    "voxels stay where their pseudo-labels are. Choose one of "
                    "monai.transforms.intensity, and let domain.weak move voxels."
                )
            close = difflib.get_close_matches(self.target, photometric, n=1)
            known = (
                f"Did you mean {close[0]!r}?" if close else "Names are such as 'RandBiasFieldd'."
            )
            raise ValueError(
                f"monai.transforms has no dictionary transform {self.target!r}. {known}"
            )
        if "keys" in self.arguments:
            raise ValueError("arguments: the strong view sees the image alone. Remove 'keys'.")
        self._made()
        return self

    def __call__(self, image: Image) -> Image:
        """``image (B, C, *S)``, each sample transformed with a seed of its own."""
        made = self._made()
        seeds = torch.randint(2**32, (image.shape[0],), device="cpu").tolist()
        views = [_applied(made, each, seed) for each, seed in zip(image, seeds, strict=True)]
        return torch.stack(views).to(image)

    def unfit(self, channels: int, patch: Sequence[int]) -> str | None:
        """What is wrong with it for images ``(channels, *patch)``, tried on one; None: nothing."""
        image = torch.linspace(-2, 2, channels).view(-1, *[1] * len(patch)).repeat(1, *patch)
        image = image + torch.linspace(-1, 1, image[0].numel()).view(*patch)
        always = {"prob": 1.0} if "prob" in inspect.signature(self._kind).parameters else {}
        try:
            view = _applied(self._made(**always), image, seed=0)
        except Exception as error:
            return f"{self.target} fails on a patch of {tuple(image.shape)}: {error}"
        if view.shape == image.shape:
            return None
        return (
            f"{self.target} makes {tuple(view.shape)} of a patch of {tuple(image.shape)}, but a "
            "strong view has the voxels of its image. Change its arguments, or remove it."
        )

    @property
    def _kind(self) -> type[Made]:
        kind: type[Made] = getattr(transforms, self.target)
        return kind

    def _made(self, *, prob: float | None = None) -> Made:
        changes = {} if prob is None else {"prob": prob}
        try:
            return self._kind(keys=KEY, **self.arguments | changes)
        except Exception as error:
            raise ValueError(
                f"monai.transforms.{self.target} cannot be made with {self.arguments}: {error}"
            ) from error


def _applied(made: Made, image: Tensor, seed: int) -> Tensor:
    """``image (C, *S)`` as the transform ``made``, started from ``seed``, gives it back."""
    if isinstance(made, transforms.Randomizable):
        made.set_random_state(seed=seed)
    view: Tensor = convert_to_tensor(made({KEY: image.clone()})[KEY], track_meta=False)
    return view


def _dictionary_transforms() -> dict[str, type[Made]]:
    every = vars(transforms).items()
    return {
        name: kind
        for name, kind in every
        if inspect.isclass(kind) and issubclass(kind, transforms.MapTransform)
    }


def _keeps_places(kind: type[Made]) -> bool:
    return kind.__module__ in PHOTOMETRIC and kind.__name__ not in MOVING
