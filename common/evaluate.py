"""From a network and whole cases to numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pandas as pd
import torch
from torch import nn

from common.batch import ClassVolume
from common.domain import Case, Domain, Split
from common.fit import Validation

COLUMNS = ("case", "group", "split", "metric", "class", "value")


def predictions(
    domain: Domain, network: nn.Module, split: Split
) -> Iterator[tuple[Case, ClassVolume]]:
    """Each case of ``split`` with its probabilities, one at a time."""
    network.eval()
    for case in domain.cases(split):
        with torch.inference_mode():
            yield case, domain.predict(network, case)


def rows(domain: Domain, case: Case, predicted: ClassVolume, split: Split) -> pd.DataFrame:
    """The rows of cases.csv for one case."""
    measures = domain.measure(predicted, case)
    return pd.DataFrame(
        [(case.id, case.group, split, *measure) for measure in measures], columns=list(COLUMNS)
    )


def table(cases: pd.DataFrame) -> pd.DataFrame:
    """One row per case, one column per ``(metric, class)``."""
    return cases.pivot(index="case", columns=["metric", "class"], values="value")


def validation(domain: Domain) -> Callable[[nn.Module], Validation] | None:
    """Judge a predictor by the headline metric on the validation cases; None without any."""
    if next(iter(domain.cases("validation")), None) is None:
        return None

    def validate(predictor: nn.Module) -> Validation:
        cases = pd.concat(
            rows(domain, case, predicted, "validation")
            for case, predicted in predictions(domain, predictor, "validation")
        )
        summary = domain.summarize(table(cases))
        metric, label = domain.headline
        score = float(summary[domain.headline])
        return Validation(score=score, values={f"validation/{metric}/{label}": score})

    return validate
