"""What binds an imaging domain to the command line: the second door, for whole commands."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from common.config import Run
from common.domain import Domain, Findings
from common.errors import ConfigError
from common.shipping import Cargo
from common.splits import OneOf


@dataclass(frozen=True, slots=True)
class Wish:
    """What a user asks of a starter config."""

    labeled: int | Path | None = None  # how many cases keep their label, or a list of them
    validation: int = 0  # labeled cases held out to choose the best checkpoint
    test: float | OneOf = 0.2  # of the annotated cases held out for the end: a share, or a fold
    seed: int = 0


def held_out(text: str) -> float | OneOf:
    """What ``--test`` says of the annotated cases: a share, or one of several folds.

    Raises:
        ConfigError: When it is neither.
    """
    if "/" in text:
        return OneOf.read(text, "--test")
    with contextlib.suppress(ValueError):
        if 0 <= float(text) < 1:
            return float(text)
    raise ConfigError(f"--test {text}: give a share such as 0.2, or a fold such as 2/5.")


def file_name(case_id: str) -> str:
    """A case name that is safe as a file name."""
    return case_id.replace("/", "_").replace(os.sep, "_")


def repeated(names: Sequence[str]) -> list[str]:
    """A problem for each name that two inputs share: their outputs would be one file."""
    return [
        f"two inputs are called '{name}' and would overwrite each other. Rename one."
        for name, count in sorted(Counter(names).items())
        if count > 1
    ]


class Adapter(Protocol):
    """One imaging domain, as the command line sees it."""

    name: str  # of the command: "medseg-ssl"
    schema: type[Run]

    def inspect(self, folder: Path) -> Findings:
        """What is in a folder (or a manifest), and what is wrong with it. Never raises for data."""

    def draft(self, folder: Path, wish: Wish) -> str:
        """A complete, commented, ready-to-train YAML text, chosen from the data.

        Raises:
            DataError: Naming every problem at once.
        """

    def check(self, run: Run) -> Findings:
        """Everything about the data of ``run`` that can go wrong later, found now."""

    def resolve(self, run: Run) -> Run:
        """``run`` with all that its data decides filled in, so that it can be repeated."""

    def for_prediction(self, run: Run) -> Run:
        """A resolved ``run`` that fetches no first weights: its checkpoint brings them."""

    def cargo(self, run: Run) -> Cargo:
        """What others must know to use the network of a resolved run, and the formats for it."""

    def open(self, run: Run) -> Domain:
        """The domain of a resolved run. Touches no data of its splits until asked."""
