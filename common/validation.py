"""Judging a predictor, and its pseudo-labels, on validation cases while a run trains."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import pandas as pd
import torch
from torch import nn

from common.batch import ClassVolume, Grid, most_probable
from common.calibration import HeldOut, calibration_error, pooled, reliability
from common.domain import Domain
from common.evaluate import predictions, rows, table
from common.fit import Learner, Validation
from common.hidden_truth import Seen, Trust, look
from common.metrics import confusion, pseudo_quality
from common.sources import Source, asked


def validation(
    domain: Domain, learner: Learner | None = None
) -> Callable[[nn.Module, float], Validation] | None:
    """Judge a predictor by the headline metric on the validation cases; None without any.

    Args:
        domain: Has the cases.
        learner: Whose pseudo-labels are judged there as well, if its method makes some: for each
            class how much is kept, how much of that is right, and the calibration error; and on how
            many pixels its teachers and students, or its peers, agree.
    """
    if next(iter(domain.cases("validation")), None) is None:
        return None

    def validate(predictor: nn.Module, progress: float) -> Validation:
        cases, looks = [], []
        for case, predicted in predictions(domain, predictor, "validation"):
            cases.append(rows(domain, case, predicted, "validation"))
            if learner is not None and learner.method.makes_pseudo_labels:
                truth = case.truth
                if truth is not None:
                    looks.append(look(domain, predictor, _trust(learner, progress), case, truth))
        summary = domain.summarize(table(pd.concat(cases)))
        metric, label = domain.headline
        score = float(summary[domain.headline])
        values = {f"validation/{metric}/{label}": score}
        values |= _of_pseudo_labels(looks) if looks else {}
        values |= _agreement(domain, learner.nets.opinions) if learner is not None else {}
        return Validation(score, values)

    return validate


def calibration(domain: Domain, source: Source) -> Callable[[nn.Module], HeldOut] | None:
    """What became of a predictor's pixels on the validation cases, as ``source`` asks it.

    None without any.
    """
    if next(iter(domain.cases("validation")), None) is None:
        return None

    def judge(predictor: nn.Module) -> HeldOut:
        network = asked(predictor, source, domain.mirrors)
        return pooled(
            _held_out(predicted.cpu(), truth.cpu())
            for case, predicted in predictions(domain, network, "validation")
            if (truth := case.truth) is not None
        )

    return judge


def _held_out(probs: ClassVolume, truth: Grid) -> HeldOut:
    counts = confusion(most_probable(probs, dim=0), truth, probs.shape[0])
    return HeldOut(reliability(probs, truth), counts)


def _trust(learner: Learner, progress: float) -> Trust:
    method, device = learner.method, next(learner.parameters()).device
    keep = functools.partial(learner.keep, progress=progress)
    return Trust("", lambda probs: keep(probs.to(device)).cpu(), method.refiners, method.source)


def _of_pseudo_labels(looks: list[Seen]) -> dict[str, float]:
    """What is written of them, but what is undefined as a share of nothing."""
    each = [pseudo_quality(seen.guess.probs[0], seen.guess.weight[0], seen.truth) for seen in looks]
    found = functools.reduce(lambda one, other: one + other, each)
    curves = torch.stack([reliability(seen.probs, seen.truth) for seen in looks]).sum(dim=0)
    by_class = {
        "held_out_kept": found.coverage,
        "held_out_right": found.precision,
        "held_out_ece": calibration_error(curves),
    }
    values = {
        f"{quantity}/{index}": float(value)
        for quantity, of_classes in by_class.items()
        for index, value in enumerate(of_classes)
    }
    return {name: value for name, value in values.items() if math.isfinite(value)}


def _agreement(domain: Domain, opinions: Sequence[nn.Module]) -> dict[str, float]:
    """The share of pixels for which all ``opinions`` name one class; nothing of fewer than two."""
    if len(opinions) < 2:
        return {}
    alike = pixels = 0
    for case in domain.cases("validation"):
        with torch.inference_mode():
            first, *others = (most_probable(domain.predict(each, case), dim=0) for each in opinions)
        same = torch.stack([each == first for each in others]).all(dim=0)
        alike, pixels = alike + int(same.sum()), pixels + same.numel()
    return {"held_out_agreement": alike / pixels}
