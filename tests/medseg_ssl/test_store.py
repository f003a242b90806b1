from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from common.errors import DataError
from medseg_ssl.cases import VolumeCase
from medseg_ssl.layouts import read_catalog
from medseg_ssl.preparation import prepare
from medseg_ssl.preprocess import Recipe, Volume, foreground_voxels, preprocess, preprocess_label
from medseg_ssl.store import Store
from tests.medseg_ssl.volumes import image_and_label, plain, save


def stored_case(tmp_path):
    image, label = image_and_label()
    paths = save(tmp_path / "i.nii.gz", image), save(tmp_path / "l.nii.gz", label)
    return VolumeCase("x", "x", (paths[0],), paths[1], values=(0, 1, 4))


def test_the_store_answers_what_preprocessing_makes(tmp_path):
    case, recipe = stored_case(tmp_path), Recipe(spacing_mm=(1, 1, 2))
    store = Store(tmp_path / "cache", recipe)
    made, stored = preprocess(case.images, recipe), store.volume(case.images)
    assert isinstance(stored.image, np.memmap)
    np.testing.assert_array_equal(stored.image, made.image)
    np.testing.assert_array_equal(stored.affine, made.affine)
    np.testing.assert_array_equal(store.target(case), preprocess_label(case, recipe))
    np.testing.assert_array_equal(
        store.foreground(case), foreground_voxels(preprocess_label(case, recipe))
    )


def test_the_store_makes_each_array_once(tmp_path, monkeypatch):
    case, recipe = stored_case(tmp_path), Recipe(spacing_mm=(1, 1, 2))
    Store(tmp_path / "cache", recipe).volume(case.images)
    monkeypatch.setattr("medseg_ssl.store.preprocess", lambda *_: pytest.fail("made again"))
    Store(tmp_path / "cache", recipe).volume(case.images)


def test_a_changed_file_or_recipe_is_never_answered_with_an_old_array(tmp_path):
    case, cache = stored_case(tmp_path), tmp_path / "cache"
    old = np.array(Store(cache, Recipe(spacing_mm=(1, 1, 2))).volume(case.images).image)
    coarse = Store(cache, Recipe(spacing_mm=(2, 2, 2))).volume(case.images).image
    assert coarse.shape != old.shape
    save(case.images[0], image_and_label(5)[0])
    new = Store(cache, Recipe(spacing_mm=(1, 1, 2))).volume(case.images).image
    assert not np.array_equal(new, old)


def test_other_label_values_make_other_targets(tmp_path):
    case, recipe = stored_case(tmp_path), Recipe(spacing_mm=(1, 1, 1))
    store = Store(tmp_path / "cache", recipe)
    swapped = VolumeCase("x", "x", case.images, case.label, values=(0, 4, 1))
    assert not np.array_equal(store.target(case), store.target(swapped))


def test_many_builders_of_one_array_leave_one_whole_array(tmp_path):
    case, recipe = stored_case(tmp_path), Recipe(spacing_mm=(1, 1, 1))
    found: list[Volume] = []

    def build():
        found.append(Store(tmp_path / "cache", recipe).volume(case.images))

    threads = [threading.Thread(target=build) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = preprocess(case.images, recipe).image
    assert len(found) == 6
    assert all(np.array_equal(volume.image, expected) for volume in found)
    assert not [*(tmp_path / "cache").glob(".*")]


def test_a_full_disk_is_told_with_its_remedy(tmp_path, monkeypatch):
    case = stored_case(tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("medseg_ssl.store.np.save", full)
    with pytest.raises(DataError) as error:
        Store(tmp_path / "cache", Recipe(spacing_mm=(1, 1, 1))).volume(case.images)
    assert str(error.value) == (
        f"the cache {tmp_path / 'cache'} cannot be written (No space left on device). Free some "
        "space, or set domain.cache to another folder."
    )
    assert [*(tmp_path / "cache").iterdir()] == []


def test_headers_of_arrays_are_parsed_by_one_thread_at_a_time(tmp_path, monkeypatch):
    store = Store(tmp_path / "cache", Recipe(spacing_mm=(1, 1, 1)))
    cases = read_catalog(plain(tmp_path / "data")).cases
    load, inside, most = np.load, [], []

    def watched(path, mmap_mode=None):
        inside.append(path)
        most.append(len(inside))
        time.sleep(0.01)
        inside.pop()
        return load(path, mmap_mode=mmap_mode)

    monkeypatch.setattr(np, "load", watched)
    wanted = [store.wanted_volume(case, 1) for case in cases]
    prepare(wanted, store.recipe, store.folder, memory_mb=4096, watch=lambda *_: None)
    assert most == [1] * 2 * len(cases)
