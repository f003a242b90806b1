"""From log.csv to the curves of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from common.charts import Chart, line_chart, rank_chart
from common.display import heading
from common.journal import read_log
from common.record import Evaluation

Log = Mapping[str, Sequence[tuple[float, float]]]
"""Quantity to ``(step, value)``, in order."""


def read_curves(path: Path) -> Log:
    """The quantities of a log.csv; none where there is no file."""
    found: dict[str, list[tuple[float, float]]] = {}
    for step, quantity, value in read_log(path):
        found.setdefault(quantity, []).append((step, value))
    return found


def ranks(found: Evaluation) -> Chart | None:
    """Every case by its headline metric; None of fewer than three."""
    scores = [(case, score) for case, score in found.scores.items() if score is not None]
    if len(scores) < 3:
        return None
    title = heading(*found.headline)
    return rank_chart(f"{title}, case by case", "One dot is one case.", scores)


def curves(found: Evaluation, log: Log) -> list[Chart]:
    """Losses, coverage, predicted classes, validation: those that the log knows."""
    classes = [look.name for look in found.classes]
    kept = [("all classes", log["coverage"])] if "coverage" in log else []
    wanted = [
        (
            "Losses",
            "Mean since the point before; the total is what training minimizes.",
            [(name.removeprefix("loss/"), log[name]) for name in log if name.startswith("loss/")],
            [0.0],
        ),
        (
            "Validation",
            "On validation cases; the best point is the network that was evaluated.",
            [(_quantity(name), log[name]) for name in log if name.startswith("validation/")],
            [],
        ),
        (
            "Coverage",
            "Share of the unlabeled pixels that the filter kept, by predicted class.",
            [*kept, *_by_class(log, "coverage", classes)],
            [0.0, 1.0],
        ),
        (
            "Predicted classes",
            "Share of the unlabeled pixels that each class was predicted for.",
            _by_class(log, "share", classes),
            [0.0, 1.0],
        ),
    ]
    return [
        line_chart(title, about, series, shows=shows)
        for title, about, series, shows in wanted
        if series
    ]


def _by_class(
    log: Log, quantity: str, classes: Sequence[str]
) -> list[tuple[str, Sequence[tuple[float, float]]]]:
    named = ((name, log.get(f"{quantity}/{index}")) for index, name in enumerate(classes))
    return [(name, points) for name, points in named if points]


def _quantity(name: str) -> str:
    """``validation/dice/mean`` to ``Dice, mean``."""
    _, metric, *rest = name.split("/", maxsplit=2)
    return heading(metric, *rest)
