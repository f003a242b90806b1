"""What filters, refiners and strong views cost: a Markdown table, one thread, medians of calls.

Run by hand: ``python -m benchmarks.cost [--repeats 5] [--tile 256] [--patch 64]``. Tiles of 4 bands
and 6 classes, volumes of 1 channel and 3 classes; smooth random predictions of smooth random
images. The share is of a step of FixMatch with the default network and no strong view (a look
without gradient, labeled and unlabeled pixels learned together, as many of both, one update),
measured in the same run: the times are those of a machine, the shares travel. What a teacher, a
peer or a strong view adds to a step makes them smaller. Lengths are in pixels: see LENGTHS. The
refiner `sam` is left out: its cost is that of the model it is given. Steps of the strong view of
volumes change every image here, whatever their share.
"""

from __future__ import annotations

import argparse
import statistics
import time
import typing
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn

from common.batch import Batch, Labeled, Pixel, SoftPseudo, Unlabeled
from common.filters import AnyFilter
from common.fit import CHANNELS_LAST
from common.labeling import Kit, as_guessed
from common.methods.fixmatch import FixMatch
from common.refiners import AnyRefiner
from common.views import GainOffset
from medseg_ssl.augment import StrongView
from medseg_ssl.networks import UNet
from rsseg_ssl.networks import ByName

LENGTHS: dict[str, dict[str, float]] = {
    "boundary_band": {"within": 2},
    "dense_crf": {"reach": 3},
    "majority": {"radius": 2},
    "minimum_component": {"smallest": 20},
    "opening": {"radius": 2},
}
"""What refiners must be told, in pixels."""


class World(NamedTuple):
    """What is filtered and refined, and the network that learns beside it."""

    images: Unlabeled
    probs: Tensor
    network: nn.Module

    @property
    def millions(self) -> float:
        """Pixels, in millions."""
        return self.images.valid.numel() / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tile", type=int, default=256, help="side, in pixels; four of them")
    parser.add_argument("--patch", type=int, default=64, help="side, in voxels; two of them")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    tiles = world((4, chosen.tile, chosen.tile), channels=4, classes=6, network=ByName())
    patches = world((2, *[chosen.patch] * 3), channels=1, classes=3, network=UNet())
    print("\n".join(table(tiles, patches, chosen.repeats)))


def table(tiles: World, patches: World, repeats: int) -> Iterator[str]:
    """The lines of the table."""
    yield "| | s per megapixel | share of a step | s per megavoxel | share of a step |"
    yield "|---|---|---|---|---|"
    worlds = (tiles, patches)
    steps = [median(step(each), repeats) / each.millions for each in worlds]
    yield f"| a training step | {steps[0]:.3g} | 1 | {steps[1]:.3g} | 1 |"
    for part, prepare in [*filters(), *refiners(), *strong()]:
        found = [median(prepare(each), repeats) / each.millions for each in worlds]
        cells = [
            f"{each:.3g} | {each / whole:.2g}" for each, whole in zip(found, steps, strict=True)
        ]
        yield f"| {part} | {' | '.join(cells)} |"


def filters() -> Iterator[tuple[str, Callable[[World], Callable[[], object]]]]:
    """Each filter, live, in the middle of its training."""
    for kind in typing.get_args(typing.get_args(AnyFilter)[0]):

        def prepare(world: World, kind=kind) -> Callable[[], object]:
            live = kind().start(world.probs.shape[1])
            return lambda: live(world.probs, progress=0.5)

        yield f"filter `{kind.model_fields['name'].default}`", prepare


def refiners() -> Iterator[tuple[str, Callable[[World], Callable[[], object]]]]:
    """Each refiner, of a prediction that is trusted everywhere."""
    for kind in typing.get_args(typing.get_args(AnyRefiner)[0]):
        name = kind.model_fields["name"].default
        if name == "sam":  # costs what the user's model costs, many times a training step
            continue
        refiner = kind(**LENGTHS.get(name, {}))

        def prepare(world: World, refiner=refiner) -> Callable[[], object]:
            guess = SoftPseudo(world.probs, torch.ones_like(world.probs[:, 0]))
            return lambda: refiner(guess, world.images, Pixel())

        yield f"refiner `{name}`", prepare


def strong() -> Iterator[tuple[str, Callable[[World], Callable[[], object]]]]:
    """Each step of the strong view of volumes, which tiles can take as well."""
    for name, chosen in StrongView():
        if name == "monai":  # costs what the user's transforms cost
            continue
        every = chosen.model_copy(update={"share": 1.0})
        change = every.apart if isinstance(every, GainOffset) else every

        def prepare(world: World, change=change) -> Callable[[], object]:
            return lambda: change(world.images.image)

        yield f"strong `{name}`", prepare


def world(shape: tuple[int, ...], *, channels: int, classes: int, network) -> World:
    """Smooth random images of ``shape``, and predictions that change where these do."""
    rng, (batch, *sides) = np.random.default_rng(0), shape
    torch.manual_seed(0)

    def smooth(count: int) -> Tensor:
        noise = rng.standard_normal((batch, count, *sides))
        blurred = ndimage.gaussian_filter(noise, (0, 0, *[3.0] * len(sides)))
        return torch.from_numpy(blurred / blurred.std()).float()

    image, logits = smooth(channels), 4 * smooth(classes)
    logits[:, : min(channels, classes)] += 4 * image[:, : min(channels, classes)]
    valid = torch.ones(shape, dtype=torch.bool)
    possible = torch.ones(batch, classes, *[1] * len(sides), dtype=torch.bool)
    built = network.build(channels, classes)
    for weights in built.parameters():
        if layout := CHANNELS_LAST.get(weights.ndim):
            weights.data = weights.data.contiguous(memory_format=layout)
    return World(Unlabeled(image, valid, possible), logits.softmax(dim=1), built)


def step(world: World) -> Callable[[], object]:
    """One update of FixMatch, whose labeled images are the unlabeled ones."""
    method = FixMatch()
    nets = method.networks(lambda: world.network)
    optimizer = torch.optim.AdamW(nets.parameters())
    truth = Labeled(world.images.image, world.probs.argmax(dim=1))
    kit = Kit(
        strong=lambda image: image,
        ask=lambda network, image: network(image),
        keep=method.filter.start(world.probs.shape[1]),
        refine=as_guessed,
    )

    @torch.enable_grad()
    def learn() -> None:
        outcome = method.losses(nets, Batch(truth, world.images), kit, progress=0.5)
        torch.stack([*outcome.losses.values()]).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    return learn


@torch.no_grad()
def median(call: Callable[[], object], repeats: int) -> float:
    """Seconds of one call, the first left out."""
    taken = []
    for _ in range(1 + repeats):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[1:])


if __name__ == "__main__":
    main()
