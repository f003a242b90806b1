"""Metrics against their definitions, written out naively."""

from __future__ import annotations

import math
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st
from scipy.ndimage import generate_binary_structure
from torch import Tensor

from common import evaluate
from common.batch import IGNORE
from common.errors import ShapeError
from common.record import CASES
from medseg_ssl.measures import (
    AVERAGED,
    COUNTED,
    HEADLINE,
    MeasureSettings,
    measure_volume,
    rules,
    summarize,
)

SPACING_MM = (0.5, 1.0, 7.5)
CLASSES = ("background", "near", "far")
NEIGHBORS = np.argwhere(generate_binary_structure(3, 1)) - 1


def probs(labels: Tensor, classes: int = 3) -> Tensor:
    return torch.nn.functional.one_hot(labels, classes).movedim(-1, 0).float()


def measured(
    predicted: Tensor, truth: Tensor, spacing_mm=SPACING_MM, tolerance_mm: float = 1.0
) -> dict[tuple[str, str], float]:
    found = measure_volume(
        probs(predicted),
        truth,
        spacing_mm=spacing_mm,
        classes=CLASSES,
        settings=MeasureSettings(nsd_tolerance_mm=tolerance_mm),
    )
    table = {(metric, label): value for metric, label, value in found}
    assert len(table) == len(found)
    return table


def blobs(seed: int, shape=(12, 10, 8)) -> Tensor:
    """Two ragged classes, one of which touches the border."""
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*[np.arange(n) for n in shape], indexing="ij")
    labels = np.zeros(shape, dtype=np.int64)
    for index, base in ((1, (0.0, 3.0, 4.0)), (2, (8.0, 6.0, 4.0))):
        center = np.array(base) + rng.uniform(-1, 1, 3)
        distance = sum((a - c) ** 2 for a, c in zip(axes, center, strict=True))
        labels[distance + 3 * rng.standard_normal(shape) < 10] = index
    return torch.from_numpy(labels)


def surface_mm(mask: np.ndarray, spacing_mm) -> np.ndarray:
    """Places of the voxels with a face neighbor outside; beyond the border is outside."""
    padded = np.pad(mask, 1)
    inside = [
        index
        for index in np.argwhere(padded)
        if not all(padded[tuple(index + step)] for step in NEIGHBORS)
    ]
    return np.array(inside, dtype=float) * np.array(spacing_mm)


def pieces(mask: np.ndarray) -> int:
    """Connected pieces, by walking from voxel to voxel."""
    left, count = {tuple(index) for index in np.argwhere(mask)}, 0
    while left:
        count, walking = count + 1, [left.pop()]
        while walking:
            here = walking.pop()
            near = {n for n in left if max(abs(a - b) for a, b in zip(n, here, strict=True)) == 1}
            left -= near
            walking += near
    return count


def naive(predicted: np.ndarray, truth: np.ndarray, spacing_mm) -> dict[str, float]:
    both, joint = (predicted & truth).sum(), (predicted | truth).sum()
    a, b = surface_mm(predicted, spacing_mm), surface_mm(truth, spacing_mm)
    between = np.linalg.norm(a[:, None] - b[None], axis=-1)
    there, back = between.min(1), between.min(0)
    return {
        "dice": 2 * both / (predicted.sum() + truth.sum()),
        "iou": both / joint,
        "precision": both / predicted.sum(),
        "recall": both / truth.sum(),
        "hd95_mm": max(np.percentile(there, 95), np.percentile(back, 95)),
        "hd_mm": max(there.max(), back.max()),
        "assd_mm": np.concatenate([there, back]).mean(),
        "components": pieces(predicted),
        "components_truth": pieces(truth),
        "volume_ml": predicted.sum() * np.prod(spacing_mm) / 1000,
        "volume_truth_ml": truth.sum() * np.prod(spacing_mm) / 1000,
        "volume_error_percent": 100 * (predicted.sum() / truth.sum() - 1),
    }


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), SPACING_MM])
def test_each_metric_is_what_its_definition_says(seed, spacing_mm):
    predicted, truth = blobs(2 * seed), blobs(2 * seed + 1)
    table = measured(predicted, truth, spacing_mm)
    for index, name in ((1, "near"), (2, "far")):
        expected = naive((predicted == index).numpy(), (truth == index).numpy(), spacing_mm)
        for metric, value in expected.items():
            assert table[metric, name] == pytest.approx(value, rel=1e-5, abs=1e-6), metric


