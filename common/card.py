"""What one must know before a trained model is used: its model card [1].

What no program can know, such as who may use the model and for what, stands in a file ``card.toml``
that a person writes into the run folder; it changes no result. The card says where it is silent.

[1] Mitchell et al., Model Cards for Model Reporting, 2019, arXiv:1810.03993.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from common.display import plural
from common.errors import RunError
from common.record import Evaluation
from common.splits import closest
from common.subgroups import SubgroupTable

FILE = "card.toml"

STATEMENTS = {
    "intended_use": "Intended use",
    "not_for": "Not for",
    "data_source": "Source of the data",
    "license": "License",
    "contact": "Contact",
}
"""Keys of the file, and their headings."""


class Entry(NamedTuple):
    """One paragraph of a card, or several."""

    heading: str
    lines: Sequence[str]
    stated: bool = True  # False where a person has still to say it


class Facts(NamedTuple):
    """What the report knows already."""

    model: str  # what was trained, how and by which software
    result: str  # the headline and its interval
    warnings: Sequence[str]
    subgroups: Sequence[SubgroupTable]


def read_statements(folder: Path) -> dict[str, str]:
    """What a person says in ``folder/card.toml``, by its keys; nothing where there is no file.

    Raises:
        RunError: When the file is no TOML, or says something else.
    """
    path = folder / FILE
    if not path.exists():
        return {}
    try:
        said = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(
            f"'{path}' is not TOML: {error}. Write lines such as intended_use = \"...\"."
        ) from None
    for key, value in said.items():
        if key not in STATEMENTS:
            raise RunError(
                f"'{path}': unknown key '{key}'; expected {', '.join(STATEMENTS)}."
                f"{closest(key, [*STATEMENTS])}"
            )
        if not isinstance(value, str):
            raise RunError(f"'{path}': {key} must be a text in quotes; got {value!r}.")
    return {key: value.strip() for key, value in said.items() if value.strip()}


def card(said: dict[str, str], found: Evaluation, facts: Facts) -> list[Entry]:
    """The card, entry by entry.

    Args:
        said: By a person.
        found: The evaluation that it rests on.
        facts: Of the run.
    """
    return [
        Entry("Model", [facts.model]),
        _stated(said, "intended_use"),
        _stated(said, "not_for"),
        Entry("Trained on", [_trained_on(found)]),
        _stated(said, "data_source"),
        Entry("Evaluated on", [_evaluated_on(found)]),
        Entry("Result", [facts.result]),
        Entry("Subgroups", _subgroups(facts.subgroups)),
        Entry("Limits", [*found.limits, *facts.warnings]),
        _stated(said, "license"),
        _stated(said, "contact"),
    ]


def as_markdown(name: str, entries: Sequence[Entry]) -> str:
    """The card as a file that travels with the model."""
    lines = [f"# Model card: {name}", ""]
    for entry in entries:
        bullet = "- " if len(entry.lines) > 1 else ""
        lines += [f"## {entry.heading}", "", *(f"{bullet}{line}" for line in entry.lines), ""]
    return "\n".join(lines)


def _stated(said: dict[str, str], key: str) -> Entry:
    if key in said:
        return Entry(STATEMENTS[key], [said[key]])
    return Entry(STATEMENTS[key], [f'Not stated: write {key} = "..." into {FILE}.'], stated=False)


def _trained_on(found: Evaluation) -> str:
    counts = {split: len(names) for split, names in found.splits.items()}
    known = dict(found.data)
    what = next((known[key] for key in ("channels", "bands") if key in known), "")
    classes = ", ".join(look.name for look in found.classes)
    return (
        f"{counts.get('labeled', 0):,} labeled and {counts.get('unlabeled', 0):,} unlabeled "
        f"cases{f' ({what})' if what else ''}; the checkpoint "
        f"{_chosen(counts.get('validation', 0))}. Classes: {classes}."
    )


def _chosen(validation: int) -> str:
    if not validation:
        return "is the last one, chosen on nothing"
    return f"was chosen on {plural(validation, 'validation case')}"


def _evaluated_on(found: Evaluation) -> str:
    return (
        f"Split {found.split}: {plural(len(found.scores), 'case')} in "
        f"{plural(found.groups, 'group')} (patients, or spatial blocks)."
    )


def _subgroups(tables: Sequence[SubgroupTable]) -> list[str]:
    lines = [
        f"{table.column}: "
        + "; ".join(f"{row.value} {row.mean} ({plural(row.cases, 'case')})" for row in table.rows)
        for table in tables
        if table.rows
    ]
    return lines or ["None was looked at: the data names no scanner, site, sex or the like."]
