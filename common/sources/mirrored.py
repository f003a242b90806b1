"""What the network says of an image and of its mirror images."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Literal

from torch import nn

from common.batch import Image, Logits
from common.settings import Positive
from common.sources.base import Mirrors, SeveralLooks


class Mirrored(SeveralLooks):
    """Asks about the image and its mirror images, and mirrors the answers back.

    Mirrored are the axes that the domain's weak view mirrors, each by itself: ``1 + n`` looks for
    ``n`` axes. With ``axes_at_once`` above 1 also sets of so many of them; with all, ``2^n`` looks,
    as nnU-Net has when it predicts.
    """

    name: Literal["mirrored"] = "mirrored"
    axes_at_once: Positive = 1

    def looks(self, network: nn.Module, image: Image, mirrors: Mirrors) -> Iterator[Logits]:
        for count in range(min(self.axes_at_once, len(mirrors)) + 1):
            for axes in combinations(mirrors, count):
                turned = [2 + axis for axis in axes]
                answer: Logits = network(image.flip(turned))
                yield answer.flip(turned)

    def unfit(self, network: nn.Module, mirrors: Mirrors) -> str:
        if mirrors:
            return ""
        return (
            "source 'mirrored' has no axis to mirror, because domain.weak mirrors none. Choose "
            "another source, or let domain.weak mirror an axis where left and right are alike."
        )