def test_nsd_of_two_parallel_slabs_is_the_share_of_surface_within_tolerance():
    """Two slabs, 2 mm apart on one face: the far face agrees, the near face does not."""
    truth, predicted = torch.zeros(2, 30, 30, 10, dtype=torch.long)
    truth[:, :, 2:8] = 1
    predicted[:, :, 2:6] = 1
    close = measured(predicted, truth, (1.0, 1.0, 1.0), tolerance_mm=1.0)["nsd", "near"]
    wide = measured(predicted, truth, (1.0, 1.0, 1.0), tolerance_mm=2.0)["nsd", "near"]
    thick = measured(predicted, truth, (1.0, 1.0, 3.0), tolerance_mm=2.0)["nsd", "near"]
    ring = 30**2 - 28**2  # of the near face: as close to the sides as the tolerance
    total = 2 * 900 + 120 * 4 + 2 * 900 + 120 * 6
    assert close == pytest.approx((900 + 120 * 4 + ring + 900 + 120 * 5) / total, rel=0.05)
    assert wide == pytest.approx(1.0)
    ring = 30**2 - 26**2
    total = 2 * 900 + 120 * 12 + 2 * 900 + 120 * 18
    assert thick == pytest.approx((900 + 120 * 12 + ring + 900 + 120 * 14) / total, rel=0.05)


@effort(deadline=None, max_examples=25)
@given(seed=st.integers(0, 999), wider=st.floats(0.0, 5.0))
def test_a_wider_tolerance_agrees_no_less_and_all_shares_lie_in_0_to_1(seed, wider):
    predicted, truth = blobs(seed, (6, 5, 4)), blobs(seed + 1, (6, 5, 4))
    narrow = measured(predicted, truth, tolerance_mm=0.5)
    table = measured(predicted, truth, tolerance_mm=0.5 + wider)
    for (metric, name), value in table.items():
        if metric in ("dice", "iou", "nsd", "precision", "recall") and not math.isnan(value):
            assert 0 <= value <= 1 + 1e-6
            assert metric != "nsd" or value >= narrow[metric, name] - 1e-6


@effort(deadline=None, max_examples=25)
@given(seed=st.integers(0, 999))
def test_truth_against_itself_is_perfect(seed):
    truth = blobs(seed)
    table = measured(truth, truth)
    for name in ("near", "far", "mean"):
        assert [table[m, name] for m in AVERAGED] == pytest.approx([1, 1, 1, 0, 0, 0])
    for name in ("near", "far"):
        assert table["volume_error_ml", name] == table["volume_error_percent", name] == 0
        assert all(table[metric, name] == 0 for metric in COUNTED)


def test_swapping_prediction_and_truth_swaps_precision_with_recall_and_keeps_distances():
    one, other = blobs(5), blobs(6)
    there, back = measured(one, other), measured(other, one)
    for name in ("near", "far"):
        assert there["precision", name] == back["recall", name]
        assert there["volume_error_ml", name] == -back["volume_error_ml", name]
        for metric in AVERAGED:
            assert there[metric, name] == pytest.approx(back[metric, name], rel=1e-5)


def test_a_missed_class_scores_zero_and_the_diagonal_and_is_counted():
    truth = blobs(0)
    predicted = truth.where(truth != 2, 0)
    table = measured(predicted, truth)
    diagonal_mm = math.sqrt((12 * 0.5) ** 2 + 10**2 + (8 * 7.5) ** 2)
    assert [table[m, "far"] for m in ("dice", "iou", "nsd", "precision", "recall")] == [0] * 5
    assert table["hd95_mm", "far"] == table["assd_mm", "far"] == pytest.approx(diagonal_mm)
    assert table["volume_error_percent", "far"] == -100
    assert [table[metric, "far"] for metric in COUNTED] == [1, 0, 0]
    assert table["dice", "mean"] == pytest.approx(0.5)
    assert table["hd95_mm", "mean"] == pytest.approx(diagonal_mm / 2)


