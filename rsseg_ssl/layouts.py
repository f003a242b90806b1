"""From a folder or a manifest to scenes: which file is what. Opens no raster."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from common.adapter import repeated
from rsseg_ssl import photographs
from rsseg_ssl.entries import Entry, Layout, Named, color_of, paired, rasters

KNOWN: Mapping[str, Callable[[Path, str | None], Layout]] = {
    "JPEGImages": photographs.voc,
    "leftImg8bit": photographs.cityscapes,
}
"""Layouts of public data sets, by a folder that each has."""


def survey(data: Path, masks: str | None = None) -> Layout:
    """The scenes of a folder, or of a manifest.

    A folder holds ``images/`` (and ``masks/``), or is one of PASCAL VOC or Cityscapes. A manifest
    is a .csv with a column ``image`` (files of several bands separated by ``;``), and optionally
    ``case``, ``mask``, ``block`` (or ``group``) and ``split``. Never raises for data.

    Args:
        data: The folder or the manifest.
        masks: The folder of the masks below ``data``, where it is not the usual one.
    """
    if data.suffix.lower() == ".csv":
        return _manifest(data, masks)
    if not data.is_dir():
        return Layout("none", problems=(f"'{data}' is no folder and no .csv manifest.",))
    read = _reader(data)
    if read is None:
        return Layout(
            "none",
            problems=(
                f"'{data}' holds no folder 'images'. Put scenes in images/ and masks of the same "
                "names in masks/, or list them in a .csv manifest. Of PASCAL VOC, name the folder "
                "that holds JPEGImages/; of Cityscapes, that of leftImg8bit/.",
            ),
        )
    layout = read(data, masks)
    named, ignore, bands, wrong = _classes(data / "classes.json")
    if masks and not (data / masks).is_dir():
        wrong = (*wrong, f"'{data}' holds no folder '{masks}'. Correct domain.masks.")
    return replace(
        layout,
        classes=named or layout.classes,
        ignore=ignore if named else layout.ignore,
        bands=bands or layout.bands,
        problems=(*layout.problems, *wrong),
    )


def is_data_set(path: Path) -> bool:
    """Whether :func:`survey` knows what is where in ``path``."""
    return path.suffix.lower() == ".csv" or _reader(path) is not None


def found(paths: Sequence[Path]) -> tuple[list[Entry], list[str]]:
    """Scenes in files, folders, data sets and manifests, never with a mask; and problems."""
    entries: list[Entry] = []
    problems: list[str] = []
    for path in paths:
        if not path.exists():
            problems.append(f"'{path}' does not exist.")
        elif is_data_set(path):
            layout = survey(path)
            problems += layout.problems
            entries += [Entry(each.id, each.images) for each in layout.entries]
        else:
            files = rasters(path) if path.is_dir() else [path]
            entries += [Entry(file.stem, (file,)) for file in files]
            if not files:
                problems.append(f"'{path}' holds no raster, such as .tif.")
    return entries, problems + repeated([entry.id for entry in entries])


def _reader(data: Path) -> Callable[[Path, str | None], Layout] | None:
    if (data / "images").is_dir():
        return _folder
    return next((read for folder, read in KNOWN.items() if (data / folder).is_dir()), None)


def _folder(data: Path, masks: str | None) -> Layout:
    entries, problems, warnings = paired(data / "images", data / (masks or "masks"))
    return Layout(
        kind="folder of images/ and masks/" if masks is None else f"images/ and {masks}/",
        entries=tuple(entries),
        problems=tuple(problems),
        warnings=tuple(warnings),
    )


def _manifest(path: Path, masks: str | None) -> Layout:
    if masks is not None:
        problem = f"'{path}' names the mask of each scene itself. Remove domain.masks."
        return Layout("manifest", problems=(problem,))
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
