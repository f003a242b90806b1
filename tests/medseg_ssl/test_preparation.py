from __future__ import annotations

import shutil
import threading
import time
from collections import namedtuple

import numpy as np
import pytest

from common.errors import DataError
from medseg_ssl import preparation
from medseg_ssl.allowance import OVERHEAD, Allowance, stored_bytes
from medseg_ssl.cases import VolumeCase
from medseg_ssl.layouts import read_catalog
from medseg_ssl.preparation import prepare
from medseg_ssl.preprocess import Recipe
from medseg_ssl.store import Store
from tests.medseg_ssl.volumes import image_and_label, oblique, plain, save

MB = 2**20


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "cache", Recipe(spacing_mm=(1, 1, 2)))


@pytest.fixture
def cases(tmp_path):
    found = read_catalog(plain(tmp_path / "data", cases=4, labeled=2)).cases
    return [VolumeCase(c.id, c.group, c.images, c.label, values=(0, 1, 4)) for c in found]


def make(store, cases, *, memory_mb=4096, watch=lambda *_: None):
    images = [store.wanted_volume(case, 1) for case in cases]
    wanted = [*images, *(store.wanted_target(case) for case in cases if case.label)]
    prepare(wanted, store.recipe, store.folder, memory_mb=memory_mb, watch=watch)


def held_together(sizes_mb, memory_mb):
    """What was ever held together, by threads that each take one of ``sizes_mb``."""
    allowed, held, together, lock = Allowance(memory_mb), [], [], threading.Lock()

    def work(size):
        with allowed.take(size * MB):
            with lock:
                held.append(size)
                together.append([*held])
            time.sleep(0.01)
            with lock:
                held.remove(size)

    threads = [threading.Thread(target=work, args=(size,)) for size in sizes_mb]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(together) == len(sizes_mb)
    return together


def test_no_more_is_taken_at_once_than_is_allowed():
    together = held_together([3, 5, 4, 2, 6, 1, 5, 3], memory_mb=8)
    assert max(sum(each) for each in together) <= 8
    assert max(len(each) for each in together) > 1


def test_what_is_larger_than_all_that_is_allowed_is_taken_alone():
    together = held_together([3, 50, 4, 60, 1], memory_mb=8)
    assert all(len(each) == 1 for each in together if max(each) > 8)


def test_what_raises_gives_back_what_it_took():
    allowed = Allowance(1)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), allowed.take(MB):
            _ = 1 / 0


@pytest.mark.parametrize(("memory_mb", "at_once"), [(1, 1), (2 * OVERHEAD // MB + 1, 2)])
def test_as_many_cases_are_made_at_once_as_memory_has_room_for(
    store, cases, monkeypatch, memory_mb, at_once
):
    inside, most, really = [], [], preparation._make

    def watched(wanted, cost, allowed):
        assert OVERHEAD < cost.memory < OVERHEAD + MB // 2
        first = wanted[0]

        def slowly():
            inside.append(first.case)
            most.append(len(inside))
            time.sleep(0.02)
            inside.remove(first.case)

        slow = preparation.Wanted(first.case, first.images, [], first.path, slowly, 0)
        really([slow, *wanted], cost, allowed)

    monkeypatch.setattr(preparation, "THREADS", 4)
    monkeypatch.setattr(preparation, "_make", watched)
    make(store, cases, memory_mb=memory_mb)
    assert max(most) == at_once
    assert len(most) == len(cases)


def test_each_case_that_is_made_is_told_once(store, cases):
    told = []
    make(store, cases[:1])
    make(store, cases, watch=lambda *said: told.append(said))
    assert sorted(what for what, _, _ in told) == [f"preprocessed c{n}" for n in (1, 2, 3)]
    assert [(done, total) for _, done, total in told] == [(1, 3), (2, 3), (3, 3)]
    make(store, cases, watch=lambda *_: pytest.fail("all is made"))


def test_a_case_that_cannot_be_made_is_named_and_the_others_are_kept(store, cases, tmp_path):
    image, _ = image_and_label()
    image[0] = np.nan
    path = save(tmp_path / "deep" / "scan.nii.gz", image)
    broken = VolumeCase("patient 7", "patient 7", (path,))
    with pytest.raises(DataError, match=r"^case 'patient 7': .*scan.nii.gz holds NaN or infinite"):
        make(store, [*cases, broken], memory_mb=1)
    assert not [*store.folder.glob("scan*")]
    assert not [*store.folder.glob(".*")]
    make(store, cases)


def test_a_file_that_cannot_be_opened_is_told_with_its_case(store, cases):
    cases[1].images[0].write_bytes(b"")
    with pytest.raises(DataError, match=r"^case 'c1': .* cannot be read"):
        make(store, cases)


def test_what_is_interrupted_goes_on_where_it_was(store, cases, monkeypatch):
    monkeypatch.setattr(preparation, "THREADS", 1)
    really = Store.volume

    def slowly(self, images):
        time.sleep(0.05)
        return really(self, images)

    def interrupt(what, done, total):
        raise KeyboardInterrupt

    monkeypatch.setattr(Store, "volume", slowly)
    with pytest.raises(KeyboardInterrupt):
        make(store, cases, watch=interrupt)
    made = len([*store.folder.glob("*.image.npy")])
    assert 1 <= made < len(cases)
    told = []
    make(store, cases, watch=lambda *said: told.append(said))
    assert len(told) == len(cases) - made


def test_memory_that_is_not_to_be_had_is_told_with_its_remedy(store, cases, monkeypatch):
    def without_memory(*_):
        raise MemoryError

    monkeypatch.setattr("medseg_ssl.store.preprocess", without_memory)
    with pytest.raises(DataError) as error:
        make(store, cases[2:3])
    assert str(error.value) == (
        "case 'c2' needs 0.1 GiB of memory to be preprocessed, which this machine does not have. "
        "Set a coarser domain.spacing_mm, or crop its image and label."
    )


def test_a_disk_without_room_is_told_before_anything_is_made(store, cases, monkeypatch):
    usage = namedtuple("Usage", "total used free")
    needed = 14 * 12 * 6 * (4 * 4 + 2)  # voxels at 1 x 1 x 2 mm; four images and two labels
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, needed - 1))
    with pytest.raises(DataError) as error:
        make(store, cases)
    assert str(error.value) == (
        f"the cache {store.folder} needs 0.0 GiB for 4 cases, and 0.0 are free. Free some space, "
        "or set domain.cache to another folder."
    )
    assert not store.folder.exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, needed))
    make(store, cases)


def test_files_take_what_their_headers_say(tmp_path):
    one = save(tmp_path / "a.nii.gz", np.zeros((3, 4, 5), np.int16))
    other = save(tmp_path / "b.nii.gz", np.zeros((3, 4, 5, 2), np.float32), oblique())
    assert stored_bytes([one, other]) == 3 * 4 * 5 * (2 + 2 * 4)