def test_a_spurious_class_scores_zero_and_the_diagonal_and_is_counted():
    predicted = blobs(0)
    truth = predicted.where(predicted != 2, 0)
    table = measured(predicted, truth)
    assert [table[m, "far"] for m in ("dice", "iou", "nsd", "precision", "recall")] == [0] * 5
    assert table["hd95_mm", "far"] > 60
    assert table["volume_truth_ml", "far"] == 0
    assert table["volume_error_ml", "far"] == table["volume_ml", "far"] > 0
    assert math.isnan(table["volume_error_percent", "far"])
    assert [table[metric, "far"] for metric in COUNTED] == [0, 1, 0]


def test_an_absent_class_does_not_apply_and_leaves_the_mean_to_the_others():
    labels = blobs(0)
    labels = labels.where(labels != 2, 0)
    table = measured(labels, labels)
    assert all(math.isnan(table[m, "far"]) for m in (*AVERAGED, "precision", "recall"))
    assert table["volume_ml", "far"] == table["volume_error_ml", "far"] == 0
    assert [table[metric, "far"] for metric in COUNTED] == [0, 0, 1]
    assert table["dice", "mean"] == 1


def test_an_empty_case_predicted_empty_has_no_mean_and_nothing_warns():
    empty = torch.zeros(4, 4, 4, dtype=torch.long)
    table = measured(empty, empty)
    assert all(math.isnan(table[metric, "mean"]) for metric in AVERAGED)
    assert table["absent", "near"] == table["absent", "far"] == 1


@pytest.mark.filterwarnings("error")
@effort(deadline=None, max_examples=50)
@given(predicted=st.integers(0, 2**24 - 1), truth=st.integers(0, 2**24 - 1))
def test_only_absent_classes_and_percentages_of_nothing_are_nan(predicted, truth):
    def grid(bits: int) -> Tensor:
        digits = [bits >> (2 * i) & 3 for i in range(12)]
        return torch.tensor(digits).reshape(3, 2, 2) % 3

    table = measured(grid(predicted), grid(truth))
    for name in ("near", "far"):
        for metric in {metric for metric, label in table if label == name}:
            value = table[metric, name]
            assert not math.isinf(value)
            if metric == "volume_error_percent":
                assert math.isnan(value) == (table["volume_truth_ml", name] == 0)
            elif metric.startswith("volume") or metric in COUNTED:
                assert not math.isnan(value)
            else:
                assert math.isnan(value) == (table["absent", name] == 1)


def test_a_single_voxel_and_a_mask_that_fills_the_volume_can_be_measured():
    truth = torch.ones(3, 4, 5, dtype=torch.long)
    predicted = torch.zeros_like(truth)
    predicted[0, 0, 0] = 1
    table = measured(predicted, truth)
    expected = naive(predicted.numpy() == 1, truth.numpy() == 1, SPACING_MM)
    assert table["hd95_mm", "near"] == pytest.approx(expected["hd95_mm"])
    assert table["assd_mm", "near"] == pytest.approx(expected["assd_mm"])
    full = measured(truth, truth)
    assert full["nsd", "near"] == pytest.approx(1)


def test_where_the_class_lies_in_the_volume_does_not_matter():
    """A corner of the volume is as good as its middle, but for what a missed class costs."""
    small = blobs(0), blobs(1)
    padded = [torch.nn.functional.pad(each, (3, 5, 4, 2, 1, 6)) for each in small]
    table, moved = measured(*small), measured(*padded)
    for key, value in table.items():
        assert moved[key] == pytest.approx(value, rel=1e-5, nan_ok=True), key


