"""Train and test several arms of a comparison, and print those that finished.

An arm is a config with a few values changed; its seed decides the first weights and the order of
the data. Every finished arm is a row of ``benchmarks/results/<name>.csv``, so a benchmark goes on
where it was cut off: inside an arm, too, since runs resume.
"""

from __future__ import annotations

import argparse
import math
import os
import resource
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import date
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import torch

from common import environment, verbs
from common.adapter import Adapter
from common.record import Quality, read_evaluation

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("SEG_SSL_DATA", ROOT.parent / "shared" / "data"))


@dataclass(frozen=True)
class Arm:
    """One thing to compare."""

    name: str
    config: Path
    overrides: tuple[str, ...] = ()  # "{seed}" stands for the seed, where draws differ by it
    seeds: tuple[int, ...] = (0, 1, 2)

    def overrides_of(self, seed: int) -> list[str]:
        """What this arm changes in its config, for one seed."""
        return [each.replace("{seed}", str(seed)) for each in self.overrides]


def train_and_test(comparison: Comparison, arm: Arm, seed: int) -> pd.DataFrame:
    """One arm with one seed, trained to its last step and tested."""
    torch.set_num_threads(1)
    os.chdir(ROOT)  # configs name their split files from here
    folder = ROOT / "benchmarks" / "runs" / comparison.name / f"{arm.name}-{seed}"
    run = verbs.load(arm.config, comparison.adapter, [*arm.overrides_of(seed), f"seed={seed}"])
    resumed, began = (folder / "latest.ckpt").exists(), time.monotonic()
    fitted = verbs.train(run, comparison.adapter, folder)
    if not fitted.finished:
        raise SystemExit(f"{arm.name}, seed {seed}: stopped at step {fitted.step}")
    minutes = (time.monotonic() - began) / 60
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # of this process alone
    verbs.evaluate(folder, comparison.adapter, split=comparison.split)
    summary = pd.read_csv(folder / "summary.csv", keep_default_na=False, na_values=[""])
    values = summary.set_index(["metric", summary["class"].fillna("")])["value"]
    shown = {" ".join(key).strip(): value for key, value in values.items() if key[0] in KEPT}
    row = {"arm": arm.name, "seed": seed, "steps": run.fit.steps, **shown}
    row |= pseudo_labels(folder)
    if not resumed:  # or the clock did not see all of it
        row |= {"minutes": minutes, "peak_mib": peak_mib}
    row |= {"date": date.today().isoformat(), "device": environment.device(run.fit.accelerator)}
    return pd.DataFrame([row])


@dataclass(frozen=True)
class Comparison:
    """Arms that differ in nothing but what their names say."""

    name: str
    adapter: Adapter
    arms: Sequence[Arm]
    headline: tuple[str, str]
    split: str = "test"  # what the arms are judged on
    run_arm: Callable[[Comparison, Arm, int], pd.DataFrame] = train_and_test

    @property
    def results(self) -> Path:
        """Where the finished arms are written down."""
        return ROOT / "benchmarks" / "results" / f"{self.name}.csv"


def main(comparison: Comparison) -> None:
    """Run what is missing and print the table; with ``--print``, print only."""
    parser = argparse.ArgumentParser(description=f"Comparison '{comparison.name}'.")
    parser.add_argument("--print", action="store_true", help="print the finished arms, run none")
    parser.add_argument("--processes", type=int, default=2, help="arms trained at once")
    parser.add_argument("--arms", nargs="*", help="only these")
    parser.add_argument("--seeds", nargs="*", type=int, help="only these")
    wanted = parser.parse_args()
    if not wanted.print:
        arms = [arm for arm in comparison.arms if not wanted.arms or arm.name in wanted.arms]
        pairs = [(arm, seed) for arm in arms for seed in arm.seeds]
        pairs = [pair for pair in pairs if wanted.seeds is None or pair[1] in wanted.seeds]
        run_missing(comparison, pairs, processes=wanted.processes)
    print(as_table(comparison))


