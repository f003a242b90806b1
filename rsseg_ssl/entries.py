"""What a data set is made of before any raster is opened: scenes, classes, and their names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

RASTERS = {".tif", ".tiff", ".jp2", ".vrt", ".img", ".png", ".jpg", ".jpeg", ".bmp"}
COLORS = (
    (120, 120, 120), (31, 119, 180), (44, 160, 44), (255, 127, 14), (214, 39, 40),
    (148, 103, 189), (140, 86, 75), (227, 119, 194), (188, 189, 34), (23, 190, 207),
)  # fmt: skip
VIEW = "_leftImg8bit"
"""What Cityscapes adds to the name of every image."""


@dataclass(frozen=True, slots=True)
class Entry:
    """The files of one scene."""

    id: str
    images: tuple[Path, ...]
    mask: Path | None = None
    group: str | None = None  # the spatial block, where the manifest or the folders name it
    split: str | None = None
    recode: tuple[tuple[int, int], ...] = ()  # (value in the mask, class value); else unlisted


@dataclass(frozen=True, slots=True)
class Named:
    """A class: what it is called, its value in masks, and its color."""

    name: str
    value: int
    color: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Layout:
    """What files there are, and what is wrong with them."""

    kind: str
    entries: tuple[Entry, ...] = ()
    classes: tuple[Named, ...] = ()  # empty where nothing says
    ignore: tuple[int, ...] = ()
    bands: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    masks: str | None = None  # their folder, where it may be another
    photographs: bool = False  # they lie nowhere on Earth: that they have no CRS is no news


def rasters(folder: Path) -> list[Path]:
    """The raster files directly in ``folder``, by name."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in RASTERS)


def paired(images: Path, masks: Path) -> tuple[list[Entry], list[str], list[str]]:
    """The scenes of two folders, file names without their endings being the same.

    Returns:
        Scenes, problems, and warnings.
    """
    pictures, annotations = _by_stem(images), _by_stem(masks)
    problems = _repeated(pictures, images.name) + _repeated(annotations, masks.name)
    if not pictures:
        problems.append(f"'{images}' holds no raster. Known endings: {', '.join(sorted(RASTERS))}.")
    entries = [
        Entry(id=name, images=(files[0],), mask=annotations.get(name, [None])[0])
        for name, files in pictures.items()
    ]
    return entries, problems, without_image(sorted(annotations.keys() - pictures.keys()))


def without_image(names: Sequence[str]) -> list[str]:
    """A warning where some masks have no image."""
    if not names:
        return []
    return [
        f"masks without an image of the same name are not used ({len(names)}): "
        f"{', '.join(names[:5])}."
    ]


def stem(name: str) -> str:
    """A scene's name without the ending of its file, if it has one."""
    path = Path(name)
    return path.stem if path.suffix.lower() in RASTERS else name


def scene_name(line: str, known: Collection[str]) -> str:
    """Which scene a line of a split list means.

    A name, with or without the ending of its file, or as in the lists of papers the path of an
    image, followed by that of its mask.
    """
    path = next(iter(line.split()), line)
    first = stem(path).rpartition("/")[2].removesuffix(VIEW)
    unknown = first if Path(path).suffix.lower() in RASTERS else stem(line)
    return next((name for name in (line, stem(line), first) if name in known), unknown)


def color_of(index: int) -> tuple[int, int, int]:
    """The color of a class that has none of its own."""
    return COLORS[index % len(COLORS)]


def _by_stem(folder: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = defaultdict(list)
    for path in rasters(folder):
        found[path.stem].append(path)
    return dict(found)


def _repeated(files: dict[str, list[Path]], where: str) -> list[str]:
    return [
        f"scene '{name}' is in {where}/ more than once: "
        f"{', '.join(path.name for path in paths)}. Keep one."
        for name, paths in files.items()
        if len(paths) > 1
    ]
