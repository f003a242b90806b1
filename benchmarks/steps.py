"""What a training step of each method costs, against one of supervised learning.

`python -m benchmarks.steps medseg|rsseg`: the configs and data of methods.py, one thread. Each
method trains a few steps between two trainings of `supervised`, and its share is of the mean of
these two: so it travels, though the machine may be busy. Memory is the most that the process held.
"""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor

import torch

from benchmarks import methods
from benchmarks.arms import ROOT, Arm
from common import verbs
from common.pace import pace
from common.trained import new_learner, training_domain


def cost(domain: str, arm: Arm) -> tuple[float, float]:
    """Seconds of a step, and the GiB that a process held at most."""
    torch.set_num_threads(1)
    os.chdir(ROOT)
    adapter = methods.COMPARISONS[domain].adapter
    run = adapter.resolve(verbs.load(arm.config, adapter, [*arm.overrides_of(0), "seed=0"]))
    opened = training_domain(run, adapter)
    learner = new_learner(run, opened)
    found = pace(learner, lambda first: opened.batches(seed=0, first_step=first), run.fit)
    return found.seconds, found.gib


def main(domain: str) -> None:
    fresh = {"mp_context": multiprocessing.get_context("spawn"), "max_tasks_per_child": 1}
    supervised, *arms = methods.arms(domain)
    with ProcessPoolExecutor(1, **fresh) as pool:

        def measured(arm: Arm) -> tuple[float, float]:
            return pool.submit(cost, domain, arm).result()

        print("| method | s per step | times supervised | GiB |\n|---|---|---|---|")
        before, gib = measured(supervised)
        print(f"| supervised | {before:.3f} | 1 | {gib:.2f} |", flush=True)
        for arm in arms:
            seconds, gib = measured(arm)
            after, _ = measured(supervised)
            share = seconds / ((before + after) / 2)
            print(f"| {arm.name} | {seconds:.3f} | {share:.1f} | {gib:.2f} |", flush=True)
            before = after


if __name__ == "__main__":
    main(methods.chosen_domain())
