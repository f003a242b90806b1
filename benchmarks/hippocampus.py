"""Hippocampus MRI: 4, 8 or 16 labeled volumes, 44 for the test, the same network and steps.

The 176 volumes that are not for the test are labeled or unlabeled. No checkpoint is chosen: the
last one is tested. `monai` and `monai-fast` are MONAI's own supervised recipe (monai_recipe.py).
`python -m benchmarks.hippocampus [--print]`: also the share of the gap that is closed between
supervised on few and supervised on all.
"""

from __future__ import annotations

import os

import pandas as pd

from benchmarks.arms import DATA, ROOT, Arm, Comparison, finished, main, train_and_test
from benchmarks.monai_recipe import RATES, monai_arm
from medseg_ssl.adapter import medseg

CONFIGS = ROOT / "configs" / "medseg"
HERE = (f"domain.data={DATA / 'hippocampus'}",)
METHODS = ("mean_teacher", "fixmatch", "cross_pseudo")
FEW = (4, 8, 16)


def labeled(number: int | str) -> tuple[str, ...]:
    """The overrides for so many labeled volumes."""
    names = CONFIGS / "splits" / f"hippocampus_labeled_{number}.txt"
    rest = ("domain.splits.unlabeled=[]",) if number == "all" else ()
    return (*HERE, f"domain.splits.labeled={names}", *rest)


def arm(method: str, number: int | str) -> Arm:
    """One method with so many labels."""
    config = "supervised" if method in RATES else method
    return Arm(f"{method}-{number}", CONFIGS / f"{config}.yaml", labeled(number))


def either(comparison: Comparison, arm: Arm, seed: int) -> pd.DataFrame:
    """An arm of ours, or of MONAI."""
    os.chdir(ROOT)  # configs name their split files from here
    theirs = arm.name.rpartition("-")[0] in RATES
    return (monai_arm if theirs else train_and_test)(comparison, arm, seed)


COMPARISON = Comparison(
    name="hippocampus",
    adapter=medseg,
    headline=("dice", "mean"),
    arms=[
        *(arm(method, number) for number in FEW for method in ("supervised", *METHODS)),
        arm("supervised", "all"),
        *(arm(theirs, number) for theirs in RATES for number in (*FEW, "all")),
    ],
    run_arm=either,
)


def gaps(comparison: Comparison) -> str:
    """How much of what labels would buy each method gets without them, as Markdown.

    The ends are means over the seeds that have finished.
    """
    mean = finished(comparison).groupby("arm")["dice mean"].mean()
    lines = ["| share of the gap closed | 4 labels | 8 | 16 |", "|---|---|---|---|"]
    for method in METHODS:
        cells = [_gap(mean, method, number) for number in FEW]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _gap(mean: pd.Series, method: str, number: int) -> str:
    low, here, high = f"supervised-{number}", f"{method}-{number}", "supervised-all"
    if not {low, here, high} <= {*mean.index}:
        return ""
    return f"{(mean[here] - mean[low]) / (mean[high] - mean[low]):.0%}"


if __name__ == "__main__":
    main(COMPARISON)
    print(f"\n{gaps(COMPARISON)}")
