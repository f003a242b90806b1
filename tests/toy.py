"""Discs on noise: a domain small enough to train in a test, in 2D and in 3D."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from lightning.fabric import Fabric
from torch import Tensor, nn

from common.batch import IGNORE, Batch, Labeled, Pixel, Unlabeled, Whole
from common.config import DomainSettings, Run
from common.domain import Measure, ReportText, Task, Watch
from common.filters import CalibratedFilter
from common.fit import Company, FitSettings, Fitted, Learner, fit
from common.methods import Method
from common.networks import of_peer
from common.parts import Features, Parted
from common.sampling import BatchSize, TwoStream
from common.settings import Positive
from common.splits import Splits

Norm: TypeAlias = Literal["batch", "instance", "group"]


class ToySettings(DomainSettings):
    splits: Splits = Splits(labeled=())
    side: Positive = 16
    dims: Positive = 2
    batch: BatchSize = BatchSize(labeled=2, unlabeled=4)
    norm: Norm = "batch"
    partners: tuple[Norm, ...] = ()  # norms of the other peers' networks, in turn


class ToyRun(Run):
    domain: ToySettings


class Net(Parted):
    """Two levels: ``S`` voxels a side with 8 channels, half of them with 16."""

    def __init__(self, dims: int, channels: int, classes: int, *, norm: Norm = "batch") -> None:
        conv = {2: nn.Conv2d, 3: nn.Conv3d}[dims]
        super().__init__(
            encoder=_Encoder(dims, channels, norm),
            decoder=_Decoder(conv(8 + 16, 8, 3, padding=1)),
            head=conv(8, classes, 1),
        )


class _Encoder(nn.Module):
    def __init__(self, dims: int, channels: int, norm: Norm) -> None:
        super().__init__()
        conv = {2: nn.Conv2d, 3: nn.Conv3d}[dims]
        self.fine = nn.Sequential(
            conv(channels, 8, 3, padding=1), _normalizing(norm, dims, 8), nn.ReLU()
        )
        self.coarse = nn.Sequential(
            conv(8, 16, 3, stride=2, padding=1), _normalizing(norm, dims, 16), nn.ReLU()
        )

    def forward(self, image: Tensor) -> Features:
        fine = self.fine(image)
        return fine, self.coarse(fine)


class _Decoder(nn.Module):
    def __init__(self, merge: nn.Module) -> None:
        super().__init__()
        self.merge = merge

    def forward(self, features: Features) -> Tensor:
        fine, coarse = features
        larger = F.interpolate(coarse, size=fine.shape[2:])
        return self.merge(torch.cat([fine, larger], dim=1)).relu()


def _normalizing(norm: Norm, dims: int, channels: int) -> nn.Module:
    if norm == "group":
        return nn.GroupNorm(4, channels)
    batch, instance = {
        2: (nn.BatchNorm2d, nn.InstanceNorm2d),
        3: (nn.BatchNorm3d, nn.InstanceNorm3d),
    }[dims]
    return batch(channels) if norm == "batch" else instance(channels, affine=True)


@dataclass
class ToyCase:
    id: str
    group: str
    image: Tensor
    truth: Tensor | None
    files: tuple[Path, ...] = ()


def disc(rng: np.random.Generator, side: int, dims: int) -> tuple[Tensor, Tensor]:
    axes = np.meshgrid(*[np.arange(side)] * dims, indexing="ij")
    center = side * rng.uniform(0.3, 0.7, size=dims)
    inside = sum((a - c) ** 2 for a, c in zip(axes, center, strict=True)) < (side / 3) ** 2
    image = inside[None] + 0.7 * rng.standard_normal((1, *inside.shape))
    return torch.from_numpy(image).float(), torch.from_numpy(inside).long()


def any_class(classes: int, dims: int) -> Tensor:
    """No weak label: every class is possible at every pixel of an image, ``(K, 1, ...)``."""
    return torch.ones(classes, *[1] * dims, dtype=torch.bool)


class ToyPool:
    def __init__(self, settings: ToySettings, kind: type, count: int, *, classes: int) -> None:
        self.settings, self.kind, self.count, self.classes = settings, kind, count, classes

    def __len__(self) -> int:
        return self.count

    def draw(self, index: int, rng: np.random.Generator) -> Labeled | Unlabeled:
        image, target = disc(rng, self.settings.side, self.settings.dims)
        if self.kind is Labeled:
            return Labeled(image, target)
        return Unlabeled(
            image, torch.ones_like(target).bool(), any_class(self.classes, target.ndim)
        )

    def nothing(self) -> Unlabeled:
        sides = [self.settings.side] * self.settings.dims
        nothing = torch.zeros(0, 1, *sides), torch.zeros(0, *sides, dtype=torch.bool)
        none = any_class(self.classes, len(sides)).expand(0, *[-1] * (len(sides) + 1))
        return Unlabeled(*nothing, none)


class ToyDomain:
    headline = ("dice", "disc")

    def __init__(self, settings: ToySettings) -> None:
        self.settings = settings
        self.task = Task(channels=1, classes=("rest", "disc"), colors=((0, 0, 0), (255, 0, 0)))

    def prepare(self, watch: Watch) -> None:
        pass

    def batches(
        self, *, seed: int, first_step: int, extra: Mapping[str, int] | None = None
    ) -> Iterator[Batch]:
        kinds = {Labeled: 4, Unlabeled: 40}
        classes = len(self.task.classes)
        pools = [ToyPool(self.settings, *each, classes=classes) for each in kinds.items()]
        more = [(extra or {}).get(f"labeled-{index}", 0) for index in range(4)]
        two = TwoStream(*pools, size=self.settings.batch, seed=seed, extra=more)
        return two.from_step(first_step)

    @property
    def pixel(self) -> Pixel:
        return Pixel()

    def shown(self) -> dict[str, frozenset[int]]:
        return {case.id: frozenset({0, 1}) for case in self.cases("labeled")}

    @property
    def mirrors(self) -> tuple[int, ...]:
        return tuple(range(self.settings.dims))

    def strong(self, image: Tensor) -> Tensor:
        return image * 1.2 + 0.3 * torch.randn_like(image)

    def new_network(self, peer: int = 0) -> nn.Module:
        _, norm = of_peer(peer, self.settings.norm, self.settings.partners)
        return Net(self.settings.dims, 1, 2, norm=norm)

    def cases(self, split: str) -> Iterator[ToyCase]:
        rng = np.random.default_rng(["labeled", "unlabeled", "validation", "test"].index(split))
        for i in range(4):
            image, truth = disc(rng, self.settings.side, self.settings.dims)
            yield ToyCase(f"{split}-{i}", f"{split}-{i}", image, truth)

    def files(self) -> list[Path]:
        return []

    def predict(self, network: nn.Module, case: ToyCase) -> Tensor:
        return network(case.image[None]).softmax(1)[0]

    def whole(self, case: ToyCase) -> Whole:
        everywhere = torch.ones(case.image.shape[1:], dtype=torch.bool)
        return Whole.of(case.image, everywhere, len(self.task.classes), pixel=Pixel())

    def measure(self, predicted: Tensor, case: ToyCase) -> list[Measure]:
        a, b = predicted.argmax(0) == 1, case.truth == 1
        dice = float(2 * (a & b).sum() / (a.sum() + b.sum()).clamp_min(1))
        return [Measure("dice", "disc", dice)]

    def summarize(self, table: pd.DataFrame) -> pd.Series:
        return table.mean()

    def name_of(self, case: ToyCase) -> str:
        return f"{case.id}.npy"

    def write(self, predicted: Tensor, case: ToyCase, folder: Path) -> Path:
        path = folder / self.name_of(case)
        np.save(path, predicted.argmax(0).numpy())
        return path

    def write_confidence(self, predicted: Tensor, case: ToyCase, folder: Path) -> Path:
        path = folder / f"{case.id}.npy"
        np.save(path, predicted.amax(dim=0).numpy())
        return path

    def write_probabilities(self, predicted: Tensor, case: ToyCase, folder: Path) -> Path:
        path = folder / f"{case.id}.npy"
        np.save(path, predicted.numpy())
        return path

    def write_pseudo(
        self, probs: Tensor, sure: Tensor, case: ToyCase, folder: Path, *, about: str
    ) -> Path:
        path = folder / f"{case.id}.npy"
        np.save(path, torch.where(sure, probs.argmax(0), IGNORE).numpy())
        return path

    def figure(self, predicted: Tensor, case: ToyCase, folder: Path) -> Path:
        import matplotlib.image

        path = folder / f"{case.id}.png"
        middle = predicted[1]
        while middle.ndim > 2:
            middle = middle[middle.shape[0] // 2]
        matplotlib.image.imsave(path, middle.numpy())
        return path

    def describe(self) -> ReportText:
        return ReportText(rules=["Dice: twice the overlap over the sum of both areas."])


def toy_fit(
    method: Method,
    folder: Path,
    settings: FitSettings,
    *,
    domain: ToyDomain | None = None,
    company: Company | None = None,
) -> tuple[Learner, Fitted]:
    """Train ``method`` on discs with seed 0 on the CPU, or go on where ``folder`` stands."""
    domain = domain or ToyDomain(ToySettings(side=8))
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    learner = Learner(method, domain)
    fitted = fit(
        learner,
        lambda first: domain.batches(seed=0, first_step=first),
        settings,
        Fabric(accelerator="cpu", devices=1, precision=settings.precision),
        seed=0,
        folder=folder,
        company=company or Company(),
    )
    return learner, fitted


def briefly(run: Run) -> Run:
    """``run`` with what it does before its first step cut short."""
    rule = run.method.filter
    if not isinstance(rule, CalibratedFilter):
        return run
    rule = rule.model_copy(update={"folds": 2, "fold_steps": 1})
    return run.model_copy(update={"method": run.method.model_copy(update={"filter": rule})})


class StopAfter:
    """Asks a fit to stop after so many steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def __call__(self) -> bool:
        self.left -= 1
        return self.left <= 0
