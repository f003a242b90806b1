"""A starter config is complete, fits the data, and holds out whole blocks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import config
from common.adapter import Wish
from common.errors import DataError
from common.splits import OneOf
from rsseg_ssl.catalog import read_catalog
from rsseg_ssl.draft import draft
from rsseg_ssl.lots import Candidate, draw
from rsseg_ssl.settings import RssegRun
from tests.rsseg_ssl.scenes import halves, mosaic, noise, north_up, save


def loaded(folder, wish, text=None) -> RssegRun:
    path = folder / "run.yaml"
    path.write_text(text or draft(folder, wish), encoding="utf-8")
    return config.load(path, RssegRun)


def test_a_draft_loads_and_its_splits_hold_whole_blocks(tmp_path):
    folder = mosaic(tmp_path, blocks=6, labeled=8)
    run = loaded(folder, Wish(labeled=2, validation=2, test=0.2))
    found = read_catalog(run.domain)
    assert found.splits.problems == ()
    assert len(found.used("labeled")) == 2
    assert len(found.used("test")) == 2
    assert len(found.used("validation")) == 2
    assert len(found.used("unlabeled")) == 6
    assert all(not leak.touching for leak in found.leaks() if "test" in leak.splits)
    assert [each.name for each in run.domain.classes] == ["land", "water"]
    assert run.domain.bands == (1, 2, 3)
    assert run.domain.tile == 32
    assert run.method.name == "fixmatch"


def test_without_unlabeled_scenes_a_draft_is_supervised(tmp_path):
    run = loaded(tmp_path, Wish(labeled=None, test=0.2), draft(mosaic(tmp_path / "d"), Wish()))
    assert run.method.name == "supervised"
    assert run.domain.batch.unlabeled == 0


def test_names_and_classes_that_yaml_would_misread_are_quoted(tmp_path):
    place = [north_up(2 * i) for i in range(4)]
    for i, name in enumerate(("1e5", "no", "a: b", "x,y")):
        save(tmp_path / "images" / f"{name}.tif", noise(i), transform=place[i])
        save(tmp_path / "masks" / f"{name}.tif", halves(i), transform=place[i])
    run = loaded(tmp_path, Wish(labeled=1, test=0.25))
    names = {
        case.id for split in ("labeled", "test") for case in read_catalog(run.domain).used(split)
    }
    assert names <= {"1e5", "no", "a: b", "x,y"}
    assert len(names) == 2
    assert [each.name for each in run.domain.classes] == ["class_0", "class_1"]


def test_one_carpet_of_tiles_is_split_by_squares(tmp_path):
    for i in range(16):
        place = north_up(i % 4, i // 4)
        save(tmp_path / "images" / f"t{i}.tif", noise(i), transform=place)
        save(tmp_path / "masks" / f"t{i}.tif", halves(i), transform=place)
    run = loaded(tmp_path, Wish(labeled=2, test=0.25))
    assert run.domain.blocks.name == "squares"
    found = read_catalog(run.domain)
    assert found.used("test")
    assert found.splits.problems == ()
    assert any(leak.touching for leak in found.leaks())  # which check and report then say


def test_scenes_without_a_single_annotated_pixel_are_not_chosen(tmp_path):
    folder = mosaic(tmp_path)
    for i in (0, 2, 4):
        save(folder / "images" / f"t{i}.tif", np.zeros((3, 16, 16), np.uint8), nodata=0)
        save(folder / "masks" / f"t{i}.tif", halves(i))
    run = loaded(folder, Wish(labeled=3, test=0.0))
    assert not {"t0", "t2", "t4"} & {*run.domain.splits.labeled}


def test_a_manifest_keeps_its_own_splits(tmp_path):
    folder = mosaic(tmp_path / "d")
    rows = ["image,mask,split"]
    for i in range(10):
        split = {0: "test", 1: "test", 2: "labeled"}.get(i, "")
        rows.append(f"d/images/t{i}.tif,d/masks/t{i}.tif,{split}")
    (tmp_path / "m.csv").write_text("\n".join(rows))
    (tmp_path / "classes.json").write_text((folder / "classes.json").read_text())
    run = loaded(tmp_path, Wish(), draft(tmp_path / "m.csv", Wish(labeled=5)))
    assert run.domain.splits.labeled == ("t2",)
    assert run.domain.splits.test == ("t0", "t1")


def test_a_draft_of_bad_data_lists_its_problems(tmp_path):
    folder = mosaic(tmp_path)
    (folder / "images" / "t0.tif").write_text("no raster")
    save(folder / "masks" / "t1.tif", halves(1, values=(0, 9)), transform=north_up(1))
    with pytest.raises(DataError, match=r"(?s)3 problems.*t0.*t1"):
        draft(folder, Wish())


def test_a_list_of_labeled_scenes_may_carry_file_endings(tmp_path):
    folder = mosaic(tmp_path)
    (tmp_path / "list.txt").write_text("t3.tif\nt6\n")
    run = loaded(folder, Wish(labeled=tmp_path / "list.txt"))
    assert run.domain.splits.labeled == ("t3", "t6")
    (tmp_path / "list.txt").write_text("t33.tif\n")
    with pytest.raises(DataError, match=r"no case 't33' with a label. Did you mean"):
        draft(folder, Wish(labeled=tmp_path / "list.txt"))


CANDIDATES = st.lists(
    st.tuples(
        st.integers(0, 7), st.dictionaries(st.integers(0, 3), st.integers(1, 500), min_size=1)
    ),
    min_size=4,
    max_size=25,
).map(
    lambda rows: [Candidate(f"s{i}", f"b{block}", pixels) for i, (block, pixels) in enumerate(rows)]
)


@settings(max_examples=80, deadline=None)
@given(CANDIDATES, st.integers(0, 5), st.floats(0, 0.5))
def test_lots_keep_blocks_whole_and_grow_with_the_wish(candidates, seed, share):
    wish = Wish(labeled=1, validation=2, test=share, seed=seed)
    try:
        one = draw(candidates, wish, given={})
        more = draw(candidates, Wish(labeled=2, validation=2, test=share, seed=seed), given={})
    except DataError:
        return
    assert set(one.labeled) <= set(more.labeled)
    assert (one.test, one.validation) == (more.test, more.validation)
    block_of = {each.name: each.block for each in candidates}
    blocks = [
        {block_of[name] for name in names} for names in (one.labeled, one.validation, one.test)
    ]
    assert not blocks[0] & blocks[1]
    assert not blocks[0] & blocks[2]
    assert not blocks[1] & blocks[2]


def test_folds_test_every_block_once():
    candidates = [Candidate(f"s{n:02d}", f"b{n // 3}", {0: 60, n % 2: 80}) for n in range(18)]
    tested = []
    for number in range(1, 4):
        drawn = draw(candidates, Wish(labeled=2, test=OneOf(number, 3)), given={})
        blocks = {each.name: each.block for each in candidates}
        assert not {blocks[n] for n in drawn.test} & {blocks[n] for n in drawn.labeled}
        tested += drawn.test
    assert sorted(tested) == [each.name for each in candidates]


def test_the_first_labeled_scenes_show_every_class():
    plain = [Candidate(f"p{i}", f"p{i}", {0: 900}) for i in range(20)]
    rare = [Candidate("r1", "r1", {0: 5, 1: 80}), Candidate("r2", "r2", {2: 3})]
    for seed in range(5):
        drawn = draw([*plain, *rare], Wish(labeled=3, test=0.0, seed=seed), given={})
        assert {"r1", "r2"} <= {*drawn.labeled}


def test_too_large_a_wish_is_refused_in_words():
    some = [Candidate(f"s{i}", f"b{i}", {0: 1}) for i in range(5)]
    with pytest.raises(DataError, match=r"^9 labeled scenes were asked for, but after .* 4 annot"):
        draw(some, Wish(labeled=9, test=0.2), given={})
