"""One confusion matrix and what follows from it, against loops and a published implementation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jaxtyping import TypeCheckError
from torch import Tensor
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_cohen_kappa,
    multiclass_confusion_matrix,
    multiclass_f1_score,
    multiclass_jaccard_index,
    multiclass_precision,
    multiclass_recall,
)

from common import metrics
from common.batch import IGNORE
from common.errors import ShapeError

CLASSES = 4
counts_of_pixels = hnp.arrays(np.int64, (CLASSES, CLASSES), elements=st.integers(0, 50)).map(
    torch.from_numpy
)
PER_CLASS = [metrics.iou, metrics.f1, metrics.producers_accuracy, metrics.users_accuracy]
OVERALL = [
    metrics.pixel_accuracy,
    metrics.mean_accuracy,
    metrics.miou,
    metrics.fwiou,
    metrics.kappa,
]


def same(a: float | Tensor, b: float | Tensor) -> bool:
    return bool(np.allclose(np.asarray(a), np.asarray(b), equal_nan=True, rtol=1e-6))


def two_maps(seed: int, shape: tuple[int, ...] = (23, 17)) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randint(CLASSES, shape, generator=generator)
    wrong = torch.randint(CLASSES, shape, generator=generator)
    predicted = torch.where(torch.rand(shape, generator=generator) < 0.6, truth, wrong)
    return predicted, truth


@pytest.mark.parametrize("shape", [(40,), (7, 9), (5, 6, 4)])
def test_counts_equal_a_loop_over_pixels_in_any_number_of_dimensions(shape):
    predicted, truth = two_maps(0, shape)
    truth[truth == 3] = IGNORE
    expected = np.zeros((CLASSES, CLASSES), dtype=int)
    for i, j in zip(truth.flatten().tolist(), predicted.flatten().tolist(), strict=True):
        if i != IGNORE:
            expected[i, j] += 1
    assert np.array_equal(metrics.confusion(predicted, truth, CLASSES), expected)


def test_what_was_predicted_where_nobody_looked_does_not_matter():
    truth = torch.tensor([0, 1, IGNORE])
    one = metrics.confusion(torch.tensor([0, 0, 1]), truth, 2)
    assert torch.equal(one, metrics.confusion(torch.tensor([0, 0, IGNORE]), truth, 2))
    assert one.sum() == 2


def test_maps_of_two_grids_and_values_that_are_no_class_are_refused():
    with pytest.raises((ShapeError, TypeCheckError)):  # whether or not types are checked
        metrics.confusion(torch.zeros(3, 4).long(), torch.zeros(4, 3).long(), 2)
    with pytest.raises(ShapeError, match=r"the truth holds classes 0 to 7; expected 0\.\.1"):
        metrics.confusion(torch.tensor([0, 1]), torch.tensor([0, 7]), 2)
    with pytest.raises(ShapeError, match="the prediction holds classes"):
        metrics.confusion(torch.tensor([0, IGNORE]), torch.tensor([0, 1]), 2)


@pytest.mark.parametrize("seed", range(3))
def test_every_number_agrees_with_torchmetrics(seed):
    predicted, truth = two_maps(seed)
    counts = metrics.confusion(predicted, truth, CLASSES)
    pair, each = (predicted, truth, CLASSES), {"average": "none"}
    assert torch.equal(counts, multiclass_confusion_matrix(*pair))
    assert same(metrics.iou(counts), multiclass_jaccard_index(*pair, **each))
    assert same(metrics.f1(counts), multiclass_f1_score(*pair, **each))
    assert same(metrics.producers_accuracy(counts), multiclass_recall(*pair, **each))
    assert same(metrics.users_accuracy(counts), multiclass_precision(*pair, **each))
    assert same(metrics.pixel_accuracy(counts), multiclass_accuracy(*pair, average="micro"))
    assert same(metrics.mean_accuracy(counts), multiclass_accuracy(*pair, average="macro"))
    assert same(metrics.fwiou(counts), multiclass_jaccard_index(*pair, average="weighted"))
    assert same(metrics.kappa(counts), multiclass_cohen_kappa(*pair))


@settings(deadline=None)
@given(counts_of_pixels)
def test_the_formulas_hold_as_written_in_the_survey(counts):
    n = counts.numpy()
    t, p = n.sum(1), n.sum(0)
    union = [t[i] + p[i] - n[i, i] for i in range(CLASSES)]
    ious = [n[i, i] / union[i] for i in range(CLASSES) if union[i] > 0]
    recalls = [n[i, i] / t[i] for i in range(CLASSES) if t[i] > 0]
    if n.sum() == 0:
        assert all(math.isnan(number(counts)) for number in OVERALL)
        return
    assert same(metrics.pixel_accuracy(counts), np.trace(n) / n.sum())
    assert same(metrics.mean_accuracy(counts), np.mean(recalls))
    assert same(metrics.miou(counts), np.mean(ious))
    weighted = sum(t[i] * n[i, i] / union[i] for i in range(CLASSES) if union[i] > 0)
    assert same(metrics.fwiou(counts), weighted / n.sum())


@settings(deadline=None)
@given(counts_of_pixels, st.permutations(range(CLASSES)))
def test_renaming_the_classes_renames_the_results(counts, order):
    renamed = counts[order][:, order]
    for number in PER_CLASS:
        assert same(number(renamed), number(counts)[order])
    for number in OVERALL:
        assert same(number(renamed), number(counts))


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 9), min_size=20, max_size=20), min_size=3, max_size=3))
def test_equally_frequent_classes_make_weighted_and_plain_means_agree(predicted_as):
    counts = torch.stack(
        [torch.bincount(torch.tensor(row) % 3, minlength=3) for row in predicted_as]
    )
    assert same(metrics.fwiou(counts), metrics.miou(counts))
    assert same(metrics.pixel_accuracy(counts), metrics.mean_accuracy(counts))


@settings(deadline=None)
@given(counts_of_pixels, counts_of_pixels)
def test_pooling_is_addition_and_every_number_stays_in_its_range(one, other):
    pooled = one + other
    for number in PER_CLASS:
        values = number(pooled)
        assert ((values >= 0) & (values <= 1) | values.isnan()).all()
    assert math.isnan(metrics.kappa(pooled)) or -1 <= metrics.kappa(pooled) <= 1


def test_a_perfect_prediction_is_perfect():
    _, truth = two_maps(0)
    counts = metrics.confusion(truth, truth, CLASSES)
    assert all(number(counts) == 1 for number in OVERALL)
    assert all((number(counts) == 1).all() for number in PER_CLASS)


def test_a_class_in_neither_map_is_left_out_and_one_only_predicted_counts_as_zero():
    counts = torch.tensor([[8, 2, 0], [0, 0, 0], [0, 0, 0]])
    assert same(metrics.iou(counts), torch.tensor([0.8, 0.0, math.nan]))
    assert same(metrics.f1(counts), torch.tensor([16 / 18, 0.0, math.nan]))
    assert metrics.miou(counts) == pytest.approx(0.4)
    assert metrics.fwiou(counts) == pytest.approx(0.8)
    assert metrics.mean_accuracy(counts) == pytest.approx(0.8)
    assert same(metrics.users_accuracy(counts), torch.tensor([1.0, 0.0, math.nan]))


def test_pseudo_labels_are_judged_by_predicted_class_and_by_trust():
    probs = torch.tensor([[0.9, 0.8, 0.6, 0.1, 0.2], [0.1, 0.2, 0.4, 0.9, 0.8]])
    weight = torch.tensor([1.0, 0.5, 0.0, 1.0, 1.0])
    truth = torch.tensor([0, 1, 0, 1, IGNORE])
    quality = metrics.pseudo_quality(probs, weight, truth)
    assert same(quality.coverage, torch.tensor([1.5 / 3, 1.0]))
    assert same(quality.precision, torch.tensor([1.0 / 1.5, 1.0]))
    both = quality + quality
    assert same(both.coverage, quality.coverage)
    assert both.predicted.tolist() == [6, 2]


def test_nothing_kept_has_a_coverage_of_zero_and_no_precision():
    quality = metrics.pseudo_quality(
        torch.tensor([[0.9], [0.1]]), torch.zeros(1), torch.zeros(1).long()
    )
    assert quality.coverage[0] == 0
    assert quality.precision.isnan().all()
    assert quality.coverage[1].isnan()