def test_voxels_that_nobody_annotated_are_blind():
    truth = blobs(0)
    predicted = truth.clone()
    unseen = torch.zeros_like(truth, dtype=torch.bool)
    unseen[:6] = True
    predicted[unseen] = (predicted[unseen] + 1) % 3
    truth_with_gap = truth.masked_fill(unseen, IGNORE)
    table = measured(predicted, truth_with_gap)
    assert table["dice", "mean"] == table["nsd", "mean"] == pytest.approx(1)
    assert table["volume_truth_ml", "far"] == pytest.approx(
        ((truth == 2) & ~unseen).sum() * 3.75 / 1000
    )


def test_the_inputs_are_left_as_they_were():
    predicted, truth = probs(blobs(0)), blobs(1).masked_fill(blobs(2) == 1, IGNORE)
    before = predicted.clone(), truth.clone()
    measure_volume(
        predicted,
        truth,
        spacing_mm=SPACING_MM,
        classes=CLASSES,
        settings=MeasureSettings(),
    )
    assert torch.equal(predicted, before[0])
    assert torch.equal(truth, before[1])


def test_a_prediction_on_another_grid_is_refused():
    with pytest.raises(ShapeError, match=r"\(4, 4, 4\) and truth \(4, 4, 5\) must share a grid"):
        measure_volume(
            torch.zeros(3, 4, 4, 4),
            torch.zeros(4, 4, 5, dtype=torch.long),
            spacing_mm=SPACING_MM,
            classes=CLASSES,
            settings=MeasureSettings(),
        )


@pytest.mark.parametrize("case", ["hippocampus_001", "hippocampus_003", "hippocampus_184"])
def test_real_labels_shifted_by_one_voxel_are_measured_as_defined(case: str, data: Path):
    label = np.asarray(nib.load(data / "hippocampus" / "labelsTr" / f"{case}.nii.gz").dataobj)
    truth = torch.from_numpy(label.astype(np.int64))
    predicted = truth.roll(1, dims=2)
    spacing_mm = (1.0, 1.2, 2.0)
    table = measured(predicted, truth, spacing_mm, tolerance_mm=2.0)
    for index, name in ((1, "near"), (2, "far")):
        expected = naive((predicted == index).numpy(), (truth == index).numpy(), spacing_mm)
        for metric, value in expected.items():
            assert table[metric, name] == pytest.approx(value, rel=1e-5, abs=1e-6), metric
        assert table["hd95_mm", name] <= 2.0
        assert table["nsd", name] == pytest.approx(1)


def test_the_summary_averages_values_counts_misses_and_keeps_the_order_of_columns():
    keys = [("dice", "near"), ("dice", "mean"), ("missed", "near"), ("absent", "near")]
    columns = pd.MultiIndex.from_tuples(keys, names=["metric", "class"])
    cases = pd.DataFrame(
        [[0.5, 0.6, 0.0, 0.0], [0.0, 0.2, 1.0, 0.0], [math.nan, 0.4, 0.0, 1.0], [0.1, 0.4, 1, 0]],
        columns=columns,
    )
    summary = summarize(cases)
    assert list(summary.index) == keys
    assert summary.tolist() == pytest.approx([0.2, 0.4, 2, 1])
    assert summary[HEADLINE] == pytest.approx(0.4)


def test_a_class_that_no_case_holds_has_no_value_and_is_counted():
    empty = torch.zeros(4, 4, 4, dtype=torch.long)
    rows = [
        (case, "", "test", metric, name, value)
        for case in ("a", "b", "c")
        for (metric, name), value in measured(empty, empty).items()
    ]
    summary = summarize(evaluate.table(pd.DataFrame(rows, columns=list(CASES))))
    assert math.isnan(summary["dice", "near"])
    assert summary["absent", "near"] == 3


def test_the_rules_speak_of_every_metric_and_name_the_tolerance():
    text = " ".join(rules(MeasureSettings(nsd_tolerance_mm=2.5)))
    assert "The tolerance of NSD is 2.5 mm." in text
    for word in ("Dice", "IoU", "NSD", "HD95", "ASSD", "Precision", "recall", "Volumes"):
        assert word in text
    for word in (*COUNTED, "diagonal", "mean"):
        assert word in text
