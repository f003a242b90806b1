"""The first three experiments that a reader of the survey would run.

1. Plain self-training: a supervised network labels every unlabeled pixel once, and a fresh one
   learns from labels and pseudo-labels. 2. The same, but only pixels of confidence 0.9 or more are
   labeled. 3. One network that labels while it learns (FixMatch) against two that label for each
   other (CPS). The budget is that of methods.py, and so are the arms without rounds: their rows are
   read from there. In both rounds of self-training a network learns for the whole of it.

`python -m benchmarks.survey medseg|rsseg [--print]`
"""

import functools
from pathlib import Path

import pandas as pd

from benchmarks import methods
from benchmarks.arms import ROOT, Arm, Comparison, finished, main, shares, train_and_test
from common import verbs
from common.hidden_truth import judge_pseudo_labels
from common.pool import labeling, trust_of
from common.trained import restored

ONLINE = ("supervised", "fixmatch", "cross_pseudo")
"""Arms of methods.py."""
STORED_ONLY = "method.filter={name: confidence, threshold: 1.0}"
"""The second network learns from what the first one marked."""
ROUNDS = {
    "self-training": "filter={name: all}",
    "self-training-0.9": "filter={name: confidence, threshold: 0.9}",
}


def self_taught(comparison: Comparison, arm: Arm, seed: int, *, domain: str) -> pd.DataFrame:
    """Train a supervised network, label with it, train a second one on that, and test it."""
    runs = ROOT / "benchmarks" / "runs" / comparison.name
    first, pool = runs / f"first-{seed}", runs / f"{arm.name}-{seed}-pool"
    config = ROOT / "configs" / domain / "supervised.yaml"
    run = verbs.load(
        config, comparison.adapter, [*shared(domain, seed), "domain.batch.unlabeled=4"]
    )
    verbs.train(run, comparison.adapter, first)
    verbs.label([first], comparison.adapter, pool, overrides=[ROUNDS[arm.name]])
    stored = f"domain.weak_labels={{scribbles: {pool / 'labels'}}}"
    second = Arm(arm.name, arm.config, (*arm.overrides, stored), arm.seeds)
    return train_and_test(comparison, second, seed).assign(**quality(comparison, arm, first, seed))


def quality(comparison: Comparison, arm: Arm, first: Path, seed: int) -> dict[str, float]:
    """Coverage and precision of what the first network marked, where the truth is known."""
    found = restored(first, comparison.adapter)
    network = found.learner.nets.predictor
    trust = trust_of(found, labeling(found, [ROUNDS[arm.name]]))
    judged = judge_pseudo_labels(
        found.domain, network, trust, seed=seed, watch=lambda what, done, total: None
    )
    assert judged is not None
    return shares(judged.quality)


def shared(domain: str, seed: int) -> list[str]:
    """The budget of methods.py for one seed."""
    overrides = methods.SHARED[domain]
    return [*(each.replace("{seed}", str(seed)) for each in overrides), f"seed={seed}"]


def comparison(domain: str) -> Comparison:
    """The arms of one domain; those of methods.py among them where they have been run."""
    config = ROOT / "configs" / domain / "fixmatch.yaml"
    fixmatch = (*methods.SHARED[domain], STORED_ONLY)
    base = methods.COMPARISONS[domain]
    online = [arm for arm in base.arms if arm.name in ONLINE]
    return Comparison(
        name=f"survey_{domain}",
        adapter=base.adapter,
        headline=base.headline,
        arms=[*online, *(Arm(name, config, fixmatch) for name in ROUNDS)],
        run_arm=functools.partial(either, domain=domain),
    )


def either(comparison: Comparison, arm: Arm, seed: int, *, domain: str) -> pd.DataFrame:
    """An arm of two rounds, or one of methods.py: read there, or run."""
    if arm.name in ROUNDS:
        return self_taught(comparison, arm, seed, domain=domain)
    known = finished(methods.COMPARISONS[domain])
    rows = known[(known["arm"] == arm.name) & (known["seed"] == seed)]
    return train_and_test(comparison, arm, seed) if rows.empty else rows


if __name__ == "__main__":
    main(comparison(methods.chosen_domain()))
