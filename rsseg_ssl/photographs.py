"""Photographs in the folders of PASCAL VOC [1] and of Cityscapes [2]: which file is what.

[1] Everingham et al., The PASCAL visual object classes challenge: a retrospective, IJCV 2015.
[2] Cordts et al., The Cityscapes dataset, CVPR 2016, arXiv:1604.01685.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from common.errors import DataError
from common.splits import read_names
from rsseg_ssl.entries import (
    RASTERS,
    VIEW,
    Entry,
    Layout,
    Named,
    paired,
    scene_name,
    without_image,
)

VOID = 255
BANDS = ("red", "green", "blue")

VOC_CLASSES = tuple(
    Named(name, value, color)
    for value, (name, color) in enumerate(
        {
            "background": (0, 0, 0),
            "aeroplane": (128, 0, 0),
            "bicycle": (0, 128, 0),
            "bird": (128, 128, 0),
            "boat": (0, 0, 128),
            "bottle": (128, 0, 128),
            "bus": (0, 128, 128),
            "car": (128, 128, 128),
            "cat": (64, 0, 0),
            "chair": (192, 0, 0),
            "cow": (64, 128, 0),
            "diningtable": (192, 128, 0),
            "dog": (64, 0, 128),
            "horse": (192, 0, 128),
            "motorbike": (64, 128, 128),
            "person": (192, 128, 128),
            "pottedplant": (0, 64, 0),
            "sheep": (128, 64, 0),
            "sofa": (0, 192, 0),
            "train": (128, 192, 0),
            "tvmonitor": (0, 64, 128),
        }.items()
    )
)

CITYSCAPES = {  # class: (id in labelIds files, color); their order is that of the train ids [2]
    "road": (7, (128, 64, 128)),
    "sidewalk": (8, (244, 35, 232)),
    "building": (11, (70, 70, 70)),
    "wall": (12, (102, 102, 156)),
    "fence": (13, (190, 153, 153)),
    "pole": (17, (153, 153, 153)),
    "traffic light": (19, (250, 170, 30)),
    "traffic sign": (20, (220, 220, 0)),
    "vegetation": (21, (107, 142, 35)),
    "terrain": (22, (152, 251, 152)),
    "sky": (23, (70, 130, 180)),
    "person": (24, (220, 20, 60)),
    "rider": (25, (255, 0, 0)),
    "car": (26, (0, 0, 142)),
    "truck": (27, (0, 0, 70)),
    "bus": (28, (0, 60, 100)),
    "train": (31, (0, 80, 100)),
    "motorcycle": (32, (0, 0, 230)),
    "bicycle": (33, (119, 11, 32)),
}
CITYSCAPES_CLASSES = tuple(
    Named(name, value, color) for value, (name, (_, color)) in enumerate(CITYSCAPES.items())
)
TRAIN_IDS = tuple((label, value) for value, (label, _) in enumerate(CITYSCAPES.values()))


def voc(data: Path, masks: str | None) -> Layout:
    """``JPEGImages/NAME.jpg`` and ``SegmentationClass/NAME.png``, or masks of another folder.

    Images of ``ImageSets/Segmentation/val.txt`` are for testing, as in papers.
    """
    folder = masks or "SegmentationClass"
    entries, problems, warnings = paired(data / "JPEGImages", data / folder)
    names = {entry.id for entry in entries if entry.mask}
    try:
        val = data / "ImageSets" / "Segmentation" / "val.txt"
        judged = {scene_name(line, names) for line in read_names(val)} if val.exists() else set()
    except DataError as error:
        judged, problems = set(), [*problems, str(error)]
    augmented = "SegmentationClassAug"
    unused = masks is None and (data / augmented).is_dir()
    return Layout(
        kind=f"PASCAL VOC, masks of {folder}/" + (f", not of {augmented}/" if unused else ""),
        entries=tuple(
            Entry(entry.id, entry.images, entry.mask, split="test" if entry.id in judged else None)
            for entry in entries
        ),
        classes=VOC_CLASSES,
        ignore=(VOID,),
        bands=BANDS,
        problems=tuple(problems),
        warnings=tuple(warnings),
        masks=folder,
        photographs=True,
    )


def cityscapes(data: Path, masks: str | None) -> Layout:
    """``leftImg8bit/SPLIT/CITY/NAME_leftImg8bit.png`` and masks of the 34 ids or 19 train ids.

    Masks are ``gtFine/SPLIT/CITY/NAME_gtFine_labelIds.png``, or else ``..._labelTrainIds.png``;
    ``gtCoarse`` likewise. The masks of the split ``test`` are empty and not used. Images of
    ``val`` are for testing, as in papers; those of one city are one block.
    """
    folder = masks or "gtFine"
    files = (data / "leftImg8bit").glob("*/*/*")
    images = sorted(path for path in files if path.suffix.lower() in RASTERS)
    entries = [_street(data / folder, image) for image in images]
    counts = Counter(path.parts[-3] for path in images)
    twice = [name for name, n in Counter(entry.id for entry in entries).items() if n > 1]
    problems = [f"image '{name}' is in leftImg8bit/ more than once. Keep one." for name in twice]
    if not images:
        problems.append(f"'{data / 'leftImg8bit'}' holds no image SPLIT/CITY/NAME{VIEW}.png.")
    return Layout(
        kind=f"Cityscapes, masks of {folder}/; "
        + ", ".join(f"{split} {count}" for split, count in sorted(counts.items())),
        entries=tuple(entries),
        classes=CITYSCAPES_CLASSES,
        ignore=(VOID,),
        bands=BANDS,
        problems=tuple(problems),
        warnings=tuple(_unused(data / folder, entries)),
        masks=folder,
        photographs=True,
    )


def _street(annotations: Path, image: Path) -> Entry:
    split, city = image.parts[-3:-1]
    name = image.stem.removesuffix(VIEW)
    stem = annotations / split / city / f"{name}_{annotations.name}"
    ids, train_ids = (stem.with_name(f"{stem.name}_{k}.png") for k in ("labelIds", "labelTrainIds"))
    found = None if split == "test" else next((p for p in (ids, train_ids) if p.exists()), None)
    return Entry(
        id=name,
        images=(image,),
        mask=found,
        group=city,
        split="test" if split == "val" and found else None,
        recode=TRAIN_IDS if found == ids else (),
    )


def _unused(annotations: Path, entries: list[Entry]) -> list[str]:
    used = {entry.id for entry in entries}
    ending = f"_{annotations.name}_label"
    masks = {path.name.partition(ending)[0] for path in annotations.glob(f"*/*/*{ending}*.png")}
    return without_image(sorted(masks - used))
