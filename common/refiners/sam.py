"""Shapes that a foundation model draws, where it agrees."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, model_validator
from scipy import ndimage
from torch import Tensor

from common.batch import Pixel, SoftPseudo, Unlabeled
from common.errors import ConfigError
from common.promptable import Picture, Prompt, Promptable, Region, load
from common.refiners.base import Refiner, relabeled
from common.settings import Fraction, Positive

Axis = Literal[0, 1, 2]


class Claim(NamedTuple):
    """A mask that the model draws for a piece of the pseudo-label, and agrees with it in."""

    agreement: float  # intersection over union of both
    label: int
    mask: Region
    piece: Region


class Sam(Refiner):
    """Give each connected piece the outline that a promptable model draws for it [1, 2, 3].

    A piece is asked about by its box, its innermost pixel, or itself as a mask prompt. Of the masks
    that the model offers the one most like the piece counts, and only where the intersection over
    union of both reaches ``agreement``: what a foundation model says on its own never teaches.
    Then the pixels of the mask get the class of the piece, trusted as before, and pixels of the
    piece outside of it teach nothing. Where masks meet, the one most like its piece wins. A piece
    that the model does not agree about stays as it was. With the filter ``conformal`` before it,
    only pixels that passed its test teach.

    Volumes are cut into slices along ``axis``. Pieces of fewer than ``fewest`` pixels are not asked
    about, nor of more than ``largest`` of the image: such a model knows things, not surroundings.
    It sees ``channels``, 1 or 3 of them, from the 1st to the 99th percentile; by default the first
    three, or the first one thrice. Nothing but image and pseudo-label is ever looked at.

    [1] Kirillov et al., Segment Anything, ICCV 2023, arXiv:2304.02643.
    [2] Ravi et al., SAM 2, 2024, arXiv:2408.00714.
    [3] Ma et al., MedSAM, Nature Communications 2024, arXiv:2304.12306.
    """

    name: Literal["sam"] = "sam"
    checkpoint: str = "facebook/sam-vit-base"  # or a folder, as transformers saves it
    prompts: Annotated[tuple[Prompt, ...], Field(min_length=1)] = ("box", "point")
    agreement: Fraction = 0.8
    fewest: Positive = 16
    largest: Fraction = 0.5
    axis: Axis = 2
    channels: tuple[Positive, ...] = ()  # of what the network sees, counted from 1
    cache: Path | None = None  # folder for embeddings of whole cases

    @model_validator(mode="after")
    def _sees_one_channel_or_three(self) -> Self:
        if len(self.channels) not in (0, 1, 3):
            raise ValueError(
                f"refiner sam sees 1 channel or 3, got {len(self.channels)}. Name that many, such "
                "as [4, 1, 2], or none."
            )
        return self

    def __call__(self, guess: SoftPseudo, weak: Unlabeled, pixel: Pixel) -> SoftPseudo:
        model = load(self.checkpoint, weak.image.device)
        label, weight = guess.predicted.clone(), guess.weight.clone()
        for at in range(len(label)):
            for picture, place in self._slices(weak.image[at], weak.valid[at]):
                own, there = label[at][place], weak.valid[at][place]
                drawn, doubted = self._drawn(model, picture, [*self._pieces(own, there)])
                named = torch.from_numpy(drawn).to(own.device)
                label[at][place] = torch.where((named >= 0) & there, named, own)
                weight[at][place] *= ~torch.from_numpy(doubted).to(own.device)
        return relabeled(guess._replace(weight=weight), label)

    def _slices(
        self, image: Tensor, valid: Tensor
    ) -> Iterator[tuple[Picture, tuple[slice | int, ...]]]:
        """Pictures of an image ``(C, *S)``, and where each lies in it."""
        shown = _as_picture(image, valid, self.channels)
        if valid.ndim == 2:
            yield shown, (slice(None), slice(None))
            return
        for index in range(valid.shape[self.axis]):
            place: list[slice | int] = [slice(None)] * 3
            place[self.axis] = index
            yield np.ascontiguousarray(shown[tuple(place)]), tuple(place)

    def _pieces(self, label: Tensor, valid: Tensor) -> Iterator[tuple[int, Region]]:
        own = label.cpu().numpy()
        there = valid.cpu().numpy()
        for each in np.unique(own[there]):
            named, count = ndimage.label((own == each) & there, structure=np.ones((3, 3)))
            sizes = np.bincount(named.ravel(), minlength=count + 1)
            for piece in range(1, count + 1):
                if self.fewest <= sizes[piece] <= self.largest * own.size:
                    yield int(each), named == piece

    def _drawn(
        self, model: Promptable, picture: Picture, pieces: list[tuple[int, Region]]
    ) -> tuple[npt.NDArray[np.int64], Region]:
        """The class that accepted masks name, -1 where none does, and what they leave in doubt."""
        drawn = np.full(picture.shape[:2], -1, dtype=np.int64)
        doubted = np.zeros(picture.shape[:2], dtype=bool)
        if not pieces:
            return drawn, doubted
        regions = [piece for _, piece in pieces]
        comes_again = torch.is_inference_mode_enabled()  # a whole case, and no patch in training
        cache = self.cache if comes_again else None
        offers = model.masks(picture, regions, self.prompts, cache=cache)
        claims = [
            max((Claim(alike(mask, piece), label, mask, piece) for mask in offer), key=_agreement)
            for (label, piece), offer in zip(pieces, offers, strict=True)
        ]
        for claim in sorted(claims, key=_agreement):  # the most alike last, over the others
            if claim.agreement >= self.agreement:
                doubted |= claim.piece & ~claim.mask
                drawn[claim.mask] = claim.label
        return drawn, doubted & (drawn < 0)


def alike(mask: Region, piece: Region) -> float:
    """Intersection over union; 0 for two of nothing."""
    return float((mask & piece).sum() / max((mask | piece).sum(), 1))


def _agreement(claim: Claim) -> float:
    return claim.agreement


def _as_picture(image: Tensor, valid: Tensor, channels: tuple[int, ...]) -> Picture:
    """Channels ``(C, *S)`` as red, green and blue ``(*S, 3)``, stretched between percentiles.

    Raises:
        ConfigError: When there are fewer channels.
    """
    chosen = channels or ((1, 2, 3) if len(image) >= 3 else (1,))
    if max(chosen) > len(image):
        raise ConfigError(
            f"refiner 'sam' is to see channel {max(chosen)}, but images have {len(image)}. Name "
            f"channels from 1 to {len(image)}, or none."
        )
    values = image[[each - 1 for each in chosen]].float().cpu().numpy()
    inside = valid.cpu().numpy()
    shown = []
    for each in values:
        low, high = np.percentile(each[inside], (1, 99)) if inside.any() else (0.0, 1.0)
        shown.append(np.where(inside, (each - low) / max(high - low, 1e-6), 0))
    colors = (np.clip(np.stack(shown, axis=-1), 0, 1) * 255).round().astype(np.uint8)
    return np.repeat(colors, 3, axis=-1) if colors.shape[-1] == 1 else colors
