"""Metrics of one large volume: ours against those of MONAI, each asked for the same numbers.

`python -m benchmarks.metrics`: seconds for a 512x512x200 volume of two classes (a large organ and
a small one, both predicted a little off), one thread, taking turns; and how far the numbers are
apart. HD95 of MONAI is the larger of both directions, ours too. What MONAI has no metric for
(volumes, components, HD besides HD95) is in our time and not in theirs.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable

import torch
from monai.metrics import (
    DiceMetric,
    HausdorffDistanceMetric,
    MeanIoU,
    SurfaceDiceMetric,
    SurfaceDistanceMetric,
)
from torch import Tensor

from medseg_ssl.measures import MeasureSettings, measure_volume

SHAPE, SPACING_MM = (512, 512, 200), (0.8, 0.8, 1.5)
CLASSES = ("background", "liver", "gallbladder")
ORGANS = (((230.0, 250.0, 100.0), (120.0, 90.0, 55.0)), ((330.0, 300.0, 80.0), (22.0, 18.0, 14.0)))
"""Center and radii in voxels."""
Values = dict[tuple[str, str], float]


def labels(shift: float) -> Tensor:
    """Class indices of the organs, with a wavy surface that depends on ``shift``."""
    axes = [torch.arange(side, dtype=torch.float32) for side in SHAPE]
    x, y, z = torch.meshgrid(*axes, indexing="ij")
    found = torch.zeros(SHAPE, dtype=torch.uint8)
    for number, (center, radii) in enumerate(ORGANS, start=1):
        offsets = ((x - center[0] - shift) / radii[0], (y - center[1]) / radii[1])
        radius = offsets[0] ** 2 + offsets[1] ** 2 + ((z - center[2]) / radii[2]) ** 2
        wave = 0.1 * torch.sin((x + 3 * shift) / 6) * torch.cos(y / 7) * torch.sin(z / 5)
        found[radius + wave < 1] = number
    return found


def ours(predicted: Tensor, truth: Tensor) -> Values:
    """All metrics of the report."""
    measured = measure_volume(
        predicted, truth.long(), spacing_mm=SPACING_MM, classes=CLASSES, settings=MeasureSettings()
    )
    return {(each.metric, each.label): each.value for each in measured}


def theirs(predicted: Tensor, truth: Tensor) -> Values:
    """The five that MONAI has, as its manual asks for them: one-hot, spacing in mm."""
    one, other = (
        torch.nn.functional.one_hot(each.long(), len(CLASSES)).movedim(-1, 0)[None]
        for each in (predicted.argmax(dim=0), truth)
    )
    surface = {"include_background": False}
    metrics = {
        "dice": (DiceMetric(include_background=False), {}),
        "iou": (MeanIoU(include_background=False), {}),
        "hd95_mm": (HausdorffDistanceMetric(percentile=95, **surface), {"spacing": SPACING_MM}),
        "assd_mm": (SurfaceDistanceMetric(symmetric=True, **surface), {"spacing": SPACING_MM}),
        "nsd": (
            SurfaceDiceMetric(class_thresholds=[1.0, 1.0], use_subvoxels=True, **surface),
            {"spacing": SPACING_MM},
        ),
    }
    found = {}
    for name, (metric, how) in metrics.items():
        values = metric(y_pred=one, y=other, **how).flatten().tolist()
        found |= {(name, label): value for label, value in zip(CLASSES[1:], values, strict=True)}
    return found


def timed(measure: Callable[[Tensor, Tensor], Values], *maps: Tensor) -> tuple[float, Values]:
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values = measure(*maps)
    return time.perf_counter() - began, values


def main() -> None:
    torch.set_num_threads(1)
    truth, guess = labels(0.0), labels(2.0).long()
    predicted = torch.zeros(len(CLASSES), *SHAPE, dtype=torch.float16).scatter_(0, guess[None], 1.0)
    pairs = [(timed(ours, predicted, truth), timed(theirs, predicted, truth)) for _ in range(3)]
    (_, own), (_, other) = pairs[0]
    print("| class | metric | ours | MONAI |\n|---|---|---|---|")
    for (metric, label), value in other.items():
        print(f"| {label} | {metric} | {own[metric, label]:.5f} | {value:.5f} |")
    seconds, theirs_s = (statistics.median(pair[side][0] for pair in pairs) for side in (0, 1))
    ratio = statistics.median(one[0] / other[0] for one, other in pairs)
    print(f"\n{seconds:.1f} s against {theirs_s:.1f} s: {ratio:.2f}")


if __name__ == "__main__":
    main()
