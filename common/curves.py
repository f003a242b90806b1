"""From log.csv to the curves of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from common.charts import Chart, Series, line_chart, rank_chart
from common.display import heading
from common.journal import read_log
from common.paints import INK, of_class, of_palette
from common.record import Evaluation, Look

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


BY_CLASS = (
    (
        "Pseudo-labels on validation cases, right",
        "Share of what the filter kept there that is right, by class: what teaching is worth.",
        "held_out_right",
        [1.0],
    ),
    (
        "Pseudo-labels on validation cases, kept",
        "Share of the pixels that the filter kept there, by predicted class.",
        "held_out_kept",
        [0.0, 1.0],
    ),
    (
        "Calibration error on validation cases",
        "ECE by predicted class: by how much confidence and the share of right pixels differ.",
        "held_out_ece",
        [0.0],
    ),
    (
        "Predicted classes",
        "Share of the unlabeled pixels that each class was predicted for.",
        "share",
        [0.0, 1.0],
    ),
)
"""Title, what it is about, quantity of the log, values that the axis shows in any case."""


def curves(found: Evaluation, log: Log) -> list[Chart]:
    """Losses, validation, pseudo-labels by class: those that the log knows."""
    wanted = [
        (
            "Losses",
            "Mean since the point before; the total is what training minimizes.",
            _starting_with(log, "loss/"),
            [0.0],
        ),
        (
            "Validation",
            "On validation cases; the best point is the network that was evaluated.",
            _starting_with(log, "validation/"),
            [],
        ),
        (
            "Coverage",
            "Share of the unlabeled pixels that the filter kept, by predicted class.",
            [*_one(log, "coverage", "all classes"), *by_class(log, "coverage", found.classes)],
            [0.0, 1.0],
        ),
        *(
            (title, about, by_class(log, quantity, found.classes), shows)
            for title, about, quantity, shows in BY_CLASS
        ),
        (
            "Agreement on validation cases",
            "Share of the pixels for which teachers and students, or all peers, name one class.",
            _one(log, "held_out_agreement", "all of them"),
            [1.0],
        ),
    ]
    return [
        line_chart(title, about, series, shows=shows)
        for title, about, series, shows in wanted
        if series
    ]


def _one(log: Log, quantity: str, name: str) -> list[Series]:
    return [Series(name, INK, log[quantity])] if quantity in log else []


def _starting_with(log: Log, prefix: str) -> list[Series]:
    names = [name for name in log if name.startswith(prefix)]
    return [
        Series(_title(name.removeprefix(prefix)), of_palette(index), log[name])
        for index, name in enumerate(names)
    ]


def by_class(log: Log, quantity: str, classes: Sequence[Look]) -> list[Series]:
    """A line for each class that the log knows, in its own color."""
    found = ((look, log.get(f"{quantity}/{index}")) for index, look in enumerate(classes))
    return [Series(look.name, of_class(look.color), points) for look, points in found if points]


def _title(quantity: str) -> str:
    """``dice/mean`` to ``Dice, mean``."""
    return heading(*quantity.split("/", maxsplit=1))
