"""Distances as published tables have them: in voxels, after MedPy's definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from medseg_ssl.measures import MeasureSettings, measure_volume, rules
from tests.medseg_ssl.test_measures import CLASSES, SPACING_MM, blobs, surface_mm

PAPERS = MeasureSettings(parity="papers")


def table_of(predicted, truth, settings=PAPERS):
    probs = torch.nn.functional.one_hot(predicted, 3).movedim(-1, 0).float()
    found = measure_volume(probs, truth, spacing_mm=SPACING_MM, classes=CLASSES, settings=settings)
    return {(each.metric, each.label): each.value for each in found}


@pytest.mark.parametrize("seed", range(4))
def test_voxel_distances_are_those_of_medpy(seed):
    """hd95 pools both directions; asd goes from the prediction to the truth; no spacing."""
    predicted, truth = blobs(2 * seed), blobs(2 * seed + 1)
    table = table_of(predicted, truth)
    for index, name in ((1, "near"), (2, "far")):
        one, other = (surface_mm((each == index).numpy(), (1, 1, 1)) for each in (predicted, truth))
        between = np.linalg.norm(one[:, None] - other[None], axis=-1)
        there, back = between.min(1), between.min(0)
        pooled = np.percentile(np.concatenate([there, back]), 95)
        assert table["hd95_voxel", name] == pytest.approx(pooled, rel=1e-5)
        assert table["asd_voxel", name] == pytest.approx(there.mean(), rel=1e-5)
    mean = (table["hd95_voxel", "near"] + table["hd95_voxel", "far"]) / 2
    assert table["hd95_voxel", "mean"] == pytest.approx(mean)


def test_a_missed_class_is_the_diagonal_and_an_absent_one_does_not_apply():
    truth, nothing = blobs(0), torch.zeros_like(blobs(0))
    table = table_of(nothing, truth)
    assert table["hd95_voxel", "near"] == pytest.approx(math.hypot(*truth.shape))
    assert table["asd_voxel", "far"] == pytest.approx(math.hypot(*truth.shape))
    assert math.isnan(table_of(nothing, nothing)["hd95_voxel", "near"])


def test_without_parity_nothing_is_in_voxels():
    plain = MeasureSettings()
    assert not [key for key in table_of(blobs(0), blobs(1), plain) if "voxel" in key[0]]
    assert "MedPy" not in " ".join(rules(plain))
    assert "MedPy" in " ".join(rules(PAPERS))
