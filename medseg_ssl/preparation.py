"""What training reads, made beforehand: several cases at once, as far as memory has room."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import NamedTuple

from common.domain import Watch
from common.errors import DataError
from medseg_ssl.allowance import OVERHEAD, THREADS, Allowance, stored_bytes
from medseg_ssl.cases import read_geometry
from medseg_ssl.preprocess import Recipe, grid_of


@dataclass(frozen=True, slots=True)
class Wanted:
    """Arrays that are made of files of one case."""

    case: str
    images: Sequence[Path]  # whose grid they lie on, preprocessed
    files: Sequence[Path]  # that are read for it
    path: Path  # of the array that is written last
    make: Callable[[], object]
    bytes_per_voxel: int  # of what is written


class Cost(NamedTuple):
    """What it takes to make something, in bytes."""

    memory: int
    disk: int


def prepare(
    wanted: Iterable[Wanted], recipe: Recipe, folder: Path, *, memory_mb: int, watch: Watch
) -> None:
    """Make what is missing. What is made by then is kept, whatever ends this.

    Args:
        wanted: What is made already is skipped.
        recipe: How it is made.
        folder: The cache it is written to.
        memory_mb: What the cases that are made at once may take; a larger one is made alone.
        watch: Hears of each case that is made.

    Raises:
        DataError: Naming the case whose files cannot be used; or when the cache cannot be written,
            or has no room, which is found out before anything is made.
    """
    missing: dict[str, list[Wanted]] = {}
    for each in wanted:
        if not each.path.exists():
            missing.setdefault(each.case, []).append(each)
    if not missing:
        return
    allowance = Allowance(memory_mb)
    with ThreadPoolExecutor(THREADS) as pool:
        costs = [*pool.map(lambda each: _cost(each, recipe), missing.values())]
        _require_room(folder, [cost.disk for cost in costs])
        each_with_cost = zip(missing.items(), costs, strict=True)
        tasks = {pool.submit(_make, own, c, allowance): case for (case, own), c in each_with_cost}
        try:
            for number, task in enumerate(as_completed(tasks), 1):
                task.result()
                watch(f"preprocessed {tasks[task]}", number, len(tasks))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # those that have begun are finished
            raise


def _cost(wanted: Sequence[Wanted], recipe: Recipe) -> Cost:
    """One after another: the memory of the largest, the disk of all."""
    try:
        geometry = read_geometry(wanted[0].images)
        grid = grid_of(geometry, recipe)
        read = max(stored_bytes(each.files) for each in wanted)
    except DataError as error:
        raise _blaming(wanted[0].case, error) from None
    voxels = prod(grid.shape)
    made = voxels * sum(each.bytes_per_voxel for each in wanted)
    result = 4 * grid.channels * voxels
    return Cost(memory=read + prod(geometry.shape) + result + OVERHEAD, disk=made)


def _make(wanted: Sequence[Wanted], cost: Cost, allowance: Allowance) -> None:
    with allowance.take(cost.memory):
        for each in wanted:
            try:
                each.make()
            except DataError as error:
                raise _blaming(each.case, error) from error
            except MemoryError:
                raise DataError(
                    f"case '{each.case}' needs {cost.memory / 2**30:.1f} GiB of memory to be "
                    "preprocessed, which this machine does not have. Set a coarser "
                    "domain.spacing_mm, or crop its image and label."
                ) from None


def _blaming(case: str, error: DataError) -> DataError:
    name = f"case '{case}'"
    return error if name in str(error) else DataError(f"{name}: {error}")


def _require_room(folder: Path, needed: Sequence[int]) -> None:
    there = next(each for each in [folder, *folder.parents] if each.exists())
    free = shutil.disk_usage(there).free
    if sum(needed) > free:
        raise DataError(
            f"the cache {folder} needs {sum(needed) / 2**30:.1f} GiB for {len(needed)} cases, and "
            f"{free / 2**30:.1f} are free. Free some space, or set domain.cache to another folder."
        )
