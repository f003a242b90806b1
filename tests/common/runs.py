"""Synthetic run folders: what training and evaluation leave behind, without either."""

from __future__ import annotations

import json
import math
from pathlib import Path

import matplotlib.image
import numpy as np
import pandas as pd
import torch

from common.diagnosis import HoldOut, Tally, write_diagnosis
from common.domain import Task
from common.metrics import PseudoQuality
from common.record import (
    CASES,
    SUMMARY,
    Diagnosis,
    Evaluation,
    Look,
    Picture,
    PseudoLabels,
    Quality,
)
from tests.toy import ToyDomain, ToySettings

CONFIG = """seed: 0
domain:
  data: data/hippocampus
  network:
    name: unet
method:
  supervised_loss:
    name: cross_entropy_dice
  name: mean_teacher
  filter:
    name: confidence
    threshold: 0.95
fit:
  steps: 1500
  optimizer: adamw
"""


def medical(folder: Path, count: int = 44, *, names: list[str] | None = None) -> Evaluation:
    """A run on volumes: two structures with overlap, distance, volume and missed structures."""
    rng = np.random.default_rng(count)
    classes = ["anterior", "posterior"]
    rows = []
    ids = names or [f"hippocampus_{i:03d}" for i in range(1, count + 1)]
    for i, case in enumerate(ids):
        dice = np.clip(0.9 - rng.gamma(1.2, 0.03, size=2), 0, 1)
        if i == 7:
            dice[0] = 0.0
        hd95_mm = 1 + 14 * (1 - dice) ** 1.2
        numbers = [("dice", "mean", dice.mean()), ("hd95_mm", "mean", hd95_mm.mean())]
        for k, name in enumerate(classes):
            numbers += [
                ("dice", name, dice[k]),
                ("iou", name, dice[k] / (2 - dice[k])),
                ("nsd", name, dice[k] ** 0.5),
                ("hd95_mm", name, hd95_mm[k]),
                ("volume_ml", name, 1.4 + 0.3 * rng.random()),
                ("volume_error_percent", name, rng.normal(0, 9) if i != 3 else math.nan),
                ("missed", name, float(dice[k] == 0)),
            ]
        rows += [(case, case, "test", *number) for number in numbers]
    cases = pd.DataFrame(rows, columns=list(CASES))
    return _write(
        folder,
        cases,
        headline=("dice", "mean"),
        classes=[
            ("background", (0, 0, 0)),
            ("anterior", (230, 60, 60)),
            ("posterior", (60, 120, 230)),
        ],
        counted=("missed",),
    )


def scenes(folder: Path, count: int = 24, blocks: int = 6) -> Evaluation:
    """A run on tiles: accuracy and area from pixel counts, in spatial blocks."""
    rng = np.random.default_rng(count)
    looks = [
        ("water", (30, 90, 200)),
        ("tree canopy & forest", (20, 120, 50)),
        ("low vegetation", (160, 210, 90)),
        ("impervious", (150, 150, 150)),
    ]
    names = [name for name, _ in looks]
    rows = []
    for i in range(count):
        counts = rng.multinomial(65536, [0.02, 0.55, 0.3, 0.13])
        confusion = np.stack(
            [
                rng.multinomial(n, 0.12 / 3 + np.eye(4)[k] * (0.88 - 0.04))
                for k, n in enumerate(counts)
            ]
        )
        diagonal = confusion.diagonal()
        iou = diagonal / (confusion.sum(0) + confusion.sum(1) - diagonal)
        numbers = [("miou", "", iou.mean()), ("pa", "", diagonal.sum() / confusion.sum())]
        for k, name in enumerate(names):
            numbers += [
                ("iou", name, iou[k]),
                ("producers_accuracy", name, diagonal[k] / max(confusion[k].sum(), 1)),
                ("users_accuracy", name, diagonal[k] / max(confusion[:, k].sum(), 1)),
                ("area_ha", name, confusion[:, k].sum() * 1e-4),
                ("area_truth_ha", name, confusion[k].sum() * 1e-4),
            ]
            numbers += [
                (f"pixels_as_{other}", name, confusion[k, j]) for j, other in enumerate(names)
            ]
        block = f"block_{i % blocks}"
        rows += [(f"m_3807708_nw_18_1_{i:02d}", block, "test", *number) for number in numbers]
    cases = pd.DataFrame(rows, columns=list(CASES))
    return _write(folder, cases, headline=("miou", ""), classes=looks)


