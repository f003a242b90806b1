"""A small world with weak labels of each kind."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import numpy as np
import shapely
import yaml

from common import verbs
from rsseg_ssl.adapter import rsseg
from tests.rsseg_ssl.scenes import UTM, halves, mosaic, north_up, save

SIDE = 32
ROW = "tags of 2, boxes of 1, points of 2, scribbles of 1 of 4 unlabeled cases"
ALL = {
    "tags": "tags.csv",
    "boxes": "boxes.gpkg",
    "points": "points.csv",
    "point_radius_m": 3.0,
    "scribbles": "scribbles",
}
BOXES = "case,class,row_min,row_max,column_min,column_max\n"
POINTS = "case,class,row,column\n"


def place(number: int):
    """Where tile ``t<number>`` lies: blocks of two, one tile apart."""
    return north_up(number % 2 + number // 2 * 3, side=SIDE)


def on_map(number: int, pixels: shapely.Geometry) -> shapely.Geometry:
    t = place(number)
    return shapely.transform(pixels, lambda xy: xy * [t.a, t.e] + [t.c, t.f])


def saved(path: Path, *features: tuple[object, shapely.Geometry], crs: str = UTM) -> Path:
    classes, shapes = zip(*features, strict=True)
    gpd.GeoDataFrame({"class": classes}, geometry=[*shapes], crs=crs).to_file(path)
    return path


def make_folder(home: Path) -> Path:
    """Tiles t0 to t9; t6 to t9 are unlabeled, the right half of a tile is water, the left land."""
    data = mosaic(home / "data", side=SIDE)
    (data / "tags.csv").write_text("case,class\nt6,land\nt6,water\nt7,land\nt0,land\n")
    saved(data / "boxes.gpkg", ("water", on_map(8, shapely.box(15, 0, 32, 32))))
    (data / "points.csv").write_text(f"{POINTS}t8,water,9,25\nt9,land,3,4\nt1,land,999,1\n")
    mask = np.full((1, SIDE, SIDE), 255, np.uint8)
    mask[:, 5] = halves(9, side=SIDE)[:, 5]
    save(data / "scribbles" / "t9.tif", mask, transform=place(9))
    return data


def config_of(folder: Path, weak_labels: dict | None = None, **domain: object) -> Path:
    settings = {
        "data": str(folder),
        "classes": [{"name": "land", "value": 0}, {"name": "water", "value": 1}],
        "splits": {"labeled": ["t0", "t1", "t2", "t3"], "test": ["t4", "t5"]},
        "tile": SIDE,
        "network": {"name": "unet", "encoder": "tu-mobilenetv3_small_050"},
        "batch": {"labeled": 2, "unlabeled": 4},
        "weak_labels": ALL if weak_labels is None else weak_labels,
    }
    fit = {"steps": 2, "accelerator": "cpu"}
    values = {"domain": settings | domain, "method": {"name": "fixmatch"}, "fit": fit}
    path = folder.parent / "weak.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def run_of(folder: Path, weak_labels: dict | None = None, **domain: object):
    return verbs.load(config_of(folder, weak_labels, **domain), rsseg)


def first_batch(run):
    return next(rsseg.open(rsseg.resolve(run)).batches(seed=0, first_step=0))


def problems(folder: Path, **weak_labels: object) -> list[str]:
    return [*rsseg.check(run_of(folder, weak_labels)).problems]
