from __future__ import annotations

from pathlib import Path

import pytest

from common.caveats import alarms, caveats
from common.record import Evaluation, read_cases, read_summary
from tests.common import runs


def warnings(folder: Path, found: Evaluation, log: dict | None = None) -> str:
    cases, summary = read_cases(folder / "cases.csv"), read_summary(folder / "summary.csv")
    return "\n".join(caveats(found, cases, summary, log or {}))


@pytest.fixture
def found(tmp_path: Path) -> Evaluation:
    return runs.medical(tmp_path, 20)


def test_a_class_that_the_filter_never_kept_is_named(tmp_path: Path, found: Evaluation) -> None:
    log = {"coverage/1": [(20, 0.0), (500, 0.0)], "share/1": [(20, 0.1), (500, 0.2)]}

    assert (
        "The filter kept 0.0 % of class 'anterior' in steps 20 to 500: no pseudo-label taught it."
        in warnings(tmp_path, found, log)
    )


def test_a_class_that_was_never_predicted_is_told_apart(tmp_path: Path, found: Evaluation) -> None:
    log = {"coverage/1": [(20, 0.0), (500, 0.0)], "share/1": [(20, 0.0), (500, 0.0)]}

    text = warnings(tmp_path, found, log)
    assert "Class 'anterior' was never predicted on unlabeled images in steps 20 to 500" in text
    assert "The filter kept" not in text


def test_a_class_that_was_kept_late_is_named_with_its_step(
    tmp_path: Path, found: Evaluation
) -> None:
    log = {"coverage/2": [(20, 0.0), (1000, 0.4), (2000, 0.6)]}

    assert "0.0 % of class 'posterior' before step 1,000" in warnings(tmp_path, found, log)


def test_a_class_kept_from_the_start_is_no_warning(tmp_path: Path, found: Evaluation) -> None:
    log = {"coverage/2": [(20, 0.3), (1000, 0.4)], "share/2": [(20, 0.3), (1000, 0.4)]}

    assert "posterior" not in warnings(tmp_path, found, log)


def test_structures_missed_altogether_are_counted_with_their_cases(
    tmp_path: Path, found: Evaluation
) -> None:
    assert (
        "Class 'anterior' was missed altogether in 1 of 20 cases that hold it: hippocampus_008."
        in (warnings(tmp_path, found))
    )


@pytest.mark.parametrize(
    ("split", "words"),
    [
        ("labeled", "were trained on"),
        ("unlabeled", "transductive"),
        ("validation", "chosen on these cases"),
    ],
)
def test_a_split_that_training_saw_is_no_fair_judge(
    tmp_path: Path, found: Evaluation, split: str, words: str
) -> None:
    assert words in warnings(tmp_path, found.model_copy(update={"split": split}))
    assert words not in warnings(tmp_path, found)


def test_few_groups_make_rough_intervals(tmp_path: Path, found: Evaluation) -> None:
    text = warnings(tmp_path, found.model_copy(update={"groups": 3}))

    assert "The intervals rest on 3 groups (patients or spatial blocks) only" in text


def test_cases_without_label_or_value_are_named(tmp_path: Path, found: Evaluation) -> None:
    scores = found.scores | {"hippocampus_003": None}
    text = warnings(
        tmp_path, found.model_copy(update={"scores": scores, "unmeasured": ("x1", "x2")})
    )

    assert "2 cases without a label, predicted but not measured: x1, x2." in text
    assert "The headline is not defined in 1 case, which the ranking leaves out: hippo" in text


def test_pseudo_labels_that_are_mostly_wrong_are_named(tmp_path: Path, found: Evaluation) -> None:
    labels = found.pseudo_labels
    assert labels is not None
    quality = labels.quality.model_copy(
        update={"kept": (10.0, 10.0, 0.0), "right": (9.0, 2.0, 0.0)}
    )
    changed = labels.model_copy(update={"quality": quality})

    text = warnings(tmp_path, found.model_copy(update={"pseudo_labels": changed}))

    assert "Most kept pseudo-labels of class 'anterior' are wrong: 20.0 % of them" in text
    assert "'posterior' are wrong" not in text


def test_the_warnings_of_the_domain_come_last(tmp_path: Path, found: Evaluation) -> None:
    text = warnings(tmp_path, found.model_copy(update={"warnings": ("two tiles touch.",)}))

    assert text.endswith("\ntwo tiles touch.")


def test_a_filter_that_kept_nothing_is_said_once(tmp_path: Path, found: Evaluation) -> None:
    log = {"coverage": [(20, 0.0), (500, 0.0)], "coverage/1": [(20, 0.0), (500, 0.0)]}

    text = warnings(tmp_path, found, log)
    assert "The filter kept 0.0 % of all unlabeled pixels in steps 20 to 500" in text
    assert "of class 'anterior'" not in text


def test_a_filter_that_drops_nothing_is_an_alarm_only_where_it_should(
    tmp_path: Path, found: Evaluation
) -> None:
    log = {"coverage": [(20, 1.0), (500, 1.0)]}
    made = runs.diagnose(tmp_path, found)
    everything = made.model_copy(update={"filter": "all"})

    assert "kept 100.0 % of all unlabeled pixels" in "".join(alarms(found.classes, log, made))
    assert not alarms(found.classes, log, everything)
    assert not alarms(found.classes, log, None)


def test_a_class_that_vanished_is_named_with_its_last_step(
    tmp_path: Path, found: Evaluation
) -> None:
    share = [(step, 0.1 if step <= 300 else 0.0) for step in range(20, 1001, 20)]

    text = warnings(tmp_path, found, {"share/1": share, "share/2": [(20, 0.1), (1000, 0.1)]})
    assert "Class 'anterior' vanished from the predictions on unlabeled images after step 300" in (
        text
    )
    assert "'posterior' vanished" not in text


def test_classes_that_drift_from_the_labeled_cases_are_named(
    tmp_path: Path, found: Evaluation
) -> None:
    made = runs.diagnose(tmp_path, found).model_copy(update={"prior": (0.9, 0.08, 0.02)})
    log = {f"share/{k}": [(10 * i, v) for i in range(30)] for k, v in enumerate((0.8, 0.02, 0.03))}

    said = alarms(found.classes, log, made)
    assert len(said) == 1
    assert "Class 'anterior' is predicted for 2.0 % of the unlabeled pixels" in said[0]
    assert "holds 8.0 % of the labeled cases" in said[0]
