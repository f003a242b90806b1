"""What the network says when parts of it are missing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from torch import nn

from common.batch import Image, Logits
from common.perturb import DROPOUTS, dropping, noisy
from common.settings import NonNegative, Positive
from common.sources.base import Mirrors, SeveralLooks


class MCDropout(SeveralLooks):
    """Asks several times under new dropout and, if wished, under new noise [1, 2].

    What the answers agree on stays sure; where they differ the entropy of their mean rises, which
    the filter ``entropy`` then drops: the uncertainty of UA-MT [2], for any method.

    [1] Gal and Ghahramani, Dropout as a Bayesian approximation, ICML 2016, arXiv:1506.02142.
    [2] Yu et al., UA-MT, MICCAI 2019, arXiv:1907.07034, Sec. 3.1.
    """

    name: Literal["mc_dropout"] = "mc_dropout"
    times: Positive = 8  # T
    noise: NonNegative = 0.0  # standard deviation, in units of the normalized image; 0.1 in [2]
    noise_limit: NonNegative = 0.2

    def looks(self, network: nn.Module, image: Image, mirrors: Mirrors) -> Iterator[Logits]:
        with dropping(network):
            for _ in range(self.times):
                yield network(noisy(image, self.noise, self.noise_limit) if self.noise else image)

    def unfit(self, network: nn.Module, mirrors: Mirrors) -> str:
        alive = any(isinstance(each, DROPOUTS) and each.p > 0 for each in network.modules())
        if alive or self.noise:
            return ""
        return (
            "source 'mc_dropout' would get the same answer each time, because the network has no "
            "dropout. Choose a network with dropout, or set method.source.noise, to 0.1 perhaps."
        )
