"""Windows of scenes, as the training loop draws them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.batch import IGNORE, Labeled, Pixel, Unlabeled, Whole
from common.weak_labels import ClassSets, everywhere, possible
from rsseg_ssl import reader
from rsseg_ssl.augment import Weak, resampled, turned
from rsseg_ssl.cases import Scene, SceneCase, read_target
from rsseg_ssl.places import Places, places
from rsseg_ssl.reader import Window
from rsseg_ssl.settings import Statistics
from rsseg_ssl.weak_labels import WeakLabels

MEGABYTE = 2**20


class Cutting(NamedTuple):
    """How windows are made of scenes."""

    tile: int  # pixels
    tries: int  # windows drawn until one shows something
    weak: Weak
    statistics: Statistics
    class_share: float = 0.0  # of the labeled windows: around a random class


class Memory:
    """Decoded scenes in their stored type, up to a limit; what does not fit is read by window."""

    def __init__(self, limit_mb: int) -> None:
        self.left_bytes = limit_mb * MEGABYTE
        self._too_large: set[tuple[str, str]] = set()
        self._pixels: dict[str, tuple[NDArray[Any], NDArray[np.bool_]]] = {}
        self._targets: dict[str, NDArray[np.uint8]] = {}
        self._class_sets: dict[str, ClassSets] = {}
        self._places: dict[str, Places] = {}

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

    def places(self, case: SceneCase) -> Places:
        """Where each class was annotated; the whole mask is read once."""
        if case.id not in self._places:
            self._places[case.id] = places(
                functools.partial(self.target, case), case.grid.shape_yx, len(case.values)
            )
        return self._places[case.id]

    def class_sets(self, said: WeakLabels, scene: Scene, window: Window) -> ClassSets:
        """The classes that each pixel can have; beyond the edge, all of them."""
        part, known = scene.whole, self._class_sets.get(scene.id)
        if known is None and self._fits(scene, "weak labels"):
            known = self._class_sets[scene.id] = said.class_sets(scene.id, part)
        if known is None:
            part = _inside(window, part)
            known = said.class_sets(scene.id, part)
        here = window._replace(top=window.top - part.top, left=window.left - part.left)
        return ClassSets(cut(known.row, here, fill=0), known.table)

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
        pixels, valid, target = (self.moved(each, symmetry) for each in (pixels, valid, target))
        raw = torch.from_numpy(pixels.astype(np.float32))
        image = normalize(raw[None], torch.from_numpy(valid)[None], self.cutting.statistics)[0]
        return image, torch.from_numpy(target)

    def moved(self, pixels: NDArray[Any], symmetry: int) -> NDArray[Any]:
        """A window as the weak view shows it."""
        return turned(resampled(pixels, self.cutting.tile), symmetry)


class LabeledPool:
    """Windows with their annotation."""

    def __init__(self, cases: Sequence[SceneCase], cutting: Cutting, memory: Memory) -> None:
        self.cases, self.memory = cases, memory
        self.windows = _Windows(cases, cutting)

    @property
    def names(self) -> list[str]:
        """The scene of each item."""
        return [self.cases[self.windows.scene_of(index)].id for index in range(len(self))]

    def __len__(self) -> int:
        return len(self.windows)

    def draw(self, index: int, rng: np.random.Generator) -> Labeled:
        """A window, redrawn while it shows nothing annotated, at most ``tries`` times."""
        case, share = self.cases[self.windows.scene_of(index)], self.windows.cutting.class_share
        for _ in range(self.windows.cutting.tries):
            window = self.windows.draw(index, rng)
            if share and rng.random() < share:
                window = self.memory.places(case).around(window, rng)
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

    def __init__(
        self, scenes: Sequence[Scene], cutting: Cutting, memory: Memory, said: WeakLabels
    ) -> None:
        self.scenes, self.memory, self.said = scenes, memory, said
        self.windows = _Windows(scenes, cutting)

    def __len__(self) -> int:
        return len(self.windows)

    def draw(self, index: int, rng: np.random.Generator) -> Unlabeled:
        """A window, redrawn while it holds no data, at most ``tries`` times."""
        scene = self.scenes[self.windows.scene_of(index)]
        for _ in range(self.windows.cutting.tries):
            window = self.windows.draw(index, rng)
            pixels, valid = self.memory.pixels(scene, window)
            if valid.any():
                break
        symmetry = int(rng.integers(self.windows.cutting.weak.symmetries))
        image, seen = self.windows.finish(pixels, valid, valid, symmetry)
        return Unlabeled(image, seen, self._possible(scene, window, symmetry))

    def nothing(self) -> Unlabeled:
        """No window."""
        image, valid = _nothing(self.windows.cutting)
        every = range(self.said.num_classes)
        flags = torch.from_numpy(everywhere(every, len(every), dims=2))
        return Unlabeled(image, valid.bool(), flags.expand(0, -1, -1, -1))

    def _possible(self, scene: Scene, window: Window, symmetry: int) -> Tensor:
        """Flags ``(K, tile, tile)``; sides of 1 where the run tells no pixels apart."""
        said, tile = self.said, self.windows.cutting.tile
        if said.of(scene.id).drawn:
            sets = self.memory.class_sets(said, scene, window)
            row = self.windows.moved(sets.row, symmetry)
            return torch.from_numpy(possible(ClassSets(row, sets.table)))
        left = said.tagged(scene.id)
        flags = torch.from_numpy(everywhere(left, said.num_classes, dims=2))
        return flags.expand(-1, tile, tile) if said.tell_pixels_apart else flags


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


def whole(case: SceneCase, statistics: Statistics, num_classes: int) -> Whole:
    """A whole scene as a network sees it, as one unlabeled image."""
    pixels, there = reader.read(case, case.whole)
    raw, valid = torch.from_numpy(pixels.astype(np.float32)), torch.from_numpy(there)
    image = normalize(raw[None], valid[None], statistics)[0]
    return Whole.of(image, valid, num_classes, pixel=pixel_of(case))


def pixel_of(case: SceneCase) -> Pixel:
    """In metres, where the scene lies on Earth."""
    x_m, y_m = case.grid.resolution_xy_m
    return Pixel((y_m, x_m), "m" if case.grid.crs is not None else "pixel")


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


def _inside(window: Window, whole: Window) -> Window:
    """The part of ``window`` that lies in a scene."""
    top, left = max(window.top, 0), max(window.left, 0)
    bottom = min(window.top + window.height, whole.height)
    right = min(window.left + window.width, whole.width)
    return Window(top, left, max(0, bottom - top), max(0, right - left))


def _start(extent: int, side: int, rng: np.random.Generator) -> int:
    if extent <= side:
        return -((side - extent) // 2)
    return int(rng.integers(extent - side + 1))


def _nothing(cutting: Cutting) -> tuple[Tensor, Tensor]:
    channels = len(cutting.statistics.mean)
    return torch.zeros(0, channels, cutting.tile, cutting.tile), torch.zeros(
        0, cutting.tile, cutting.tile
    )
