"""A run folder to report.html: one page that opens offline and tells the whole story."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from common import display
from common.card import Facts, as_markdown, card, read_statements
from common.caveats import caveats
from common.curves import curves, ranks, read_curves
from common.display import heading, plural, share, shown
from common.errors import RunError
from common.evidence import evidence
from common.record import (
    Evaluation,
    Look,
    Quality,
    read_cases,
    read_diagnosis,
    read_evaluation,
    read_summary,
    write_whole,
)
from common.sizes import size_charts
from common.subgroups import subgroup_tables
from common.tables import case_table, confusion_table, forest_table, metric_tables, overview

HERE = Path(__file__).parent
MEDIA = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}


def write_report(folder: Path) -> Path:
    """Write ``folder/report.html``, and model_card.md beside it, from the files there alone.

    Reads evaluation.json, cases.csv and summary.csv, and where they exist diagnosis.json,
    run.yaml, environment.json, log.csv, card.toml and the figures. The same files give the same
    page.

    Raises:
        RunError: When the folder holds no evaluation, or a file of it is not readable.
    """
    found = read_evaluation(folder / "evaluation.json")
    if found is None:
        raise RunError(f"'{folder}' holds no evaluation.json: evaluate the run first.")
    content = _content(folder, found)
    page = _environment().get_template("report.html.j2").render(content)
    write_whole(folder / "report.html", page)
    write_whole(folder / "model_card.md", as_markdown(content["name"], content["card"]))
    return folder / "report.html"


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": display.number,
        "percent": display.percent,
        "plural": display.plural,
    }
    return environment


def _content(folder: Path, found: Evaluation) -> dict[str, Any]:
    """All that the template asks for."""
    cases = read_cases(folder / "cases.csv")
    splits = {str(name): part["case"].nunique() for name, part in cases.groupby("split")}
    cases = cases[cases["split"] == found.split]
    summary = read_summary(folder / "summary.csv")
    config = _text(folder / "run.yaml")
    log = read_curves(folder / "log.csv")
    diagnosis = read_diagnosis(folder / "diagnosis.json")
    headline, warnings = _headline(found, summary), caveats(found, cases, summary, log, diagnosis)
    subgroups = subgroup_tables(found, dict(zip(cases["case"], cases["group"], strict=True)))
    environment = _record(folder / "environment.json")
    facts = Facts(_model(found, config, environment), headline.in_words, warnings, subgroups)
    return {
        "name": folder.resolve().name,
        "found": found,
        "question": _question(found, config),
        "headline": headline,
        "warnings": warnings,
        "card": card(read_statements(folder), found, facts),
        "ranks": ranks(found),
        "forest": forest_table(found, summary),
        "overview": overview(found, summary),
        "metrics": metric_tables(found, summary),
        "cases": case_table(found, cases),
        "confusion": confusion_table(found, cases),
        "sizes": size_charts(found, cases),
        "subgroups": subgroups,
        "curves": curves(found, log),
        "validated": any(name.startswith("validation/") for name in log),
        "pictures": _pictures(folder, found),
        "pseudo": _pseudo(found),
        "evidence": evidence(diagnosis, log) if diagnosis else None,
        "others": {name: count for name, count in splits.items() if name != found.split},
        "config": config,
        "environment": environment,
    }


@dataclass(frozen=True, slots=True)
class Headline:
    """The number a report opens with."""

    title: str
    value: str
    unit: str
    interval: str
    better: str

    @property
    def in_words(self) -> str:
        """The number with its unit and interval, for a sentence."""
        unit = f" {self.unit}" if self.unit else ""
        known = f", 95 % interval {self.interval}{unit}" if self.interval else ", no interval"
        return f"{self.title}: {self.value}{unit}{known}."


def _headline(found: Evaluation, summary: pd.DataFrame) -> Headline:
    metric, name = found.headline
    chosen = summary[(summary["metric"] == metric) & (summary["class"] == name)]
    if chosen.empty:
        raise RunError(f"'summary.csv' holds no '{metric}' of '{name}'. Evaluate the run again.")
    value, low, high = (float(chosen[key].iloc[0]) for key in ("value", "low", "high"))
    known = shown(metric)
    return Headline(
        title=f"{known.name}, {name}" if name else known.name,
        value=display.number(value, metric),
        unit=known.unit,
        interval=display.ends(low, high, metric),
        better=known.better,
    )


def _question(found: Evaluation, config: str | None) -> str:
    """What was asked, in one sentence or two."""
    method, steps = _setting(config, "method", "name"), _setting(config, "fit", "steps")
    who = method.replace("_", " ") if method else "the trained network"
    how = f"{who} tell {plural(len(found.classes), 'class')} apart"
    counts = {name: len(cases) for name, cases in found.splits.items()}
    taught = [f"{counts['labeled']:,} labeled"] if counts.get("labeled") else []
    if counts.get("unlabeled") and method != "supervised":
        taught.append(f"{counts['unlabeled']:,} unlabeled")
    training = f" after {int(steps):,} steps" if steps and steps.isdigit() else ""
    training += f" on {' and '.join(taught)} cases" if taught else ""
    judged = f"Judged on {plural(len(found.scores), 'case')}"
    judged += f", predicted by {found.asked}." if found.asked else "."
    return f"How well does {how}{training}? {judged}"


def _model(found: Evaluation, config: str | None, environment: list[tuple[str, str]]) -> str:
    """What was trained, how, and by which software, in a sentence."""
    method, steps = _setting(config, "method", "name"), _setting(config, "fit", "steps")
    seed = re.search(r"^seed: (\d+)", config or "", flags=re.MULTILINE)
    parts = [
        dict(found.data).get("network", "network"),
        *([f"method {method}"] if method else []),
        *([f"{int(steps):,} steps"] if steps and steps.isdigit() else []),
        *([f"seed {seed[1]}"] if seed else []),
        *(f"{what} {how}" for what, how in environment if what == "seg-ssl"),
    ]
    return f"{', '.join(parts)}."


def _setting(config: str | None, section: str, key: str) -> str | None:
    """One value of run.yaml as saved: ``key`` directly below ``section``."""
    pattern = rf"^{section}:\n(?:  .*\n)*?  {key}: (.+)$"
    match = re.search(pattern, config or "", flags=re.MULTILINE)
    return match.group(1).strip("'\" ") if match else None


@dataclass(frozen=True, slots=True)
class Shot:
    """A figure as it stands in the page."""

    source: str | None  # a data URI; None where the file is gone
    rank: str
    case: str
    score: str
    path: str


def _pictures(folder: Path, found: Evaluation) -> list[Shot]:
    metric, name = found.headline
    shots = []
    for picture in found.pictures:
        path = folder / picture.path
        media = MEDIA.get(path.suffix.lower())
        source = None
        if media and path.is_file():
            source = f"data:{media};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"
        score = f"{heading(metric, name)}: {display.number(picture.score, metric)}"
        shots.append(Shot(source, picture.rank, picture.case, score, picture.path))
    return shots


@dataclass(frozen=True, slots=True)
class PseudoRow:
    """Pseudo-labels of one predicted class."""

    name: str
    look: Look | None
    share: float  # of all predicted pixels
    coverage: float
    precision: float


@dataclass(frozen=True, slots=True)
class PseudoTable:
    """Pseudo-labels under one filter: all classes together, then each."""

    name: str
    rows: Sequence[PseudoRow]


def _pseudo(found: Evaluation) -> list[PseudoTable]:
    """Under the filter of the run first, then under other thresholds; none where not judged."""
    labels = found.pseudo_labels
    if labels is None:
        return []
    return [_pseudo_table(found, each) for each in (labels.quality, *labels.thresholds)]


def _pseudo_table(found: Evaluation, quality: Quality) -> PseudoTable:
    whole = sum(quality.predicted)

    def row(name: str, look: Look | None, predicted: float, kept: float, right: float) -> PseudoRow:
        return PseudoRow(
            name, look, share(predicted, whole), share(kept, predicted), share(right, kept)
        )

    together = row("all classes", None, whole, sum(quality.kept), sum(quality.right))
    counts = zip(found.classes, quality.predicted, quality.kept, quality.right, strict=True)
    return PseudoTable(quality.name, [together, *(row(each[0].name, *each) for each in counts)])


def _text(path: Path) -> str | None:
    if not path.exists():
        return None
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"'{path}' cannot be read: {error}.") from None


def _record(path: Path) -> list[tuple[str, str]]:
    """The rows of environment.json, flat."""
    try:
        values = json.loads(_text(path) or "{}")
    except json.JSONDecodeError as error:
        raise RunError(f"'{path}' is not JSON: {error}. Remove it, or train again.") from None
    return [*_flat(values, "")]


def _flat(values: object, name: str) -> Iterator[tuple[str, str]]:
    if not isinstance(values, dict):
        yield name, "not known" if values is None else str(values)
        return
    for key, value in values.items():
        yield from _flat(value, str(key))