def run_missing(
    comparison: Comparison, pairs: Sequence[tuple[Arm, int]], *, processes: int
) -> None:
    """Train and test every arm and seed that has no row yet, seed by seed."""
    done = finished(comparison)
    known = set(zip(done["arm"], done["seed"], strict=True))
    missing = [pair for pair in pairs if (pair[0].name, pair[1]) not in known]
    missing.sort(key=lambda pair: pair[1])
    fresh = {"mp_context": get_context("spawn"), "max_tasks_per_child": 1}  # memory per arm
    with ProcessPoolExecutor(processes, **fresh) as pool:
        futures = [pool.submit(comparison.run_arm, comparison, arm, seed) for arm, seed in missing]
        for future in as_completed(futures):
            if error := future.exception():
                print(f"an arm did not finish and is not reported: {error}", flush=True)
                continue
            done = pd.concat([finished(comparison), future.result()], ignore_index=True)
            comparison.results.parent.mkdir(exist_ok=True)
            done.to_csv(comparison.results, index=False, float_format="%.5f")
            print(done.tail(1).to_string(index=False, header=False), flush=True)


def pseudo_labels(folder: Path) -> dict[str, float]:
    """Coverage and precision of the pseudo-labels of unlabeled cases whose truth is known."""
    found = read_evaluation(folder / "evaluation.json")
    if found is None or found.pseudo_labels is None:
        return {}
    return shares(found.pseudo_labels.quality)


def shares(quality: Quality) -> dict[str, float]:
    """Coverage and precision of pseudo-labels over all classes."""
    predicted, kept, right = map(sum, (quality.predicted, quality.kept, quality.right))
    return {"coverage": kept / predicted, "precision": right / kept if kept else math.nan}


KEPT = (
    "dice",
    "precision",
    "recall",
    "volume_error_percent",
    "hd95_mm",
    "nsd",
    "miou",
    "iou",
    "fwiou",
    "pixel_accuracy",
    "kappa",
)


def finished(comparison: Comparison) -> pd.DataFrame:
    """The arms that ran to their end."""
    if not comparison.results.exists():
        return pd.DataFrame({"arm": pd.Series(dtype=str), "seed": pd.Series(dtype=int)})
    return pd.read_csv(comparison.results)


def as_table(comparison: Comparison) -> str:
    """The finished arms as Markdown: mean and standard deviation over seeds, and each seed."""
    done, column = finished(comparison), " ".join(comparison.headline).strip()
    lines = [
        f"| arm | {column}, mean ± sd | seeds | each seed | kept | right | s/step | MiB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for arm in comparison.arms:
        rows = done[done["arm"] == arm.name].sort_values("seed")
        if rows.empty:
            lines.append(f"| {arm.name} | not run | 0 | | | | | |")
            continue
        values = rows[column]
        spread = f" ± {values.std():.3f}" if len(values) > 1 else ""
        each = " ".join(f"{value:.3f}" for value in values)
        cells = [
            arm.name,
            f"{values.mean():.3f}{spread}",
            str(len(values)),
            each,
            *(
                _mean(rows, column, digits)
                for column, digits in (("coverage", 2), ("precision", 3))
            ),
            _mean(_with_step(rows), "step", 2),
            _mean(rows, "peak_mib", 0),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _with_step(rows: pd.DataFrame) -> pd.DataFrame:
    """``rows`` with the seconds of a step, where steps were taken and timed."""
    if not {"minutes", "steps"} <= {*rows}:
        return rows
    return rows.assign(step=60 * rows["minutes"] / rows["steps"])


def _mean(rows: pd.DataFrame, column: str, digits: int) -> str:
    """The mean of the seeds that have a value; nothing where none has."""
    values = rows[column].dropna() if column in rows else pd.Series(dtype=float)
    return "" if values.empty else f"{values.mean():.{digits}f}"
