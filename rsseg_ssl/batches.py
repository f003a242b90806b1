"""Windows of scenes, as the training loop draws them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.batch import IGNORE, Labeled, Unlabeled
from common.weak_labels import anything
from rsseg_ssl import reader
from rsseg_ssl.augment import Weak, resampled, turned
from rsseg_ssl.cases import Scene, SceneCase, read_target
from rsseg_ssl.reader import Window
from rsseg_ssl.settings import Statistics

MEGABYTE = 2**20


class Cutting(NamedTuple):
    """How windows are made of scenes."""

    tile: int  # pixels
    tries: int  # windows drawn until one shows something
    weak: Weak
    statistics: Statistics
    num_classes: int


class Memory:
    """Decoded scenes in their stored type, up to a limit; what does not fit is read by window."""

    def __init__(self, limit_mb: int) -> None:
        self.left_bytes = limit_mb * MEGABYTE
        self._too_large: set[tuple[str, str]] = set()
        self._pixels: dict[str, tuple[NDArray[Any], NDArray[np.bool_]]] = {}
        self._targets: dict[str, NDArray[np.uint8]] = {}

    def pixels(self, scene: Scene, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """As :func:`rsseg_ssl.reader.read`."""
        if scene.id not in self._pixels:
            if not self._fits(scene, "pixels"):
                return reader.read(scene, window)
            self._pixels[scene.id] = reader.read(scene, scene.whole)
        pixels, valid = self._pixels[scene.id]
        return cut(pixels, window, fill=0), cut(valid, window, fill=False)

    def target(self, case: SceneCase, window: Window) -> NDArray[np.uint8]:
        """As :func:`rsseg_ssl.cases.read_target`."""
        if case.id not in self._targets:
            if not self._fits(case, "target"):
                return read_target(case, window)
            self._targets[case.id] = read_target(case, case.whole)
        return cut(self._targets[case.id], window, fill=IGNORE)

    def _fits(self, scene: Scene, what: str) -> bool:
        """Whether there is room for a whole scene, which is then taken."""
        if (scene.id, what) in self._too_large:
            return False
        per_pixel = 1
        if what == "pixels":
            corner, valid = reader.read(scene, Window(0, 0, 1, 1))
            per_pixel = corner.nbytes + valid.nbytes
        height, width = scene.grid.shape_yx
        if height * width * per_pixel > self.left_bytes:
            self._too_large.add((scene.id, what))
            return False
        self.left_bytes -= height * width * per_pixel
        return True


class _Windows:
    """Random windows of several scenes: a scene of one tile gives one item, a larger one more."""

    def __init__(self, scenes: Sequence[Scene], cutting: Cutting) -> None:
        self.cutting = cutting
        self._shapes = [scene.grid.shape_yx for scene in scenes]
        tiles = [max(1, -(-h * w // cutting.tile**2)) for h, w in self._shapes]
        self._scene_of = np.repeat(np.arange(len(scenes)), tiles)

    def __len__(self) -> int:
        return len(self._scene_of)

    def scene_of(self, index: int) -> int:
        return int(self._scene_of[index])

    def draw(self, index: int, rng: np.random.Generator) -> Window:
        """A window that lies inside, or around a scene that is smaller."""
        zoom = self.cutting.weak.zoom
        factor = zoom ** rng.uniform(-1, 1) if zoom > 1 else 1.0
        side = max(1, round(self.cutting.tile * factor))
        top, left = (_start(extent, side, rng) for extent in self._shapes[self.scene_of(index)])
        return Window(top, left, side, side)

    def finish(
        self, pixels: NDArray[Any], valid: NDArray[np.bool_], target: NDArray[Any], symmetry: int
    ) -> tuple[Tensor, Tensor]:
        """Resample, turn and normalize a window and what goes with it."""
        tile = self.cutting.tile
        pixels, valid, target = (resampled(each, tile) for each in (pixels, valid, target))
        pixels, valid, target = (turned(each, symmetry) for each in (pixels, valid, target))
        raw = torch.from_numpy(pixels.astype(np.float32))
        image = normalize(raw[None], torch.from_numpy(valid)[None], self.cutting.statistics)[0]
        return image, torch.from_numpy(target)


class LabeledPool:
    """Windows with their annotation."""

    def __init__(self, cases: Sequence[SceneCase], cutting: Cutting, memory: Memory) -> None:
        self.cases, self.memory = cases, memory
        self.windows = _Windows(cases, cutting)

    def __len__(self) -> int:
        return len(self.windows)

    def draw(self, index: int, rng: np.random.Generator) -> Labeled:
        """A window, redrawn while it shows nothing annotated, at most ``tries`` times."""
        case = self.cases[self.windows.scene_of(index)]
        for _ in range(self.windows.cutting.tries):
            window = self.windows.draw(index, rng)
            target = self.memory.target(case, window)
            pixels, valid = self.memory.pixels(case, window)
            target = np.where(valid, target, np.uint8(IGNORE))
            if (target != IGNORE).any():
                break
        symmetry = int(rng.integers(self.windows.cutting.weak.symmetries))
        image, turned_target = self.windows.finish(pixels, valid, target, symmetry)
        return Labeled(image, turned_target.long())

    def nothing(self) -> Labeled:
        """No window."""
        image, target = _nothing(self.windows.cutting)
        return Labeled(image, target.long())


class UnlabeledPool:
    """Windows without annotation, from scenes that have no path to one."""

    def __init__(self, scenes: Sequence[Scene], cutting: Cutting, memory: Memory) -> None:
        self.scenes, self.memory = scenes, memory
        self.windows = _Windows(scenes, cutting)

    def __len__(self) -> int:
        return len(self.windows)

    def draw(self, index: int, rng: np.random.Generator) -> Unlabeled:
        """A window, redrawn while it holds no data, at most ``tries`` times."""
        scene = self.scenes[self.windows.scene_of(index)]
        for _ in range(self.windows.cutting.tries):
            pixels, valid = self.memory.pixels(scene, self.windows.draw(index, rng))
            if valid.any():
                break
        symmetry = int(rng.integers(self.windows.cutting.weak.symmetries))
        possible = torch.from_numpy(anything(self.windows.cutting.num_classes, dims=2))
        return Unlabeled(*self.windows.finish(pixels, valid, valid, symmetry), possible)

    def nothing(self) -> Unlabeled:
        """No window."""
        image, valid = _nothing(self.windows.cutting)
        possible = torch.from_numpy(anything(self.windows.cutting.num_classes, dims=2))
        return Unlabeled(image, valid.bool(), possible.expand(0, -1, -1, -1))


def normalize(raw: Tensor, valid: Tensor, statistics: Statistics) -> Tensor:
    """Standardize each band; pixels without data become 0 in all bands.

    Args:
        raw: Pixels ``(B, C, H, W)`` as stored, in a floating type.
        valid: ``(B, H, W)``, False where there is no data.
        statistics: One mean and one deviation per band.
    """
    mean, std = (
        raw.new_tensor(each).view(1, -1, 1, 1) for each in (statistics.mean, statistics.std)
    )
    return torch.where(valid.unsqueeze(1), (raw - mean) / std, 0)


def cut(pixels: NDArray[Any], window: Window, *, fill: float) -> NDArray[Any]:
    """A window of the last two axes, ``fill`` beyond the edge."""
    height, width = pixels.shape[-2:]
    top, bottom = max(window.top, 0), min(window.top + window.height, height)
    left, right = max(window.left, 0), min(window.left + window.width, width)
    inside = pixels[..., top:bottom, left:right]
    if inside.shape[-2:] == (window.height, window.width):
        return inside
    out = np.full((*pixels.shape[:-2], window.height, window.width), fill, dtype=pixels.dtype)
    y, x = top - window.top, left - window.left
    out[..., y : y + inside.shape[-2], x : x + inside.shape[-1]] = inside
    return out


def _start(extent: int, side: int, rng: np.random.Generator) -> int:
    if extent <= side:
        return -((side - extent) // 2)
    return int(rng.integers(extent - side + 1))


def _nothing(cutting: Cutting) -> tuple[Tensor, Tensor]:
    channels = len(cutting.statistics.mean)
    return torch.zeros(0, channels, cutting.tile, cutting.tile), torch.zeros(
        0, cutting.tile, cutting.tile
    )
