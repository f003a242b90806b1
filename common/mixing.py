"""Pasting one sample into another: image and pseudo-label travel together, in 2D and 3D.

A mix decides once (:meth:`Mix.draw`) and is then applied to as many images and pseudo-labels
as the method has, so that all of them move alike.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple, TypeVar

import torch
from pydantic import Field
from torch import Tensor

from common.batch import IGNORE, Image, Labeled, Labels, Mask, Pseudo, SoftPseudo
from common.errors import ShapeError
from common.schedules import Share, value_at
from common.settings import Settings

P = TypeVar("P", Pseudo, SoftPseudo)


class Cut(NamedTuple):
    """Where each sample takes its pixels from: its partner inside ``where``, itself elsewhere."""

    partner: Tensor  # (B,) indices into the batch
    where: Mask

    def image(self, image: Image) -> Image:
        """Each image with the box of its partner pasted in."""
        return torch.where(self.where.unsqueeze(1), image[self.partner], image)

    def valid(self, valid: Mask) -> Mask:
        """The same for where there is anything to see."""
        return torch.where(self.where, valid[self.partner], valid)

    def pseudo(self, pseudo: P) -> P:
        """The same for labels: target (or probabilities) and weight travel together."""
        label, weight = pseudo
        where = self.where if label.ndim == self.where.ndim else self.where.unsqueeze(1)
        return type(pseudo)(
            torch.where(where, label[self.partner], label),
            torch.where(self.where, weight[self.partner], weight),
        )


class Uncut(NamedTuple):
    """Every sample stays as it is."""

    def image(self, image: Image) -> Image:
        """``image`` itself."""
        return image

    def valid(self, valid: Mask) -> Mask:
        """``valid`` itself."""
        return valid

    def pseudo(self, pseudo: P) -> P:
        """``pseudo`` itself."""
        return pseudo


class Paste(NamedTuple):
    """Two images made into one: the first inside ``where``, the second elsewhere."""

    where: Mask

    def image(self, inside: Image, outside: Image) -> Image:
        """Pixels of both."""
        return torch.where(self.where.unsqueeze(1), inside, outside)

    def pseudo(self, inside: Labeled, outside: Pseudo) -> Pseudo:
        """The truth inside, fully trusted, and the guess outside."""
        return Pseudo(
            torch.where(self.where, inside.target, outside.target),
            torch.where(self.where, 1.0, outside.weight),
        )

    def mixture(self, inside: Labeled, outside: Image, pseudo: Pseudo) -> Mixture:
        """An image annotated inside and guessed outside."""
        known = torch.where(self.where, inside.target, IGNORE)
        guess = torch.where(self.where, IGNORE, pseudo.target)
        mixed = self.image(inside.image, outside)
        return Mixture(Labeled(mixed, known), pseudo._replace(target=guess))


class Mixture(NamedTuple):
    """One image made of two: what is known of it and what is guessed, each IGNORE elsewhere."""

    truth: Labeled
    pseudo: Pseudo


class Mix(Settings):
    """A way to make training images out of two."""

    @abstractmethod
    def draw(self, image: Image, pseudo: Pseudo | SoftPseudo, progress: float = 1.0) -> Cut | Uncut:
        """Decide what moves where, for images and what was predicted of them."""


class NoMix(Mix):
    """Leave every image alone."""

    name: Literal["none"] = "none"

    def draw(self, image: Image, pseudo: Pseudo | SoftPseudo, progress: float = 1.0) -> Uncut:
        return Uncut()


class CutMix(Mix):
    """Paste one box of another image of the batch into each image [1].

    The partner is never the image itself. A box covers a share of the image drawn from
    ``share_low`` to ``share_high``, with random proportions, anywhere inside.

    [1] French et al., Semi-supervised semantic segmentation needs strong, varied
    perturbations, 2020, arXiv:1906.01916, Sec. 3.3.
    """

    name: Literal["cutmix"] = "cutmix"
    share_low: Share = 0.25
    share_high: Share = 0.5
    chance: Share = 1.0  # of each image to be cut at all

    def draw(self, image: Image, pseudo: Pseudo | SoftPseudo, progress: float = 1.0) -> Cut:
        partner = partners(image.shape[0], image.device)
        ends = value_at(self.share_low, progress), value_at(self.share_high, progress)
        where, chance = boxes(image, *ends), value_at(self.chance, progress)
        if chance < 1:
            cut = torch.rand(len(where), device=where.device) < chance
            where &= cut.view(-1, *[1] * (where.ndim - 1))
        return Cut(partner=partner, where=where)


class ClassMix(Mix):
    """Paste half of the classes predicted in another image of the batch into each image [1].

    The partner is never the image itself. Of ``n`` classes predicted in the partner, ``n // 2``
    drawn at random are pasted, with the pixels that they cover.

    [1] Olsson et al., ClassMix, WACV 2021, arXiv:2007.07936, Algorithm 1.
    """

    name: Literal["classmix"] = "classmix"

    def draw(self, image: Image, pseudo: Pseudo | SoftPseudo, progress: float = 1.0) -> Cut:
        partner = partners(image.shape[0], image.device)
        return Cut(partner=partner, where=half_of_the_classes(pseudo.predicted)[partner])


AnyMix = Annotated[NoMix | CutMix | ClassMix, Field(discriminator="name")]
"""What ``mix:`` may say in a YAML file."""


def partners(batch: int, device: torch.device) -> Tensor:
    """Indices ``(B,)`` of a random partner for each sample, never itself.

    Raises:
        ShapeError: When the batch holds a single image, which has no partner.
    """
    if batch < 2:
        raise ShapeError(
            f"Mixing needs a partner for each image, but the batch holds {batch} unlabeled. "
            "Set domain.batch.unlabeled to 2 or more, or method.mix.name to none."
        )
    order = torch.randperm(batch, device=device)
    partner = torch.empty_like(order)
    partner[order] = order.roll(1)  # a single cycle has no fixed point
    return partner


def drawn(truth: Labeled, count: int) -> Labeled:
    """``count`` annotated images, each drawn at random from the batch."""
    index = torch.randint(len(truth.image), (count,), device=truth.image.device)
    return Labeled(truth.image[index], truth.target[index])


def boxes(image: Image, share_low: float, share_high: float) -> Mask:
    """One random box per sample, ``(B, *S)``, True inside, covering a share of the image."""
    batch, sides = image.shape[0], image.shape[2:]
    draw = torch.rand(2 * len(sides) + 1, batch, device=image.device)
    log_share = (share_low + (share_high - share_low) * draw[0]).clamp_min(1e-6).log()
    split = draw[1 : len(sides) + 1] + 0.5  # how the axes divide the share among them
    lengths = (log_share * split / split.sum(dim=0)).exp()  # each in (0, 1], product = share
    pixels = [(part * side).round().clamp_min(1) for part, side in zip(lengths, sides, strict=True)]
    return _at_random(image, pixels, draw[len(sides) + 1 :])


def box(image: Image, share: float) -> Mask:
    """One box per sample at a random place, ``(B, *S)``, True inside; ``share`` of each side."""
    batch, sides = image.shape[0], image.shape[2:]
    draw = torch.rand(len(sides), batch, device=image.device)
    pixels = [draw.new_full((batch,), max(1, int(share * side))) for side in sides]
    return _at_random(image, pixels, draw)


def _at_random(image: Image, lengths: Sequence[Tensor], draw: Tensor) -> Mask:
    """Boxes of ``lengths`` pixels, (B,) for each axis, where ``draw`` (axes, B) puts them."""
    batch, sides = image.shape[0], image.shape[2:]
    inside = torch.ones((batch, *sides), dtype=torch.bool, device=image.device)
    for axis, (side, length) in enumerate(zip(sides, lengths, strict=True)):
        start = (draw[axis] * (side - length + 1)).floor()[:, None]
        index = torch.arange(side, device=image.device)
        hit = (index >= start) & (index < start + length[:, None])
        inside &= hit.view(batch, *[side if a == axis else 1 for a in range(len(sides))])
    return inside


def mixtures(
    truth: Labeled, image: Image, pseudo: Pseudo, labeled_at: Sequence[Tensor]
) -> list[Mixture]:
    """Labeled and unlabeled images mixed in pairs, once for each mask of ``labeled_at``.

    There are as many pairs as the larger part has images; the smaller part is repeated. In each
    further mixture an unlabeled image meets the next labeled one.

    Args:
        truth: Labeled images.
        image: Unlabeled images, any number.
        pseudo: What is guessed of them.
        labeled_at: Masks ``(pairs, *S)``, True where the labeled image shows.
    """
    pair = torch.arange(max(len(truth.image), len(image)), device=image.device)
    second = pair % len(image)
    others, guess = image[second], Pseudo(*(part[second] for part in pseudo))
    mixed = []
    for turn, where in enumerate(labeled_at):
        mine = Labeled(*(part[(pair + turn) % len(truth.image)] for part in truth))
        mixed.append(Paste(where).mixture(mine, others, guess))
    return mixed


def mixed_truth(truth: Labeled, where: Mask) -> Labeled:
    """Each annotated image inside ``where``, the one before it in the batch elsewhere.

    Raises:
        ShapeError: When the batch holds a single labeled image, which has no other.
    """
    if len(truth.image) < 2:
        raise ShapeError(
            "Labeled images are pasted into each other, but the batch holds "
            f"{len(truth.image)}. Set domain.batch.labeled to 2 or more, or method.pretrain to 0."
        )
    before = Labeled(*(part.roll(1, dims=0) for part in truth))
    target = torch.where(where, truth.target, before.target)
    return Labeled(Paste(where).image(truth.image, before.image), target)


def half_of_the_classes(predicted: Labels) -> Mask:
    """The pixels of a random half of the classes in each sample, rounded down; never IGNORE."""
    flat = predicted.flatten(1)
    present = torch.zeros((len(flat), IGNORE + 1), dtype=torch.bool, device=flat.device)
    present.scatter_(1, flat, torch.ones_like(flat, dtype=torch.bool))
    present[:, IGNORE] = False
    draw = torch.rand(present.shape, device=flat.device) + ~present  # absent classes come last
    rank = draw.argsort(dim=1).argsort(dim=1)
    chosen = present & (rank < present.sum(dim=1, keepdim=True) // 2)
    return chosen.gather(1, flat).view_as(predicted)
