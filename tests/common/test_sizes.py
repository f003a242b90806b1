"""Agreement of predicted and true sizes, as a report draws it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from common.record import CASES, Look
from common.report import write_report
from common.sizes import MOST_CLASSES, size_charts
from tests.common.runs import medical


def rows(
    sizes: dict[str, tuple[list[float], list[float]]], *, metric: str = "volume"
) -> pd.DataFrame:
    """Rows of cases.csv: by class, predicted and true sizes of each case."""
    names = {"volume": ("volume_ml", "volume_truth_ml"), "area": ("area_ha", "area_truth_ha")}
    found = [
        (f"c{index}", "g", "test", name, label, value)
        for label, both in sizes.items()
        for name, values in zip(names[metric], both, strict=True)
        for index, value in enumerate(values)
    ]
    return pd.DataFrame(found, columns=list(CASES))


def found(tmp_path: Path, *names: str):
    looks = tuple(Look(name=name, color=(10, 20, 30)) for name in names)
    return medical(tmp_path, 5).model_copy(update={"classes": looks})


def test_bias_and_limits_are_those_of_the_differences(tmp_path: Path) -> None:
    predicted, true = [12.0, 9.0, 20.0, 31.0], [10.0, 10.0, 19.0, 33.0]
    (chart,) = size_charts(found(tmp_path, "liver"), rows({"liver": (predicted, true)}))
    differences = np.subtract(predicted, true)
    bias, sd = differences.mean(), differences.std(ddof=1)
    assert f"Mean difference {bias:+.3g} ml" in chart.about
    assert f"from {bias - 1.96 * sd:+.3g} to {bias + 1.96 * sd:+.3g} ml" in chart.about
    assert chart.x_label == "mean of predicted and true, ml"
    texts = [text for _, _, text in chart.lines[0].dots]
    assert texts == ["c0: +2 at 11", "c1: -1 at 9.5", "c2: +1 at 19.5", "c3: -2 at 32"]

    heights = [y for _, y, _ in chart.lines[0].dots]
    rules = {rule.text: rule.at for rule in chart.rules}
    assert rules["+1.96 sd"] < rules["mean"] < rules["-1.96 sd"]  # px grow downwards
    per_px = (differences[0] - differences[3]) / (heights[3] - heights[0])
    assert (rules["mean"] - heights[0]) * per_px == pytest.approx(differences[0] - bias, abs=0.05)


def test_areas_are_drawn_alike_and_the_largest_class_comes_first(tmp_path: Path) -> None:
    table = rows(
        {"road": ([1, 2, 3], [1, 2, 2]), "forest": ([90, 80, 70], [91, 79, 72])}, metric="area"
    )
    titles = [chart.title for chart in size_charts(found(tmp_path, "road", "forest"), table)]
    assert titles == [
        "forest: predicted less true size",
        "road: predicted less true size",
    ]


@pytest.mark.parametrize(
    ("predicted", "true", "drawn"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0),  # too few
        ([1.0, 2.0, 0.0], [1.0, 2.0, 0.0], 0),  # the third holds nothing
        ([1.0, 2.0, 0.0], [1.0, 2.0, 3.0], 1),  # but where it was missed it counts
        ([1.0, 1.0, 1.0], [1.0, 1.0, 1.0], 1),  # all alike
    ],
)
def test_cases_count_that_hold_the_class(tmp_path: Path, predicted, true, drawn: int) -> None:
    assert len(size_charts(found(tmp_path, "a"), rows({"a": (predicted, true)}))) == drawn


def test_many_classes_are_cut_to_the_largest(tmp_path: Path) -> None:
    names = [f"k{index}" for index in range(MOST_CLASSES + 5)]
    table = rows({name: ([i + 1.0] * 3, [i + 1.0] * 3) for i, name in enumerate(names)})
    charts = size_charts(found(tmp_path, *names), table)
    assert [chart.title.split(":")[0] for chart in charts] == names[::-1][:MOST_CLASSES]


def test_a_report_without_sizes_has_no_such_section(tmp_path: Path) -> None:
    medical(tmp_path, 5)
    assert "Agreement of sizes" not in write_report(tmp_path).read_text("utf-8")
