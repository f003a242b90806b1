"""How good the pseudo-labels are, where somebody did annotate the unlabeled cases.

Training never sees these labels. An evaluation may, and its report says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from common.batch import ClassVolume, Grid, Pixel, SoftPseudo, Whole
from common.domain import Case, Domain, Watch
from common.filters import Filter
from common.keys import written
from common.labeling import Keep, trust
from common.metrics import PseudoQuality, pseudo_quality
from common.record import PseudoLabels, Quality
from common.refiners import Refiner, chained
from common.settings import Settings
from common.sources import Plain, Source, asked

MOST_CASES = 50
THRESHOLDS = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99)


class Trust(NamedTuple):
    """What a run makes of a prediction, and what that is called in a report."""

    name: str
    keep: Keep
    refiners: tuple[Refiner, ...] = ()
    source: Source = Plain()


class Seen(NamedTuple):
    """A whole case with a known truth."""

    probs: ClassVolume  # what the network says, as the run asks it
    guess: SoftPseudo  # what the run would teach of it, a batch of one
    truth: Grid
    pixel: Pixel


def look(domain: Domain, network: nn.Module, trusted: Trust, case: Case, truth: Grid) -> Seen:
    """Ask about a whole case, filter and refine it as training does with its patches.

    Weak labels are left out, so every class stays possible; a piece or a hole is that of the case.
    """
    with torch.inference_mode():
        network = asked(network, trusted.source, domain.mirrors)
        probs = domain.predict(network, case).cpu().float()
    whole = domain.whole(case)
    return Seen(probs, taught(probs, trusted, whole), truth.cpu(), whole.pixel)


@torch.inference_mode()
def taught(probs: ClassVolume, trusted: Trust, whole: Whole) -> SoftPseudo:
    """What the run would teach of a whole case that was predicted as ``probs``, a batch of one."""
    weak, pixel = whole
    guess = SoftPseudo(probs[None], trust(probs[None], trusted.keep, weak.valid))
    return chained(trusted.refiners, lambda: pixel)(guess, weak) if trusted.refiners else guess


def judge_pseudo_labels(
    domain: Domain,
    network: nn.Module,
    trusted: Trust,
    *,
    seed: int,
    watch: Watch,
    also: Sequence[Callable[[str, Seen], None]] = (),
) -> PseudoLabels | None:
    """Coverage and precision of pseudo-labels on unlabeled cases with truth.

    At most :data:`MOST_CASES` cases are looked at, drawn by ``seed``.

    Args:
        domain: Where the cases come from.
        network: Predictor, on its device.
        trusted: The source, the filter and the refiners.
        seed: Of the choice of cases.
        watch: Hears of progress.
        also: Are shown each case as well, with its name.

    Returns:
        Pixels predicted, kept and right by class; None where no unlabeled case has truth.
    """
    cases = [*domain.cases("unlabeled")]
    total: dict[str, PseudoQuality] = {}
    names = []
    network.eval()
    for case, truth in annotated(cases, seed):
        seen = look(domain, network, trusted, case, truth)
        found = _by_filter(seen, trusted.name)
        total = {name: total[name] + more if total else more for name, more in found.items()}
        names.append(case.id)
        for each in also:
            each(case.id, seen)
        watch("pseudo-labels", len(names), min(len(cases), MOST_CASES))
    if not names:
        return None
    own, *others = [quality(name, each) for name, each in total.items()]
    return PseudoLabels(
        cases=tuple(names),
        unlabeled=len(cases),
        seed=seed,
        quality=own,
        thresholds=tuple(others),
    )


def in_words(filter: Filter, refiners: Sequence[Refiner] = (), source: Source | None = None) -> str:
    """A filter with its settings, such as ``confidence, threshold 0.95``, and what is around it.

    The source comes first, unless it is the plain one, and the refiners last.
    """
    sources = [source] if source is not None and not isinstance(source, Plain) else []
    return "; then ".join(said(each) for each in (*sources, filter, *refiners))


def annotated(cases: Sequence[Case], seed: int) -> Iterator[tuple[Case, Grid]]:
    """Up to :data:`MOST_CASES` of those with a truth, drawn by ``seed``."""
    found = 0
    for index in np.random.default_rng(seed).permutation(len(cases)):
        truth = cases[index].truth
        if truth is None:
            continue
        yield cases[index], truth
        found += 1
        if found == MOST_CASES:
            return


def quality(name: str, found: PseudoQuality) -> Quality:
    """For the record."""
    return Quality(
        name=name,
        predicted=tuple(found.predicted.tolist()),
        kept=tuple(found.kept.tolist()),
        right=tuple(found.right.tolist()),
    )


def said(settings: Settings) -> str:
    """A member of a family with its settings, such as ``confidence, threshold 0.95``."""
    values = {key: getattr(settings, key) for key in type(settings).model_fields}
    name = str(values.pop("name", type(settings).__name__))
    return ", ".join([name, *(f"{key} {written(value)}" for key, value in values.items())])


def _by_filter(seen: Seen, name: str) -> dict[str, PseudoQuality]:
    """What the run teaches first, then each threshold on the largest probability."""
    confidence = seen.probs.amax(dim=0)
    found = {name: pseudo_quality(seen.guess.probs[0], seen.guess.weight[0], seen.truth)}
    for threshold in THRESHOLDS:
        weight = (confidence >= threshold).to(seen.probs.dtype)
        label = f"at least {threshold:g}" if threshold else "keep all"
        found[label] = pseudo_quality(seen.probs, weight, seen.truth)
    return found
