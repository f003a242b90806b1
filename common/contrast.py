"""Pixels held against pixels: descriptions that should be alike, and such that should not.

Everything here has a fixed size and waits for no device: what is missing is masked, not skipped.
Rows are pixels of a whole batch, ``(N, F)`` with ``F`` numbers each; members ``(K, N)`` say which
of them stand for which class.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.batch import IGNORE, Image, Labeled, Logits, Pseudo, Scalar
from common.learners import TeacherStudent
from common.parts import Parted, pointwise
from common.precision import full_precision
from common.schedules import Schedule
from common.settings import Positive, PositiveReal, Settings


class Others(NamedTuple):
    """What anchors of each class should be unlike."""

    held: Tensor  # (K, M, F), or (1, M, F) where all classes choose from the same
    chosen: Tensor  # (K, A, n) indices into M, for each anchor
    exist: Tensor  # (K,), False for a class that has none


class Contrast(Settings):
    """Draws pixels to the mean of their class and away from others [1], [2].

    [1] van den Oord et al., Contrastive predictive coding, 2018, arXiv:1807.03748, Eq. 4.
    [2] Liu et al., ReCo, ICLR 2022, arXiv:2104.04465, Eq. 1.
    """

    anchors: Positive = 256  # of each class and step
    negatives: Positive = 50  # of each anchor
    temperature: PositiveReal = 0.5  # tau; smaller looks more at the nearest others
    size: Positive = 64  # numbers that describe a pixel
    stride: Positive = 4  # every so many pixels along each axis, one is looked at

    def __call__(
        self, pixels: Tensor, keys: Tensor, seen: Sample, candidates: Tensor, *, others: Others
    ) -> tuple[Scalar, Scalar]:
        """How far anchors are from their class: mean over anchors and the classes present.

        Args:
            pixels: Descriptions ``(N, F)``, of which anchors are drawn.
            keys: Descriptions ``(N, F)``, of which classes are the mean. Get no gradient.
            seen: What the ``N`` pixels are.
            candidates: ``(K, N)``, True where a pixel may be an anchor of a class.
            others: What anchors should be unlike. Get no gradient.

        Returns:
            The part of anchors in labeled images, and that of anchors in unlabeled ones.
        """
        members = seen.members(len(candidates))
        drawn = draw(candidates, self.anchors)
        means = class_means(keys.detach(), members)
        missed = misses(pixels[drawn], means, others, temperature=self.temperature)
        usable = candidates.any(dim=1) & others.exist
        missed = torch.where(usable[:, None], missed, 0)
        count = members.any(dim=1).sum().clamp_min(1) * self.anchors
        unlabeled = seen.unlabeled[drawn]
        return (missed * ~unlabeled).sum() / count, (missed * unlabeled).sum() / count

    @torch.no_grad()
    def similar_others(self, keys: Tensor, members: Tensor) -> Others:
        """Members of other classes, the more often the more alike the classes are [1].

        A class is drawn by the softmax, over the classes present but the anchor's own, of the
        cosine of both means by ``temperature``; of its members, each is as likely.

        Args:
            keys: Descriptions ``(N, F)``.
            members: ``(K, N)``, which of them stand for which class.

        [1] Liu et al., ReCo, ICLR 2022, arXiv:2104.04465.
        """
        itself = torch.eye(len(members), dtype=torch.bool, device=members.device)
        other = members.any(dim=1) & ~itself
        means = F.normalize(class_means(keys, members), dim=1)
        with full_precision(keys.device):
            alike = (means @ means.T / self.temperature).masked_fill(~other, -torch.inf)
            shares = torch.where(other, alike.softmax(dim=1), 0)  # a lonely class has none
            each = members / members.sum(dim=1, keepdim=True).clamp_min(1)
            chosen = draw(shares @ each, self.anchors * self.negatives)
        shape = len(members), self.anchors, self.negatives
        return Others(keys.detach()[None], chosen.view(shape), other.any(dim=1))


class Lattice(NamedTuple):
    """Every ``stride``-th pixel of an image along each axis: their neighbors say the same."""

    sides: tuple[int, ...]  # of the image
    first: tuple[int, ...]
    stride: int

    def of(self, maps: Tensor) -> Tensor:
        """Of maps ``(B, F, *S)`` of any resolution, the values at its pixels: ``(B, F, *T)``."""
        for axis, (side, first) in enumerate(zip(self.sides, self.first, strict=True), start=2):
            at = torch.arange(first, side, self.stride, device=maps.device)
            maps = maps.index_select(axis, ((at + 0.5) * maps.shape[axis] / side).long())
        return maps

    def rows(self, maps: Tensor) -> Tensor:
        """The same, one pixel after the other: ``(N, F)``; of labels ``(B, *S)``: ``(N,)``."""
        if maps.ndim == len(self.sides) + 1:
            return self.rows(maps.unsqueeze(1)).squeeze(1)
        return self.of(maps).movedim(1, -1).flatten(0, -2)

    def labels(self, labels: Tensor) -> Tensor:
        """The same of labels, or of their trust, ``(B, *S)``: ``(B, *T)``."""
        return self.of(labels.unsqueeze(1)).squeeze(1)


def lattice(image: Image, stride: int) -> Lattice:
    """A lattice over ``image`` with a random first pixel, so that in time each has its turn."""
    sides = tuple(image.shape[2:])
    first = (int(torch.randint(min(stride, side), ())) for side in sides)  # on the host
    return Lattice(sides=sides, first=tuple(first), stride=stride)


class Sample(NamedTuple):
    """The pixels of labeled and unlabeled images on a lattice, one after the other."""

    label: Tensor  # (N,), IGNORE where there is none
    trusted: Tensor  # (N,), whether the label is an annotation or a trusted pseudo-label
    unlabeled: Tensor  # (N,), whether the pixel lies in an unlabeled image

    def members(self, num_classes: int) -> Tensor:
        """Which trusted pixels are of which class, ``(K, N)``."""
        classes = torch.arange(num_classes, device=self.label.device)[:, None]
        return (self.label == classes) & self.trusted

    def unlike(self, probs: Tensor, low_share: float, high_share: float) -> Tensor:
        """Of which classes a pixel is a negative, by how probable the classes are in it [1].

        A labeled pixel: of the ``low`` most probable classes, but its own. An unlabeled one
        that is not trusted: of classes at the ranks from ``low`` on to below ``high``.

        Args:
            probs: ``(K, N)``.
            low_share: ``low`` over ``K``; rounded up, so that it is 1 at least.
            high_share: ``high`` over ``K``; rounded, to more than ``low``.

        Returns:
            ``(K, N)``.

        [1] Wang et al., U2PL, CVPR 2022, arXiv:2203.03884, Eqs. 10-13.
        """
        low = max(math.ceil(low_share * len(probs) - 1e-6), 1)
        high = max(round(high_share * len(probs)), low + 1)
        rank = probs.argsort(dim=0, descending=True).argsort(dim=0)
        classes = torch.arange(len(probs), device=probs.device)[:, None]
        wrong = (rank < low) & (self.label != classes) & ~self.unlabeled
        doubtful = (rank >= low) & (rank < high) & self.unlabeled & ~self.trusted
        return (wrong | doubtful) & (self.label != IGNORE)


def sample(at: Lattice, truth: Labeled, taught: Pseudo) -> Sample:
    """Annotations, then pseudo-labels, at the pixels of a lattice."""
    label = at.rows(torch.cat([truth.target, taught.target]))
    sure = torch.ones_like(truth.target, dtype=taught.weight.dtype)
    weight = at.rows(torch.cat([sure, taught.weight]))
    labeled = len(truth.target)
    place = torch.arange(len(label), device=label.device)
    share = len(label) // (labeled + len(taught.target))
    return Sample(label, (weight > 0) & (label != IGNORE), place >= labeled * share)


class Describing(Parted):
    """A network that also describes pixels by ``size`` numbers each, to compare them by."""

    def __init__(self, network: Parted, size: int) -> None:
        super().__init__(network.encoder, network.decoder, network.head)
        layer = pointwise(network)
        self.projection = nn.Sequential(
            layer(network.pixel_channels, size, 1), nn.ReLU(), layer(size, size, 1)
        )

    def describe(self, image: Image, at: Lattice) -> tuple[Logits, Tensor]:
        """Logits of the whole image, and descriptions ``(N, F)`` of the pixels ``at``."""
        pixels = self.decoder(self.encoder(image))
        described = self.projection(at.of(pixels))
        return self.head(pixels), described.float().movedim(1, -1).flatten(0, -2)


class ClassMemory(nn.Module):
    """The latest descriptions of each class, in buffers: checkpoints carry them.

    Of several processes, all go on with what the first one saw.
    """

    held: Tensor  # (K, M, F)
    seen: Tensor  # (K,) how many were ever written

    def __init__(self, num_classes: int, capacity: int, size: int) -> None:
        super().__init__()
        self.register_buffer("held", torch.zeros(num_classes, capacity, size))
        self.register_buffer("seen", torch.zeros(num_classes, dtype=torch.int64))

    @torch.no_grad()
    def remember(self, rows: Tensor, members: Tensor) -> None:
        """Write the members of each class, or as many as there is room for, over the oldest."""
        capacity = self.held.shape[1]
        order = (1 + torch.rand(members.shape, device=rows.device)) * members
        drawn, index = order.topk(min(capacity, len(rows)), dim=1)  # members come first
        chosen = drawn > 0
        steps = torch.arange(chosen.shape[1], device=rows.device)
        place = ((self.seen[:, None] + steps) % capacity).unsqueeze(-1)
        place = place.expand(-1, -1, self.held.shape[2])
        fresh = torch.where(chosen.unsqueeze(-1), rows.float()[index], self.held.gather(1, place))
        self.held.scatter_(1, place, fresh)
        self.seen += chosen.sum(dim=1)

    def others(self, anchors: int, negatives: int) -> Others:
        """As many random ones of each class for each anchor, with replacement."""
        count = self.seen.clamp_max(self.held.shape[1])
        share = torch.rand((len(count), anchors, negatives), device=count.device)
        place = (share * count[:, None, None]).long()
        place = place.minimum(count[:, None, None] - 1).clamp_min(0)
        return Others(self.held.clone(), place, count > 0)  # the memory goes on, in place


class Remembering(TeacherStudent):
    """A teacher and a student that describe pixels, and a memory of what each class is not."""

    student: Describing
    teacher: Describing

    def __init__(self, student: Describing, decay: float | Schedule, memory: ClassMemory) -> None:
        super().__init__(student, decay)
        self.memory = memory


def draw(weights: Tensor, number: int) -> Tensor:
    """``number`` random columns of each row of ``weights`` ``(K, N)``, with replacement.

    A column is drawn as often as its weight says; a mask draws from where it is True. A row
    without any weight draws nothing that means something: the caller masks it.
    """
    upto = weights.float().cumsum(dim=1)
    wanted = torch.rand((len(upto), number), device=upto.device) * upto[:, -1:]
    return torch.searchsorted(upto, wanted, right=True).clamp_max(upto.shape[1] - 1)


def class_means(rows: Tensor, members: Tensor) -> Tensor:
    """The mean row of each class, ``(K, F)``; zero for a class without members."""
    with full_precision(rows.device):
        count = members.sum(dim=1, keepdim=True).clamp_min(1)
        return members.float() @ rows.float() / count


def misses(anchors: Tensor, positives: Tensor, others: Others, *, temperature: float) -> Tensor:
    """Minus the log-probability that each anchor is of its class, not one of its others.

    Args:
        anchors: ``(K, A, F)``, of each class.
        positives: ``(K, F)``, what anchors of a class should be like.
        others: What they should be unlike.
        temperature: Of the softmax over cosines.

    Returns:
        ``(K, A)``.
    """
    with full_precision(anchors.device):
        anchors, positives, held = (
            F.normalize(each.float(), dim=-1) for each in (anchors, positives, others.held)
        )
        near = (anchors * positives[:, None]).sum(dim=-1, keepdim=True)
        far = (anchors @ held.transpose(1, 2)).gather(2, others.chosen)
        scores = torch.cat([near, far], dim=2) / temperature
        return scores.logsumexp(dim=2) - scores[..., 0]
