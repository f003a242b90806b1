"""What an evaluation leaves in the run folder: cases.csv, summary.csv and evaluation.json.

A report is made from these files alone, so it can be made again without the data.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TypeVar

import pandas as pd
from pydantic import BaseModel, ConfigDict, ValidationError

from common.errors import RunError

CASES = ("case", "group", "split", "metric", "class", "value")
SUMMARY = ("metric", "class", "value", "low", "high", "median", "q1", "q3", "n")
TEXT = {"case": str, "group": str, "split": str, "metric": str, "class": str}


class Part(BaseModel):
    """A piece of evaluation.json. What is not a finite number is written as null."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Look(Part):
    """A class, and how it is drawn."""

    name: str
    color: tuple[int, int, int]  # RGB, 0..255


class Picture(Part):
    """One figure of one case."""

    path: str  # relative to the run folder
    case: str
    rank: str  # "worst", "median", "best"; "only" of a single case
    score: float | None  # the headline metric of this case


class Quality(Part):
    """Pixels of pseudo-labels by predicted class, summed over cases."""

    name: str  # the filter in words
    predicted: tuple[float, ...]  # pixels whose truth is known
    kept: tuple[float, ...]  # their trust
    right: tuple[float, ...]  # the trust of those that are right


class PseudoLabels(Part):
    """How good the pseudo-labels are, by a truth that training never saw."""

    cases: tuple[str, ...]
    unlabeled: int  # how many cases the split holds
    seed: int  # of the choice of cases
    quality: Quality  # under the filter of the run
    thresholds: tuple[Quality, ...]  # had it been a confidence of this height


class Held(Part):
    """Pixels predicted as one class, summed over cases."""

    pixels: tuple[float, ...]
    right: tuple[float, ...]
    confidence: tuple[float, ...]  # summed


class Diagnosis(Part):
    """What pseudo-labels are worth on cases that taught nothing: diagnosis.json."""

    split: str  # "validation", or "unlabeled" where nothing else has a truth
    cases: tuple[str, ...]
    held: int  # how many cases the split holds
    seed: int  # of the choice of cases
    filter: str  # of the run, with its refiners, in words
    precision: float  # that the suggested thresholds are for
    classes: tuple[Look, ...]
    thresholds: tuple[float, ...]
    curves: tuple[Held, ...]  # of each class, from each threshold on
    diagram: tuple[Held, ...]  # of each class, in equal steps of confidence from 0 to 1
    errors: tuple[float | None, ...]  # ECE of each class; None of one never predicted
    error: float  # of all pixels
    suggested: tuple[float | None, ...]  # None: no threshold has that precision
    confusion: tuple[tuple[float, ...], ...]  # trust of what is kept, by truth and prediction
    distances: tuple[Quality, ...]  # of what is kept, by distance to the nearest border
    prior: tuple[float, ...]  # share of each class in labeled cases; empty: not known
    seconds: float  # that it took


class Evaluation(Part):
    """All that cases.csv and summary.csv do not say."""

    split: str
    asked: str = ""  # in words, where predictions are not simply those of the run
    headline: tuple[str, str]  # (metric, class)
    scores: dict[str, float | None]  # case -> its headline metric; None where not defined
    groups: int
    unmeasured: tuple[str, ...]  # cases without truth: predicted only
    classes: tuple[Look, ...]
    data: tuple[tuple[str, str], ...]
    rules: tuple[str, ...]
    warnings: tuple[str, ...]
    limits: tuple[str, ...] = ()  # of what such a model can be asked
    splits: dict[str, tuple[str, ...]]  # split -> case names
    subgroups: dict[str, dict[str, str]] = {}  # column -> case -> subgroup; empty: too many
    pictures: tuple[Picture, ...]
    pseudo_labels: PseudoLabels | None  # None where no hidden truth exists, or nobody asked
    draws: int  # of the bootstrap
    seed: int  # of the bootstrap
    seconds: float  # that the evaluation took


P = TypeVar("P", bound=Part)


def beside(folder: Path, output: Path) -> Path:
    """``output``, with what a report says of the run in ``folder``.

    Raises:
        RunError: When ``output`` holds something else than an evaluation.
    """
    if output.exists() and any(output.iterdir()) and not (output / "evaluation.json").exists():
        raise RunError(f"'{output}' holds something else. Choose a new folder for --output.")
    output.mkdir(parents=True, exist_ok=True)
    for name in ("run.yaml", "environment.json", "log.csv", "card.toml"):
        if (folder / name).exists():
            shutil.copy2(folder / name, output / name)
    return output


def write_whole(path: Path, text: str) -> None:
    """Write ``path`` completely or not at all.

    Raises:
        RunError: When it cannot be written.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8", newline="")
        os.replace(temporary, path)  # noqa: PTH105
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RunError(
            f"'{path}' could not be written: {error}. Make room on the disk, or make the folder "
            "writable, and evaluate again."
        ) from error


def read_cases(path: Path) -> pd.DataFrame:
    """The rows of a cases.csv; none where there is no file.

    Raises:
        RunError: When the file holds something else.
    """
    return _read(path, CASES)


def read_summary(path: Path) -> pd.DataFrame:
    """The rows of a summary.csv; none where there is no file.

    Raises:
        RunError: When the file holds something else.
    """
    return _read(path, SUMMARY)


def read_evaluation(path: Path) -> Evaluation | None:
    """What an evaluation.json says; None where there is no file.

    Raises:
        RunError: When the file holds something else.
    """
    return _parsed(path, Evaluation, "Evaluate the run again.")


def read_diagnosis(path: Path) -> Diagnosis | None:
    """What a diagnosis.json says; None where there is no file.

    Raises:
        RunError: When the file holds something else.
    """
    return _parsed(path, Diagnosis, "Diagnose the run again.")


def _parsed(path: Path, kind: type[P], remedy: str) -> P | None:
    if not path.exists():
        return None
    try:
        return kind.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(key) for key in first["loc"]) or "the file"
        raise RunError(
            f"'{path}' is not what an evaluation writes: {where}: {first['msg']}. {remedy}"
        ) from None


def _read(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    """A table whose texts stay text: a case may be named 007 or NA."""
    if not path.exists():
        return pd.DataFrame(columns=list(columns))
    numbers = {name: ["", "nan", "NaN"] for name in columns if name not in TEXT}
    try:
        found = pd.read_csv(path, dtype=TEXT, keep_default_na=False, na_values=numbers)
    except (OSError, ValueError) as error:
        raise RunError(f"'{path}' is not a table: {error}. Evaluate the run again.") from None
    if tuple(found.columns) != columns:
        raise RunError(
            f"'{path}' has the columns {', '.join(map(str, found.columns))}; expected "
            f"{', '.join(columns)}. Evaluate the run again."
        )
    return found