def log(folder: Path, classes: int, *, steps: int = 1500, every: int = 2) -> None:
    """Curves of a semi-supervised run in which the last class is never kept."""
    rng = np.random.default_rng(0)
    rows = []
    for step in range(every, steps + 1, every):
        t = step / steps
        supervised = 1.1 * math.exp(-4 * t) + 0.15 + 0.03 * rng.standard_normal()
        unlabeled = 0.2 * t * math.exp(-2 * t) + 0.01 * rng.random()
        rows += [(step, "loss/supervised", supervised), (step, "loss/unlabeled", unlabeled)]
        rows += [(step, "loss/total", supervised + unlabeled), (step, "coverage", 0.9 * t**0.3)]
        for k in range(classes):
            kept = 0.0 if k == classes - 1 else max(0.0, (1 - 0.2 * k) * t**0.4 - 0.1 * k)
            rows += [(step, f"coverage/{k}", kept), (step, f"share/{k}", 1 / classes)]
        if step % (steps // 10) == 0:
            rows.append((step, "validation/dice/mean", 0.88 - 0.3 * math.exp(-5 * t)))
    pd.DataFrame(rows, columns=["step", "quantity", "value"]).to_csv(
        folder / "log.csv", index=False
    )


def _write(
    folder: Path,
    cases: pd.DataFrame,
    *,
    headline: tuple[str, str],
    classes: list[tuple[str, tuple[int, int, int]]],
    counted: tuple[str, ...] = (),
) -> Evaluation:
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    cases.to_csv(folder / "cases.csv", index=False)
    _summary(cases, counted).to_csv(folder / "summary.csv", index=False)
    (folder / "run.yaml").write_text(CONFIG)
    record = {"python": "3.12.1", "device": "x86_64", "commit": None, "packages": {"torch": "2.8"}}
    (folder / "environment.json").write_text(json.dumps(record))
    log(folder, len(classes))
    of_case = cases[(cases["metric"] == headline[0]) & (cases["class"] == headline[1])]
    scores = dict(zip(of_case["case"], of_case["value"], strict=True))
    ids = [*scores]
    ranked = sorted(ids, key=lambda case: scores[case])
    middle = {ranked[len(ranked) // 2]: "median"} if len(ranked) > 2 else {}
    ranks = {ranked[0]: "worst" if ids[1:] else "only"} | middle
    ranks |= {ranked[-1]: "best"} if ids[1:] else {}
    found = Evaluation(
        split="test",
        headline=headline,
        scores=scores,
        groups=cases["group"].nunique(),
        unmeasured=(),
        classes=tuple(Look(name=name, color=color) for name, color in classes),
        data=(("images", "1 channel (MR)"), ("spacing", "1.0 x 1.0 x 1.0 mm")),
        rules=("Dice is twice the common volume over the sum of both volumes.",),
        warnings=(),
        splits={
            "labeled": tuple(f"train_{i}" for i in range(4)),
            "unlabeled": tuple(f"train_{i}" for i in range(4, 212)),
            "test": tuple(ids),
        },
        pictures=tuple(_picture(folder, case, rank, scores[case]) for case, rank in ranks.items()),
        pseudo_labels=_pseudo(len(classes)),
        draws=1000,
        seed=0,
        seconds=12.34,
    )
    (folder / "evaluation.json").write_text(found.model_dump_json())
    return found


def _summary(cases: pd.DataFrame, counted: tuple[str, ...]) -> pd.DataFrame:
    rows = []
    for (metric, name), part in cases.groupby(["metric", "class"], sort=False):
        value = part["value"]
        mean = value.sum() if metric in counted or metric.startswith("pixels") else value.mean()
        half = 1.96 * value.std() / len(value) ** 0.5
        quartiles = value.quantile([0.5, 0.25, 0.75]).tolist()
        rows.append((metric, name, mean, mean - half, mean + half, *quartiles, value.count()))
    return pd.DataFrame(rows, columns=list(SUMMARY))


def _picture(folder: Path, case: str, rank: str, score: float) -> Picture:
    path = f"figures/{rank}.png"
    y, x = np.mgrid[0:160, 0:480]
    image = np.stack([np.sin(x / 20), np.cos(y / 15), np.sin((x + y) / 30)], axis=-1) / 2 + 0.5
    matplotlib.image.imsave(folder / path, image)
    return Picture(path=path, case=case, rank=rank, score=score)


def _pseudo(classes: int) -> PseudoLabels:
    predicted = tuple(1e6 / (k + 1) for k in range(classes))

    def quality(name: str, keep: float) -> Quality:
        kept = tuple(n * keep * (1 - 0.1 * k) for k, n in enumerate(predicted))
        right = tuple(n * (0.99 - 0.2 * k * keep) for k, n in enumerate(kept))
        return Quality(name=name, predicted=predicted, kept=kept, right=right)

    levels = (("keep all", 1.0), ("at least 0.5", 0.97), ("at least 0.9", 0.8))
    return PseudoLabels(
        cases=tuple(f"train_{i}" for i in range(50)),
        unlabeled=208,
        seed=0,
        quality=quality("confidence, threshold 0.95", 0.7),
        thresholds=tuple(quality(*level) for level in levels),
    )


def diagnose(folder: Path, found: Evaluation, *, precision: float = 0.95) -> Diagnosis:
    """Beside an evaluation, a diagnosis of a network too sure of its later classes."""
    count = len(found.classes)
    steps = torch.arange(1000, dtype=torch.float64)
    confidence = ((steps + 0.5) / 1000).expand(count, -1)
    late = torch.arange(count, dtype=torch.float64)[:, None]
    pixels = torch.where(confidence > 1 / count, confidence ** (30 / (1 + late)), 0) * 1e4
    right = pixels * (confidence - 0.08 * late * confidence).clamp(0, 1)
    tally = Tally(Named(found), "confidence, threshold 0.95; then largest_component")
    tally.reliability += torch.stack([pixels, right, pixels * confidence])
    tally.confusion += torch.diag(right.sum(dim=1)) + 900
    tally.by_distance = [
        PseudoQuality(n, n * (0.3 + 0.1 * near), n * (0.3 + 0.1 * near) * (0.8 + 0.04 * near))
        for near, n in enumerate(pixels.sum(dim=1) * torch.tensor([[3], [2], [2], [1], [9]]))
    ]
    tally.names += [f"train_{i}" for i in range(50)]
    made = tally.diagnosis(HoldOut("unlabeled", [None] * 208), precision=precision, seed=0)
    prior = tuple(0.5 ** (k + 1) for k in range(count))
    made = made.model_copy(update={"prior": prior, "seconds": 1.0})
    write_diagnosis(made, folder)
    return made


class Named(ToyDomain):
    """A domain of the classes of an evaluation."""

    def __init__(self, found: Evaluation) -> None:
        super().__init__(ToySettings())
        names, colors = zip(*((look.name, look.color) for look in found.classes), strict=True)
        self.task = Task(channels=1, classes=names, colors=colors)
