"""Where is a prediction wrong? A network that learns to tell, and what it learns from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.batch import IGNORE, Image, Labels, Logits, Scalar, Weights, most_probable
from common.errors import ConfigError
from common.learners import TeacherStudent
from common.parts import CONVOLUTIONS, Parted, on_grid, pointwise
from common.schedules import Schedule

Convolution: TypeAlias = type[nn.Conv2d] | type[nn.Conv3d]

WIDENING = (1, 2, 4, 8)
"""Channels of each level of a localizer, in those of its finest."""


class Localizer(nn.Module):
    """Sees an image, a prediction and its entropy, and says which pixels are right [1].

    It is a small :class:`EncoderDecoder` of its own. Before it learns it finds no errors.

    Args:
        network: Whose predictions it will see.
        width: Channels of its finest level.

    [1] Kwon and Kwak, ELN, CVPR 2022, arXiv:2204.02078.
    """

    def __init__(self, network: Parted, width: int) -> None:
        super().__init__()
        channels = image_channels(network) + 1 + network.num_classes
        widths = [width * wider for wider in WIDENING]
        self.body = EncoderDecoder(pointwise(network), channels, 1, widths=widths)
        _answer_yes(self.body.head)

    def forward(self, image: Image, logits: Logits) -> Weights:
        """The log-odds that each pixel is right. No gradient flows back to ``logits``."""
        verdict: Tensor = self.body(evidence(image, logits))
        return verdict.squeeze(1)


class Localizing(TeacherStudent):
    """A teacher and its student, decoders that err on its features, and who finds errors."""

    student: Parted

    def __init__(
        self,
        student: Parted,
        decay: float | Schedule,
        *,
        erring: Iterable[nn.Module],
        localizer: Localizer,
    ) -> None:
        super().__init__(student, decay)
        self.erring = nn.ModuleList(erring)
        self.localizer = localizer


class EncoderDecoder(nn.Module):
    """A small plain network: maps of any size in, maps on the same grid out.

    Each level has two 3x3 convolutions, each normalized over all channels and pixels of a sample:
    no statistics of a batch, and maps keep their level next to one another. The next level is
    half as fine, by a stride; on the way back maps are interpolated linearly and joined with
    those of their level.

    Args:
        layer: The convolution, and so the number of axes.
        channels: Maps that come in.
        outputs: Maps that go out.
        widths: Channels of each level, finest first.
    """

    def __init__(
        self, layer: Convolution, channels: int, outputs: int, *, widths: Sequence[int]
    ) -> None:
        super().__init__()
        self.down = nn.ModuleList([_block(layer, channels, widths[0])])
        self.down.extend(_block(layer, fine, coarse, stride=2) for fine, coarse in pairwise(widths))
        upward = pairwise(reversed(widths))
        self.up = nn.ModuleList(_block(layer, coarse + fine, fine) for coarse, fine in upward)
        self.head = layer(widths[0], outputs, 1)

    def forward(self, maps: Tensor) -> Tensor:
        levels: list[Tensor] = []
        for block in self.down:
            maps = block(maps)
            levels.append(maps)
        for block, fine in zip(self.up, reversed(levels[:-1]), strict=True):
            maps = block(torch.cat([on_grid(maps, fine), fine], dim=1))
        out: Tensor = self.head(maps)
        return out


def evidence(image: Image, logits: Logits) -> Tensor:
    """Image, entropy in nats and probabilities, ``(B, C + 1 + K, *S)``, without a gradient."""
    log_probs = logits.detach().float().log_softmax(dim=1)
    probs = log_probs.exp()
    entropy = -(probs * log_probs).sum(dim=1, keepdim=True)
    return torch.cat([image, entropy, probs], dim=1)


def localization(verdict: Weights, logits: Logits, target: Labels) -> Scalar:
    """Cross-entropy of what is right and what is wrong, the mean over annotated pixels [1].

    Each wrong pixel counts as often as there are right ones for one wrong, so that both kinds
    have the same say. Where no pixel is right, nothing is learned.

    Args:
        verdict: Log-odds of being right.
        logits: The prediction that was judged. Gets no gradient.
        target: The truth; a pixel with IGNORE has no say.

    [1] The authors' code of ELN, github.com/kinux98/SSL_ELN, utils/main_do.py.
    """
    known = target != IGNORE
    right = known & (most_probable(logits) == target)
    wrong = known & ~right
    missed = F.binary_cross_entropy_with_logits(verdict.float(), right.float(), reduction="none")
    balance = right.sum() / wrong.sum().clamp_min(1)
    return (missed * (right + balance * wrong)).sum() / known.sum().clamp_min(1)


def while_above(limit: Scalar, loss: Scalar) -> Scalar:
    """``loss`` as long as it is at least ``limit``, then 0 and without any gradient."""
    return loss * (loss.detach() >= limit.detach())


def image_channels(network: Parted) -> int:
    """How many channels the images of ``network`` have: those of its encoder's first convolution.

    Raises:
        ConfigError: When its encoder has none.
    """
    first = next((m for m in network.encoder.modules() if isinstance(m, CONVOLUTIONS)), None)
    if first is None:
        raise ConfigError(
            "domain.network: this method reads the number of image channels from the first "
            "convolution of the encoder, which has none. Let the encoder begin with one, or "
            "choose another method."
        )
    return first.in_channels


@torch.no_grad()
def _answer_yes(head: nn.Conv2d | nn.Conv3d) -> None:
    for weights in head.parameters():
        weights.fill_(float(weights.ndim == 1))  # the kernel 0, the bias 1


def _block(layer: Convolution, channels: int, width: int, *, stride: int = 1) -> nn.Sequential:
    first = layer(channels, width, 3, stride=stride, padding=1, bias=False)
    second = layer(width, width, 3, padding=1, bias=False)
    norms = [nn.GroupNorm(1, width) for _ in range(2)]
    return nn.Sequential(first, norms[0], nn.ReLU(), second, norms[1], nn.ReLU())
