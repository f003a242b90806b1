"""From a folder or a manifest to scenes: which file is what. Opens no raster."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

RASTERS = {".tif", ".tiff", ".jp2", ".vrt", ".img", ".png", ".jpg", ".jpeg", ".bmp"}
COLORS = (
    (120, 120, 120), (31, 119, 180), (44, 160, 44), (255, 127, 14), (214, 39, 40),
    (148, 103, 189), (140, 86, 75), (227, 119, 194), (188, 189, 34), (23, 190, 207),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Entry:
    """The files of one scene."""

    id: str
    images: tuple[Path, ...]
    mask: Path | None = None
    group: str | None = None  # the spatial block, where the manifest names it
    split: str | None = None


@dataclass(frozen=True, slots=True)
class Named:
    """A class as classes.json describes it."""

    name: str
    value: int
    color: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Layout:
    """What files there are, and what is wrong with them."""

    kind: str
    entries: tuple[Entry, ...] = ()
    classes: tuple[Named, ...] = ()  # empty where no classes.json says
    ignore: tuple[int, ...] = ()
    bands: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def survey(data: Path) -> Layout:
    """The scenes of a folder with ``images/`` (and ``masks/``), or of a manifest.

    A manifest is a .csv with a column ``image`` (files of several bands separated by ``;``), and
    optionally ``case``, ``mask``, ``block`` (or ``group``) and ``split``. Never raises for data.
    """
    if data.suffix.lower() == ".csv":
        return _manifest(data)
    if not data.is_dir():
        return Layout("none", problems=(f"'{data}' is no folder and no .csv manifest.",))
    if not (data / "images").is_dir():
        return Layout(
            "none",
            problems=(
                f"'{data}' holds no folder 'images'. Put scenes in images/ and masks of the same "
                "names in masks/, or list them in a .csv manifest.",
            ),
        )
    return _folder(data)


def rasters(folder: Path) -> list[Path]:
    """The raster files directly in ``folder``, by name."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in RASTERS)


def stem(name: str) -> str:
    """A scene's name without the ending of its file, if it has one."""
    path = Path(name)
    return path.stem if path.suffix.lower() in RASTERS else name


def color_of(index: int) -> tuple[int, int, int]:
    """The color of a class that has none of its own."""
    return COLORS[index % len(COLORS)]


def _folder(data: Path) -> Layout:
    images, masks = _by_stem(data / "images"), _by_stem(data / "masks")
    problems = _repeated(images, "images") + _repeated(masks, "masks")
    if not images:
        problems.append(f"'{data / 'images'}' holds no raster. Known endings: {_endings()}.")
    orphans = sorted(masks.keys() - images.keys())
    warnings = []
    if orphans:
        warnings.append(
            f"masks without an image of the same name are not used ({len(orphans)}): "
            f"{', '.join(orphans[:5])}."
        )
    entries = [
        Entry(id=name, images=(files[0],), mask=masks[name][0] if name in masks else None)
        for name, files in images.items()
    ]
    named, ignore, bands, wrong = _classes(data / "classes.json")
    return Layout(
        kind="folder of images/ and masks/",
        entries=tuple(entries),
        classes=named,
        ignore=ignore,
        bands=bands,
        problems=(*problems, *wrong),
        warnings=tuple(warnings),
    )


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


def _manifest(path: Path) -> Layout:
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        return Layout("manifest", problems=(f"'{path}' cannot be read as a table: {error}.",))
    table.columns = pd.Index([str(column).strip().lower() for column in table.columns])
    known = {"case", "image", "mask", "block", "group", "split"}
    problems = []
    if "image" not in table:
        problems.append(f"'{path}' has no column 'image', which names the file of each scene.")
    strange = [column for column in table.columns if column not in known]
    if strange:
        problems.append(
            f"'{path}' has columns {', '.join(strange)} that mean nothing here. "
            f"Known: {', '.join(sorted(known))}."
        )
    if problems:
        return Layout("manifest", problems=tuple(problems))
    entries = [_row(path.parent, row) for row in table.to_dict("records")]
    named, ignore, bands, wrong = _classes(path.parent / "classes.json")
    return Layout(
        kind="manifest",
        entries=tuple(entries),
        classes=named,
        ignore=ignore,
        bands=bands,
        problems=(*_wrong_rows(path, entries), *wrong),
    )


def _row(folder: Path, row: dict[Any, Any]) -> Entry:
    images = tuple(folder / name.strip() for name in row["image"].split(";") if name.strip())
    mask = row.get("mask", "").strip()
    return Entry(
        id=row.get("case", "").strip() or (images[0].stem if images else ""),
        images=images,
        mask=folder / mask if mask else None,
        group=row.get("block", "").strip() or row.get("group", "").strip() or None,
        split=row.get("split", "").strip() or None,
    )


def _wrong_rows(path: Path, entries: Sequence[Entry]) -> list[str]:
    problems, seen = [], set()
    splits = ("labeled", "unlabeled", "validation", "test")
    for number, entry in enumerate(entries, start=2):
        where = f"'{path}' line {number}"
        if not entry.images:
            problems.append(f"{where} names no image.")
        if entry.id in seen:
            problems.append(f"{where} names scene '{entry.id}' again. Names must be unique.")
        seen.add(entry.id)
        if entry.split is not None and entry.split not in splits:
            problems.append(f"{where}: split '{entry.split}' is none of {', '.join(splits)}.")
        problems += [
            f"{where}: '{file}' does not exist. Paths count from the manifest's folder."
            for file in (*entry.images, *([entry.mask] if entry.mask else []))
            if not file.exists() and not str(file).startswith("/vsi")
        ]
    if not entries:
        problems.append(f"'{path}' lists no scene.")
    return problems


def _classes(
    path: Path,
) -> tuple[tuple[Named, ...], tuple[int, ...], tuple[str, ...], tuple[str, ...]]:
    """Classes, mask values to ignore, band names and problems of classes.json, if it is there."""
    if not path.exists():
        return (), (), (), ()
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        named = tuple(
            Named(
                name=str(each["name"]),
                value=int(each["id"]),
                color=_color(each.get("color"), index),
            )
            for index, each in enumerate(said["classes"])
        )
        single = said.get("ignore_index")
        ignore = [*said.get("ignore_ids", []), *([single] if single is not None else [])]
        return named, tuple(map(int, ignore)), tuple(map(str, said.get("bands", ()))), ()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        problem = (
            f"'{path}' cannot be understood ({type(error).__name__}: {error}). Expected "
            '{"classes": [{"id": 0, "name": "water", "color": [0, 0, 255]}, ...]}.'
        )
        return (), (), (), (problem,)


def _color(said: Any, index: int) -> tuple[int, int, int]:  # noqa: ANN401
    if said is None:
        return color_of(index)
    red, green, blue = (int(part) for part in said)
    return red, green, blue


def _endings() -> str:
    return ", ".join(sorted(RASTERS))
