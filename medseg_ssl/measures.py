"""How good a predicted volume is: overlap, distances in mm, volumes in ml."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
import torch
from monai.metrics import compute_surface_dice
from monai.metrics.utils import get_edge_surface_distance
from scipy import ndimage
from torch import Tensor

from common.batch import IGNORE, ClassMap, Grid, label_map
from common.domain import Measure
from common.errors import ShapeError
from common.settings import NonNegative, Settings

HEADLINE = ("dice", "mean")
AVERAGED = ("dice", "iou", "nsd", "hd95_mm", "hd_mm", "assd_mm")
OF_PAPERS = ("hd95_voxel", "asd_voxel")
"""Metrics that also have a value for the whole case: the mean over its classes."""
COUNTED = ("missed", "spurious", "absent")
"""Metrics of 0 or 1 that are added over the cases."""

RULES = (
    "Every case is measured on the grid of its own file, each class against all others; "
    "the background class is left out.",
    "Voxels that nobody annotated are left out: there, prediction and truth both count as "
    "background.",
    "Dice is twice the common volume over the sum of both volumes; IoU is the common volume over "
    "the joint volume.",
    "Precision is the share of the predicted volume that is right; recall is the share of the true "
    "volume that was found.",
    "HD95 is the larger of the two 95th percentiles of the distances, in mm, from the surface "
    "voxels of the prediction to those of the truth and back; lower is better.",
    "HD is the largest of all these distances, in mm: one voxel decides it; lower is better.",
    "ASSD is the mean of all these distances, both directions pooled, in mm; lower is better.",
    "NSD is the share of both surfaces, by area, that lies within the tolerance of the other "
    "surface (subvoxel surface elements).",
    "Volumes are voxel counts times the voxel volume, in ml; the error is predicted minus true, "
    "and its percentage is of the true volume.",
    "Components are pieces whose voxels touch at a face, an edge or a corner, counted in the "
    "prediction and in the truth.",
    "A missed class is in the truth and not in the prediction; a spurious class is in the "
    "prediction and not in the truth. Both score 0 in Dice, IoU, NSD, precision and recall, and "
    "the diagonal of the volume in HD95, HD and ASSD; no case is dropped. A spurious class has no "
    "percentage of a volume that is not there.",
    "A class that neither holds is absent from the case: the case does not enter the means of that "
    "class, and is counted. All other cases do.",
    "'mean' is, for each case, the mean over the foreground classes that are not absent.",
    "Over the cases, values are averaged; missed, spurious and absent are counted.",
)


LIMITS = (
    "Nothing is known of it on other scanners, sequences, doses, ages or diseases than those of "
    "the cases it was evaluated on.",
    "It is research software and no medical device: whoever uses a label map for a patient must "
    "check it.",
)
"""What a model card says of every model of volumes."""

PARITY = (
    "To compare with tables of papers there are also HD95 and ASD in voxels, as MedPy defines "
    "them: the 95th percentile of all surface distances, both directions pooled, and the mean "
    "distance from the prediction to the truth. Where most papers count a missed class as 0, here "
    "it is the diagonal in voxels.",
)


class MeasureSettings(Settings):
    """What is left to choose in the metrics."""

    nsd_tolerance_mm: NonNegative = 1.0  # surfaces closer than this agree
    parity: Literal["papers"] | None = None  # also measure as published tables do
    regions: dict[str, tuple[str, ...]] = {}  # unions of classes, by name, measured as well

    @property
    def averaged(self) -> tuple[str, ...]:
        """Metrics that also have a mean over the classes."""
        return (*AVERAGED, *(OF_PAPERS if self.parity else ()))


def rules(settings: MeasureSettings) -> tuple[str, ...]:
    """How each metric is defined, and what happens at its edges: one sentence or two each."""
    parity = PARITY if settings.parity else ()
    unions = [f"{name} is {' and '.join(parts)}" for name, parts in settings.regions.items()]
    said = f"Regions are measured as classes are, but do not enter 'mean': {'; '.join(unions)}."
    tolerance = f"The tolerance of NSD is {settings.nsd_tolerance_mm:g} mm."
    return (*RULES, *([said] if unions else []), *parity, tolerance)


def measure_volume(
    predicted: ClassMap,
    truth: Grid,
    *,
    spacing_mm: tuple[float, float, float],
    classes: Sequence[str],
    settings: MeasureSettings,
) -> list[Measure]:
    """All metrics of one case, class by class; :data:`RULES` says what each means.

    Args:
        predicted: Class probabilities ``(K, X, Y, Z)``; the most probable class counts.
        truth: Class indices ``(X, Y, Z)``, IGNORE where nobody looked.
        spacing_mm: Distance between neighboring voxels along X, Y and Z.
        classes: Names; the first is the background.
        settings: The tolerance of NSD.

    Returns:
        NaN only where a metric does not apply: no such class in prediction and truth, or a
        percentage of no volume.

    Raises:
        ShapeError: When prediction and truth do not share a grid.
    """
    if predicted.shape[1:] != truth.shape:
        raise ShapeError(
            f"prediction {tuple(predicted.shape[1:])} and truth {tuple(truth.shape)} must share a "
            "grid: measure on the grid of the label file."
        )
    nobody = truth == IGNORE
    labels = label_map(predicted).masked_fill(nobody, 0)
    truth = truth.masked_fill(nobody, 0)
    of_region: dict[str, dict[str, float]] = {}
    of_class = {
        name: _measure_class(labels == index, truth == index, spacing_mm, settings)
        for index, name in enumerate(classes)
        if index > 0
    }
    for name, parts in settings.regions.items():
        inside = torch.tensor([classes.index(part) for part in parts])
        found, there = (torch.isin(each.long(), inside) for each in (labels, truth))
        of_region[name] = _measure_class(found, there, spacing_mm, settings)
    every = [
        Measure(metric, name, value)
        for name, values in (of_class | of_region).items()
        for metric, value in values.items()
    ]
    means = [
        Measure(metric, "mean", _mean([values[metric] for values in of_class.values()]))
        for metric in settings.averaged
    ]
    return [*means, *every]


def summarize(table: pd.DataFrame) -> pd.Series:
    """From cases to the data set: means over the cases a value applies to, counts of the rest.

    Args:
        table: One row per case, one column per ``(metric, class)``.

    Returns:
        One value per ``(metric, class)``, in the order of the columns; NaN where it applies to
        no case.
    """
    counted = table.columns.get_level_values(0).isin(COUNTED)
    summary = table.mean()
    summary[counted] = table.loc[:, counted].sum()
    return summary


def _measure_class(
    predicted: Tensor,
    truth: Tensor,
    spacing_mm: tuple[float, float, float],
    settings: MeasureSettings,
) -> dict[str, float]:
    """Metrics of one class from two boolean volumes."""
    common = int((predicted & truth).sum())
    found, there = int(predicted.sum()), int(truth.sum())
    absent = not found and not there
    one_sided = not absent and not (found and there)
    if found and there:
        distances = _surfaces(predicted, truth, spacing_mm, settings.nsd_tolerance_mm)
    else:
        sides = (n * mm for n, mm in zip(truth.shape, spacing_mm, strict=True))
        diagonal_mm = math.nan if absent else math.hypot(*sides)
        nsd = math.nan if absent else 0.0
        distances = {"nsd": nsd} | dict.fromkeys(("hd95_mm", "hd_mm", "assd_mm"), diagonal_mm)
    if settings.parity:
        distances |= _as_papers(predicted, truth)
    ml = math.prod(spacing_mm) / 1000
    return {
        "dice": math.nan if absent else 2 * common / (found + there),
        "iou": math.nan if absent else common / (found + there - common),
        **distances,
        "precision": math.nan if absent else common / max(found, 1),
        "recall": math.nan if absent else common / max(there, 1),
        "volume_ml": found * ml,
        "volume_truth_ml": there * ml,
        "volume_error_ml": (found - there) * ml,
        "volume_error_percent": 100 * (found - there) / there if there else math.nan,
        "components": math.nan if absent else _components(predicted),
        "components_truth": math.nan if absent else _components(truth),
        "missed": float(one_sided and not found),
        "spurious": float(one_sided and not there),
        "absent": float(absent),
    }


def _surfaces(
    predicted: Tensor, truth: Tensor, spacing_mm: tuple[float, float, float], tolerance_mm: float
) -> dict[str, float]:
    """Distances between two surfaces that both exist."""
    box = _bounding_box(predicted | truth)
    one, other = (mask[box][None, None] for mask in (predicted, truth))
    pair = {"y_pred": one.float(), "y": other.float(), "include_background": True}
    with warnings.catch_warnings():  # MONAI 1.6 warns of an argument that it passes to itself
        warnings.filterwarnings("ignore", message=".*always_return_as_numpy")
        nsd = compute_surface_dice(
            **pair, class_thresholds=[tolerance_mm], spacing=spacing_mm, use_subvoxels=True
        )
    ways = _ways(predicted[box], truth[box], spacing_mm)
    return {
        "nsd": nsd.item(),
        "hd95_mm": max(torch.quantile(way, 0.95).item() for way in ways),
        "hd_mm": max(way.max().item() for way in ways),
        "assd_mm": torch.cat([*ways]).mean().item(),
    }


def _ways(
    predicted: Tensor, truth: Tensor, spacing_mm: tuple[float, float, float]
) -> tuple[Tensor, Tensor]:
    """From each surface voxel to the other surface: of the prediction, and of the truth."""
    with warnings.catch_warnings():  # MONAI 1.6 warns of an argument that it passes to itself
        warnings.filterwarnings("ignore", message=".*always_return_as_numpy")
        _, ways, _ = get_edge_surface_distance(predicted, truth, spacing=spacing_mm, symmetric=True)
    there, back = ways
    return there, back


def _as_papers(predicted: Tensor, truth: Tensor) -> dict[str, float]:
    """HD95 and ASD in voxels [1]; the diagonal where only one of both is there.

    [1] MedPy, medpy.metric.binary.hd95 and asd, without voxelspacing.
    """
    if not (predicted.any() and truth.any()):
        absent = not (predicted.any() or truth.any())
        return dict.fromkeys(OF_PAPERS, math.nan if absent else math.hypot(*truth.shape))
    box = _bounding_box(predicted | truth)
    ways = _ways(predicted[box], truth[box], (1.0, 1.0, 1.0))
    hd95 = torch.quantile(torch.cat([*ways]), 0.95).item()
    return dict(zip(OF_PAPERS, (hd95, ways[0].mean().item()), strict=True))


def _components(mask: Tensor) -> float:
    """How many connected pieces there are; 0 of nothing."""
    if not bool(mask.any()):
        return 0.0
    touching = np.ones((3,) * mask.ndim)
    return float(ndimage.label(mask[_bounding_box(mask)].cpu().numpy(), structure=touching)[1])


def _bounding_box(mask: Tensor) -> tuple[slice, ...]:
    """The smallest box around all that is True: large volumes are mostly not."""
    axes = range(mask.ndim)
    shadows = (mask.sum([other for other in axes if other != axis]).nonzero() for axis in axes)
    return tuple(slice(int(shadow[0]), int(shadow[-1]) + 1) for shadow in shadows)


def _mean(values: Sequence[float]) -> float:
    """The mean of what is no NaN; NaN when nothing is left."""
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan
