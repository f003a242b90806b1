"""Tiny copies of PASCAL VOC and Cityscapes on disk: their folders, file types and oddities."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from rsseg_ssl.photographs import CITYSCAPES, VOC_CLASSES, VOID

VOC_SIZES_YX = ((64, 80), (80, 64), (64, 64), (48, 80), (20, 72))
"""Portrait, landscape, and one smaller than any window."""

STREETS = {"train": ("aachen", "bremen"), "val": ("lindau",), "test": ("berlin",)}
EGO_VEHICLE, UNLABELED_ID = 1, 0


def make_voc(folder: Path, *, images: int = 12, labeled: int = 9) -> Path:
    """``images`` photographs, the first ``labeled`` with a mask, the last two of those in val."""
    names = [f"2007_{number:06d}" for number in range(images)]
    for number, name in enumerate(names):
        shape = VOC_SIZES_YX[number % len(VOC_SIZES_YX)]
        mask = _objects(number, shape, [0, 1 + number % 20, 15])
        _save(folder / "JPEGImages" / f"{name}.jpg", Image.fromarray(_photograph(number, mask)))
        if number < labeled:
            _save(folder / "SegmentationClass" / f"{name}.png", palette(_with_void(mask)))
        if number < images - 1:
            _save(folder / "SegmentationClassAug" / f"{name}.png", Image.fromarray(mask))
    train, val = names[: labeled - 2], names[labeled - 2 : labeled]
    write_lists(folder / "ImageSets" / "Segmentation", {"train": train, "val": val})
    split = folder / "splits" / "pascal" / "183"
    pair = "JPEGImages/{0}.jpg SegmentationClass/{0}.png"
    rest = [*train[4:], *names[labeled:]]
    write_lists(split, {"labeled": train[:4], "unlabeled": rest}, line=pair)
    return folder


def make_cityscapes(folder: Path, *, per_city: int = 3, kind: str = "labelIds") -> Path:
    """Streets of four cities, ``per_city`` each, annotated in ``kind``; test masks are empty."""
    stored = [label for label, _ in CITYSCAPES.values()]
    lists: dict[str, list[str]] = {split: [] for split in STREETS}
    number = 0
    for split, cities in STREETS.items():
        for city in cities:
            for shot in range(per_city):
                name, place = f"{city}_{shot:06d}_000019", f"{split}/{city}"
                classes = [0, 1 + number % 18, 13]
                mask = _objects(number, (64, 80), classes)
                street = Image.fromarray(_photograph(number, mask))
                _save(folder / "leftImg8bit" / place / f"{name}_leftImg8bit.png", street)
                if kind == "labelIds":
                    mask = np.asarray(stored, dtype=np.uint8)[mask]
                mask[-6:] = EGO_VEHICLE if kind == "labelIds" else VOID
                if split == "test":
                    mask[:] = UNLABELED_ID
                labels = Image.fromarray(mask)
                _save(folder / "gtFine" / place / f"{name}_gtFine_{kind}.png", labels)
                lists[split].append(f"{place}/{name}")
                number += 1
    line = "leftImg8bit/{0}_leftImg8bit.png gtFine/{0}_gtFine_labelTrainIds.png"
    home = folder / "splits" / "cityscapes"
    train = lists["train"]
    write_lists(home / "1_8", {"labeled": train[:3], "unlabeled": train[3:]}, line=line)
    write_lists(home, {"val": lists["val"]}, line=line)
    return folder


def write_lists(folder: Path, lists: dict[str, list[str]], *, line: str = "{0}") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, members in lists.items():
        text = "".join(f"{line.format(member)}\n" for member in members)
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")


def palette(mask: np.ndarray) -> Image.Image:
    """A picture whose pixels are indices into the colors of VOC, as its masks are."""
    image = Image.fromarray(mask).convert("P")
    colors = np.zeros((256, 3), dtype=np.uint8)
    colors[: len(VOC_CLASSES)] = [each.color for each in VOC_CLASSES]
    colors[VOID] = (224, 224, 192)
    image.putdata(mask.ravel().tolist())
    image.putpalette(colors.ravel().tolist())
    return image


def _objects(seed: int, shape_yx: tuple[int, int], classes: list[int]) -> np.ndarray:
    """Background, a box of the second class and one of the third."""
    rng = np.random.default_rng(seed)
    height, width = shape_yx
    mask = np.full(shape_yx, classes[0], dtype=np.uint8)
    for value, left in zip(classes[1:], (0, width // 2), strict=True):
        top = int(rng.integers(0, height // 4))
        mask[top + 3 : top + height // 2, left + 4 : left + width // 2 - 4] = value
    return mask


def _with_void(mask: np.ndarray) -> np.ndarray:
    """Void where neighbors differ: VOC's borders."""
    edge = np.zeros(mask.shape, dtype=bool)
    edge[:, 1:] |= mask[:, 1:] != mask[:, :-1]
    edge[1:] |= mask[1:] != mask[:-1]
    return np.where(edge, VOID, mask).astype(np.uint8)


def _photograph(seed: int, mask: np.ndarray) -> np.ndarray:
    """RGB ``(H, W, 3)``; a class has a color of its own, under noise."""
    rng = np.random.default_rng((seed, 1))
    colors = np.random.default_rng(0).integers(30, 220, (256, 3))
    noisy = colors[mask] + rng.normal(0, 12, (*mask.shape, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8)


def _save(path: Path, image: Image.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
