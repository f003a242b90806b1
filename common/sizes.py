"""Predicted against true sizes of classes, case by case, as Bland and Altman draw them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from common.charts import Chart, difference_chart
from common.display import shown
from common.paints import of_class
from common.record import Evaluation, Look

SIZES = (("volume_ml", "volume_truth_ml"), ("area_ha", "area_truth_ha"))
"""Metrics of predicted and true size."""
LEAST_CASES = 3
MOST_CLASSES = 12


def size_charts(found: Evaluation, cases: pd.DataFrame) -> list[Chart]:
    """A chart for each class that three cases or more hold, of the largest classes [1].

    A case whose prediction and truth both lack the class is left out.

    [1] Bland and Altman, Statistical methods for assessing agreement between two methods of
        clinical measurement, Lancet 1986.

    Args:
        found: The evaluation, for names and colors of the classes.
        cases: Rows of cases.csv of its split.
    """
    charts = [
        (largest, chart)
        for predicted, true in SIZES
        for look in found.classes
        for largest, chart in _of_class(cases, look, predicted=predicted, true=true)
    ]
    return [chart for _, chart in sorted(charts, key=lambda pair: -pair[0])[:MOST_CLASSES]]


def _of_class(
    cases: pd.DataFrame, look: Look, *, predicted: str, true: str
) -> Iterator[tuple[float, Chart]]:
    mine = cases[(cases["class"] == look.name) & cases["metric"].isin([predicted, true])]
    wide = mine.pivot(index="case", columns="metric", values="value")
    if not {predicted, true} <= {*wide.columns}:
        return
    both = wide[[predicted, true]].dropna()
    both = both[(both > 0).any(axis=1)]
    if len(both) < LEAST_CASES:
        return
    unit = shown(predicted).unit
    differences = (both[predicted] - both[true]).to_numpy()
    bias, spread = float(np.mean(differences)), float(np.std(differences, ddof=1))
    points = [
        (str(case), float(row.mean()), float(row[predicted] - row[true]))
        for case, row in both.iterrows()
    ]
    yield (
        float(both[true].mean()),
        difference_chart(
            f"{look.name}: predicted less true size",
            f"One dot is one case. Mean difference {bias:+.3g} {unit}; 95 % of the differences are "
            f"expected from {bias - 1.96 * spread:+.3g} to {bias + 1.96 * spread:+.3g} {unit}.",
            points,
            paint=of_class(look.color),
            rules=[
                (bias, "mean"),
                (bias - 1.96 * spread, "-1.96 sd"),
                (bias + 1.96 * spread, "+1.96 sd"),
            ],
            x_label=f"mean of predicted and true, {unit}",
        ),
    )
