"""Preprocessed arrays on disk: made once, memory-mapped ever after."""

from __future__ import annotations

import errno
import hashlib
import json
import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from common.errors import DataError
from common.weak_labels import ClassSets
from medseg_ssl.cases import UnlabeledVolume, VolumeCase
from medseg_ssl.files import pieces, stem
from medseg_ssl.h5 import key_of
from medseg_ssl.hints import sets_of
from medseg_ssl.preparation import Wanted
from medseg_ssl.preprocess import (
    Recipe,
    Volume,
    foreground_voxels,
    preprocess,
    preprocess_label,
)
from medseg_ssl.weak_labels import VolumeHints

VERSION = 2
"""Counts up when the same settings would make other arrays, so that no old cache is read."""


_LOADING = threading.Lock()
"""Python 3.11 may fail to parse, as NumPy does to read a header, in several threads at once."""


@dataclass(frozen=True)
class Store:
    """Preprocessed arrays on disk, made when first asked for, then memory-mapped.

    An array's name is a digest of the recipe and of path, size and time of its files, so a changed
    file or setting is never answered with an old array; a store looks at a file once. Arrays
    appear whole or not at all: two processes may build the same one.
    """

    folder: Path
    recipe: Recipe
    _names: dict[str, str] = field(default_factory=dict, repr=False, compare=False)

    def volume(self, images: Sequence[Path]) -> Volume:
        """The image of a case."""
        name = self._name(images)

        def make() -> dict[str, np.ndarray]:
            made = preprocess(images, self.recipe)
            return {"affine": made.affine, "image": made.image}

        affine = self._array(name, "affine", make)
        return Volume(image=self._array(name, "image", make), affine=np.array(affine))

    def target(self, case: VolumeCase) -> np.ndarray:
        """The class indices of a labeled case ``(X, Y, Z)`` uint8."""
        return self._array(self._label_name(case), "target", lambda: self._labels(case))

    def foreground(self, case: VolumeCase) -> np.ndarray:
        """Rows ``(class, x, y, z)`` of voxels that are no background, sorted by class."""
        return self._array(self._label_name(case), "foreground", lambda: self._labels(case))

    def class_sets(
        self, volume: UnlabeledVolume, hints: VolumeHints, classes: Sequence[str]
    ) -> ClassSets:
        """The classes that each voxel of an unlabeled case can have.

        Raises:
            DataError: When what is said of it cannot be used.
        """
        name = self._sets_name(volume, hints, classes)

        def make() -> dict[str, np.ndarray]:
            return sets_of(volume, hints, self.recipe, classes)._asdict()

        table = self._array(name, "table", make)
        return ClassSets(row=self._array(name, "row", make), table=np.array(table))

    def wanted_volume(self, case: VolumeCase | UnlabeledVolume, channels: int) -> Wanted:
        """The image of a case, to be made beforehand."""
        return Wanted(
            case=case.id,
            images=case.images,
            files=case.images,
            path=self._path(self._name(case.images), "image"),
            make=lambda: self.volume(case.images),
            bytes_per_voxel=4 * channels,
        )

    def wanted_target(self, case: VolumeCase) -> Wanted:
        """The class indices of a labeled case, and the places of its classes."""
        assert case.label is not None
        return Wanted(
            case=case.id,
            images=case.images,
            files=[case.label],
            path=self._path(self._label_name(case), "foreground"),
            make=lambda: self.foreground(case),
            bytes_per_voxel=1,
        )

    def wanted_sets(
        self, volume: UnlabeledVolume, hints: VolumeHints, classes: Sequence[str]
    ) -> Wanted:
        """The classes that each voxel of an unlabeled case can have."""
        return Wanted(
            case=volume.id,
            images=volume.images,
            files=_drawn(hints),
            path=self._path(self._sets_name(volume, hints, classes), "table"),
            make=lambda: self.class_sets(volume, hints, classes),
            bytes_per_voxel=1,
        )

    def _labels(self, case: VolumeCase) -> dict[str, np.ndarray]:
        target = preprocess_label(case, self.recipe)
        return {"target": target, "foreground": foreground_voxels(target)}

    def _label_name(self, case: VolumeCase) -> str:
        assert case.label is not None
        return self._name([*case.images, case.label], list(case.values), case.ignore)

    def _sets_name(
        self, volume: UnlabeledVolume, hints: VolumeHints, classes: Sequence[str]
    ) -> str:
        return self._name([*volume.images, *_drawn(hints)], hints.digest, [*classes])

    def _name(self, files: Sequence[Path], *more: object) -> str:
        asked = json.dumps([[str(path) for path in files], *more])
        if asked not in self._names:
            facts = [VERSION, self.recipe.model_dump(mode="json"), stamps(files), *more]
            digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:24]
            self._names[asked] = f"{stem(files[0])}-{digest}"
        return self._names[asked]

    def _array(self, name: str, part: str, make: Callable[[], dict[str, np.ndarray]]) -> np.ndarray:
        path = self._path(name, part)
        if not path.exists():
            for each, array in make().items():
                write_whole(self._path(name, each), array)
        with _LOADING:
            return np.asanyarray(np.load(path, mmap_mode="r"))

    def _path(self, name: str, part: str) -> Path:
        return self.folder / f"{name}.{part}.npy"


def _drawn(hints: VolumeHints) -> list[Path]:
    return [hints.scribble.path] if hints.scribble else []


def stamps(files: Sequence[Path]) -> list[tuple[str, int, int]]:
    """What tells a file from its earlier self without reading it."""
    resolved = [path.expanduser().resolve() for path in files]
    each = [(piece / key_of(path), piece.stat()) for path in resolved for piece in pieces(path)]
    return [(str(name), found.st_size, found.st_mtime_ns) for name, found in each]


def write_whole(path: Path, array: np.ndarray) -> None:
    """Save ``array`` as ``path``, which appears whole or not at all.

    Raises:
        DataError: When the disk is full or may not be written.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            np.save(file, array)
        temporary.replace(path)
    except OSError as error:
        remedy = "Free some space" if error.errno == errno.ENOSPC else "Make it writable"
        raise DataError(
            f"the cache {path.parent} cannot be written ({error.strerror}). {remedy}, or set "
            "domain.cache to another folder."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)  # there where it is not whole
