"""Scenes of poor classes come more often, with all of their windows."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from common import verbs
from common.adapter import Wish
from rsseg_ssl import reader
from rsseg_ssl.adapter import rsseg
from rsseg_ssl.batches import LabeledPool
from rsseg_ssl.domain import Scenes
from rsseg_ssl.settings import RssegSettings
from tests.rsseg_ssl.scenes import mosaic, north_up, save

SHORT = ["domain.tile=32", "domain.batch={labeled: 2, unlabeled: 2}", "domain.network.weights=null"]


@pytest.fixture
def domain(tmp_path: Path) -> Scenes:
    """``t0`` is all land, and twice as wide and high as a tile; ``t2`` shows both classes."""
    folder = mosaic(tmp_path / "data", blocks=5, per_block=2, side=32)
    land = np.zeros((1, 64, 64), dtype=np.uint8)
    place = north_up(-20, side=32)
    save(folder / "masks" / "t0.tif", land, transform=place)
    save(folder / "images" / "t0.tif", np.full((3, 64, 64), 9, np.uint8), transform=place)
    path = tmp_path / "run.yaml"
    path.write_text(rsseg.draft(folder, Wish(labeled=2)), encoding="utf-8")
    splits = "domain.splits={labeled: [t0, t2], unlabeled: [t4, t5], test: [t8]}"
    return rsseg.open(rsseg.resolve(verbs.load(path, rsseg, [*SHORT, splits])))


def test_a_scene_tells_what_it_shows_and_unlabeled_masks_stay_closed(
    domain: Scenes, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []
    real = reader.opened
    monkeypatch.setattr(reader, "opened", lambda path: opened.append(path) or real(path))
    assert domain.shown() == {"t0": {0}, "t2": {0, 1}}
    assert {path.stem for path in opened if path.parent.name == "masks"} <= {"t0", "t2"}


def test_every_window_of_a_scene_is_drawn_as_often_as_its_scene_asks(
    domain: Scenes, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: Counter[str] = Counter()
    real = LabeledPool.draw

    def draw(pool: LabeledPool, index: int, rng: np.random.Generator) -> object:
        drawn[f"{pool.names[index]}.{index}"] += 1
        return real(pool, index, rng)

    monkeypatch.setattr(LabeledPool, "draw", draw)
    stream = domain.batches(seed=0, first_step=0, extra={"t2": 3})
    for _ in range(4):  # 4 windows of t0, and 4 times the one of t2
        next(stream)
    assert drawn == {"t0.0": 1, "t0.1": 1, "t0.2": 1, "t0.3": 1, "t2.4": 4}


@pytest.mark.parametrize(
    ("names", "background"),
    [(("land", "water"), None), (("Background", "dog"), 0), (("dog", "background"), 1)],
)
def test_a_background_is_a_class_of_that_name(
    domain: Scenes, names: tuple[str, str], background: int | None
) -> None:
    classes = [{"name": name, "value": value} for value, name in enumerate(names)]
    values = domain.settings.model_dump() | {"classes": classes}
    settings = RssegSettings.model_validate(values)
    assert Scenes(settings).task.background == background
