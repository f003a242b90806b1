"""What happened in a run, step by step: log.csv, for people, and events, for TensorBoard."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from pathlib import Path

from torch.utils.tensorboard.writer import SummaryWriter

COLUMNS = ("step", "quantity", "value")


class Journal:
    """Appends to ``folder/log.csv`` and to the TensorBoard events beside it.

    A resumed run first drops what an earlier one wrote after ``first_step``, so the log holds
    every step once.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        self.path = folder / "log.csv"
        kept = [row for row in read_log(self.path) if row[0] <= first_step]
        temporary = self.path.with_suffix(".tmp")
        with temporary.open("w", newline="") as file:
            csv.writer(file).writerows([COLUMNS, *kept])
        os.replace(temporary, self.path)  # noqa: PTH105
        self._events = SummaryWriter(str(folder / "events"), purge_step=first_step + 1)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Record ``values`` after ``step`` optimizer steps."""
        with self.path.open("a", newline="") as file:
            csv.writer(file).writerows((step, name, value) for name, value in values.items())
        for name, value in values.items():
            self._events.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush the events."""
        self._events.close()


def read_log(path: Path) -> list[tuple[int, str, float]]:
    """The rows of a log.csv; none where there is no file. A torn last line is dropped."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        whole = [line for line in file if line.endswith("\n")]
    return [(int(step), name, float(value)) for step, name, value in csv.reader(whole[1:])]
