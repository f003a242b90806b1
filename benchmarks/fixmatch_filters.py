"""FixMatch with each of the main filters: what a filter is worth in the end.

The budget is that of methods.py. `python -m benchmarks.fixmatch_filters medseg|rsseg [--print]`.
"""

from benchmarks import methods
from benchmarks.arms import ROOT, Arm, Comparison, main

FILTERS = {
    "all": "{name: all}",
    "confidence 0.8": "{name: confidence, threshold: 0.8}",
    "confidence 0.95": "{name: confidence, threshold: 0.95}",
    "confidence_power": "{name: confidence_power}",
    "entropy_percentile": "{name: entropy_percentile}",
    "class_ratio": "{name: class_ratio, kept: 0.7}",
    "class_prior": "{name: class_prior, kept: 0.7}",
    "class_calibrated": "{name: class_calibrated, fold_steps: 200, every: 200}",
    "conformal": "{name: conformal, fold_steps: 200, every: 200}",
    "ema_global": "{name: ema_global}",
    "self_adaptive": "{name: self_adaptive}",
    "flexible": "{name: flexible}",
    "soft": "{name: soft}",
    "rank": "{name: rank}",
    "neighbor_context": "{name: neighbor_context}",
}


def comparison(domain: str) -> Comparison:
    """One arm for each filter."""
    base = methods.COMPARISONS[domain]
    config = ROOT / "configs" / domain / "fixmatch.yaml"
    arms = [
        Arm(name, config, (*methods.SHARED[domain], f"method.filter={value}"), seeds=(0,))
        for name, value in FILTERS.items()
    ]
    return Comparison(f"fixmatch_filters_{domain}", base.adapter, arms, base.headline)


if __name__ == "__main__":
    main(comparison(methods.chosen_domain()))
