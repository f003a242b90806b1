"""Where the files of each case lie: five layouts, told apart by what is in the folder.

* MSD: ``dataset.json`` with a ``training`` list, ``imagesTr``, ``labelsTr``, ``imagesTs``
* nnU-Net v2: ``imagesTr/CASE_0000.nii.gz``, ``labelsTr``, ``dataset.json`` with ``channel_names``
* plain: ``images`` and ``labels``; names of classes in a ``dataset.json``, if there is one
* HDF5 files of papers, with their lists: :mod:`medseg_ssl.protocols`
* a CSV manifest: ``case, image`` (or ``image_0, image_1``, or ``a;b``), ``label, patient, split``
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from common.adapter import repeated
from common.errors import DataError
from common.splits import SPLITS, closest, listed
from medseg_ssl.cases import VolumeCase
from medseg_ssl.catalog import Catalog
from medseg_ssl.files import KNOWN, is_there, is_volume, stem, volumes_in
from medseg_ssl.h5 import label_in
from medseg_ssl.legend import read_legend
from medseg_ssl.protocols import in_h5

CHANNEL = re.compile(r"^(?P<case>.+)_(?P<channel>\d{4})$")
COLUMNS = ("case", "image", "label", "patient", "split")


def read_catalog(data: Path) -> Catalog:
    """The cases in a folder or a CSV manifest; reads no voxel.

    Raises:
        DataError: When there is nothing, or nothing in a layout that is known.
    """
    data = data.expanduser()
    if data.is_file() and data.suffix == ".csv":
        return _checked(_manifest(data))
    if not data.is_dir():
        raise DataError(f"{data} is no folder and no .csv manifest. Check domain.data.")
    facts = _facts(data / "dataset.json")
    if "training" in facts and "channel_names" not in facts:
        return _checked(_decathlon(data, facts))
    for images, labels, name in (
        ("imagesTr", "labelsTr", "nnU-Net" if "channel_names" in facts else "plain"),
        ("images", "labels", "plain"),
    ):
        if (data / images).is_dir():
            return _checked(_folders(data, facts, images=images, labels=labels, name=name))
    if protocol := in_h5(data):
        return _checked(protocol)
    raise DataError(
        f"{data} holds no layout that is known: expected a dataset.json with imagesTr/ and "
        "labelsTr/ (MSD, nnU-Net), images/ and labels/, HDF5 files of papers, or give a CSV "
        f"manifest with the columns {', '.join(COLUMNS)}."
    )


def found(paths: Sequence[Path], channels: int) -> tuple[list[VolumeCase], list[str]]:
    """Cases in files and folders; one file per channel where the names end in _0000 and so on."""
    files: list[Path] = []
    problems = []
    for path in paths:
        if path.exists() and is_volume(path):
            files.append(path)
        elif path.is_dir():
            here = volumes_in(path)
            files += here
            if not here:
                problems.append(f"{path} holds no volume: expected {KNOWN}.")
        elif not path.exists():
            problems.append(f"{path} does not exist.")
        else:
            problems.append(f"{path} is no volume: expected {KNOWN}.")
    parts: dict[str, list[Path]] = {}
    for file in dict.fromkeys(files):
        match = CHANNEL.match(stem(file))
        name = match["case"] if match and channels > 1 else stem(file)
        parts.setdefault(str(file.parent / name), []).append(file)
    cases = [VolumeCase(Path(key).name, Path(key).name, tuple(own)) for key, own in parts.items()]
    return cases, problems + repeated([case.id for case in cases])


def _decathlon(data: Path, facts: dict[str, Any]) -> Catalog:
    problems: list[str] = []
    cases = []
    for number, entry in enumerate(facts["training"]):
        if not isinstance(entry, dict) or "image" not in entry:
            problems.append(f"dataset.json: training[{number}] names no image. Add 'image: path'.")
            continue
        image = data / entry["image"]
        label = label_in(data / entry["label"]) if entry.get("label") else None
        cases.append(VolumeCase(stem(image), stem(image), (image,), label))
    for entry in facts.get("test", []):
        image = data / (entry["image"] if isinstance(entry, dict) else entry)
        cases.append(VolumeCase(stem(image), stem(image), (image,)))
    legend = read_legend(facts.get("labels", {}), problems)
    return Catalog(
        layout="MSD (dataset.json)",
        cases=tuple(cases),
        classes=legend.classes,
        channels=_channels(facts.get("modality", {})),
        ignore=legend.ignore,
        regions=legend.regions,
        problems=tuple(problems),
    )


def _folders(data: Path, facts: dict[str, Any], *, images: str, labels: str, name: str) -> Catalog:
    problems: list[str] = []
    pairs = [(images, labels)]
    if images == "imagesTr" and (data / "imagesTs").is_dir():
        pairs.append(("imagesTs", "labelsTs"))
    cases, orphans = [], []
    for image_folder, label_folder in pairs:
        found, lost = _paired(data / image_folder, data / label_folder)
        cases += found
        orphans += lost
    legend = read_legend(facts.get("labels", {}), problems)
    warnings = [f"these labels belong to no image and are not used: {listed(orphans)}."]
    return Catalog(
        layout=f"{name} ({images}/ and {labels}/)",
        cases=tuple(cases),
        classes=legend.classes,
        channels=_channels(facts.get("channel_names", {})),
        ignore=legend.ignore,
        regions=legend.regions,
        problems=tuple(problems),
        warnings=tuple(warnings if orphans else ()),
    )


def _paired(images: Path, labels: Path) -> tuple[list[VolumeCase], list[str]]:
    """Cases of two folders, and the labels without an image."""
    label_of = {stem(path): label_in(path) for path in volumes_in(labels)}
    files = volumes_in(images)
    numbered = [CHANNEL.match(stem(path)) for path in files]
    parts: dict[tuple[str, str], list[Path]] = {}
    if files and all(numbered):
        for path, match in zip(files, numbered, strict=True):
            assert match is not None
            suffix = path.name.removeprefix(stem(path))
            parts.setdefault((match["case"], suffix), []).append(path)
    else:
        parts = {(stem(path), path.name): [path] for path in files}
    cases = [
        VolumeCase(name, name, tuple(paths), label_of.get(name))
        for (name, _), paths in parts.items()
    ]
    orphans = sorted(label_of.keys() - {name for name, _ in parts})
    return cases, [label_of[name].name for name in orphans]


def _manifest(path: Path) -> Catalog:
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, skipinitialspace=True)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as CSV: {error}.") from None
    table.columns = table.columns.str.strip()
    images = [c for c in table.columns if re.fullmatch(r"image(_\d+)?", c)]
    missing = [c for c in ("case",) if c not in table.columns] + ([] if images else ["image"])
    if missing:
        found = list(table.columns)
        hints = "".join(closest(name, found) for name in missing)
        raise DataError(
            f"{path} lacks the column {' and '.join(missing)}; it has {', '.join(found)}.{hints}"
        )
    rows = [
        {str(key): str(value).strip() for key, value in row.items()}
        for row in table.to_dict("records")
    ]
    problems: list[str] = []
    cases = tuple(_row(path, row, images, problems) for row in rows)
    more = [c for c in table.columns if c not in (*COLUMNS, *images)]
    return Catalog(
        layout=f"manifest ({path.name})",
        cases=cases,
        splits=_manifest_splits(rows, problems),
        knows_patients="patient" in table.columns,
        problems=tuple(problems),
        known={column: {row["case"]: row[column] for row in rows} for column in more},
    )


def _row(path: Path, row: Mapping[str, str], images: list[str], problems: list[str]) -> VolumeCase:
    name, label = row["case"], row.get("label", "")
    files = [part.strip() for column in images for part in row[column].split(";") if part.strip()]
    if not name or not files:
        problems.append(f"{path.name}: a row lacks its case or image: {dict(row)}. Fill it in.")
    return VolumeCase(
        id=name,
        group=row.get("patient") or name,
        images=tuple(path.parent / file for file in files),
        label=label_in(path.parent / label) if label else None,
    )


def _manifest_splits(
    rows: Iterable[Mapping[str, str]], problems: list[str]
) -> dict[str, tuple[str, ...]]:
    splits: dict[str, tuple[str, ...]] = {}
    for row in rows:
        split = row.get("split", "")
        if not split:
            continue
        if split not in SPLITS:
            problems.append(
                f"case '{row['case']}': no split '{split}'; expected one of {', '.join(SPLITS)}."
                f"{closest(split, SPLITS)}"
            )
        else:
            splits[split] = (*splits.get(split, ()), row["case"])
    return splits


def _checked(catalog: Catalog) -> Catalog:
    """``catalog`` with the problems that show before any volume is opened."""
    problems = list(catalog.problems)
    twice = [name for name, n in Counter(case.id for case in catalog.cases).items() if n > 1]
    problems += [f"case '{name}' is there more than once. Rename or remove one." for name in twice]
    if not catalog.cases:
        problems.append(f"no volume found in the layout {catalog.layout}: expected {KNOWN}.")
    for case in catalog.cases:
        problems += [
            f"case '{case.id}': {path} does not exist. Restore it, or remove the case."
            for path in (*case.images, *([case.label] if case.label else []))
            if not is_there(path)
        ]
    return Catalog(
        **{name: getattr(catalog, name) for name in Catalog.__slots__ if name != "problems"},
        problems=tuple(problems),
    )


def _facts(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        facts = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not valid JSON: {error}. Repair or remove it.") from None
    if not isinstance(facts, dict):
        raise DataError(f"{path} must hold an object with 'labels' and the like.")
    return facts


def _channels(names: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(names[key]) for key in sorted(names, key=int))
