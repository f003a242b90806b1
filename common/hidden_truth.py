"""How good the pseudo-labels are, where somebody did annotate the unlabeled cases.

Training never sees these labels. An evaluation may, and its report says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from common.batch import ClassVolume, Grid
from common.domain import Case, Domain
from common.filters import Filter
from common.keys import written
from common.labeling import Keep
from common.metrics import PseudoQuality, pseudo_quality
from common.record import PseudoLabels, Quality

MOST_CASES = 50
THRESHOLDS = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99)

Watch = Callable[[str, int, int], None]
"""Hears what is being done, how much of it is done, and of how much."""


class Trust(NamedTuple):
    """A live filter, and what it is called in a report."""

    name: str
    keep: Keep


def judge_pseudo_labels(
    domain: Domain, network: nn.Module, trust: Trust, *, seed: int, watch: Watch
) -> PseudoLabels | None:
    """Coverage and precision of pseudo-labels on unlabeled cases with truth.

    At most :data:`MOST_CASES` cases are looked at, drawn by ``seed``.

    Returns:
        Pixels predicted, kept and right by class; None where no unlabeled case has truth.
    """
    cases = [*domain.cases("unlabeled")]
    total: dict[str, PseudoQuality] = {}
    seen = []
    network.eval()
    for case, truth in _annotated(cases, seed):
        with torch.inference_mode():
            probs = domain.predict(network, case).cpu()
            found = _by_filter(probs, truth.cpu(), trust)
        total = {name: total[name] + more if total else more for name, more in found.items()}
        seen.append(case.id)
        watch("pseudo-labels", len(seen), min(len(cases), MOST_CASES))
    if not seen:
        return None
    own, *others = [_quality(name, each) for name, each in total.items()]
    return PseudoLabels(
        cases=tuple(seen),
        unlabeled=len(cases),
        seed=seed,
        quality=own,
        thresholds=tuple(others),
    )


def in_words(filter: Filter) -> str:
    """A filter with its settings, such as ``confidence, threshold 0.95``."""
    keys = [key for key in type(filter).model_fields if key != "name"]
    return ", ".join([filter.name, *(f"{key} {written(getattr(filter, key))}" for key in keys)])


def _annotated(cases: list[Case], seed: int) -> Iterator[tuple[Case, Grid]]:
    found = 0
    for index in np.random.default_rng(seed).permutation(len(cases)):
        truth = cases[index].truth
        if truth is None:
            continue
        yield cases[index], truth
        found += 1
        if found == MOST_CASES:
            return


def _by_filter(probs: ClassVolume, truth: Grid, trust: Trust) -> dict[str, PseudoQuality]:
    """The filter of the run first, then each threshold on the largest probability."""
    confidence = probs.amax(dim=0)
    found = {trust.name: pseudo_quality(probs, trust.keep(probs[None])[0], truth)}
    for threshold in THRESHOLDS:
        weight = (confidence >= threshold).to(probs.dtype)
        name = f"at least {threshold:g}" if threshold else "keep all"
        found[name] = pseudo_quality(probs, weight, truth)
    return found


def _quality(name: str, found: PseudoQuality) -> Quality:
    return Quality(
        name=name,
        predicted=tuple(found.predicted.tolist()),
        kept=tuple(found.kept.tolist()),
        right=tuple(found.right.tolist()),
    )
