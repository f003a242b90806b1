"""From a network and whole cases to numbers."""

from __future__ import annotations

import functools
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from torch import nn

from common import oversampling
from common.batch import ClassVolume
from common.diagnosis import judge_and_diagnose, looks
from common.domain import Case, Domain, ReportText, Split, Watch
from common.errors import DataError
from common.hidden_truth import Trust
from common.known import subgroups
from common.record import (
    CASES,
    SUMMARY,
    Evaluation,
    Picture,
    read_cases,
    read_evaluation,
    write_whole,
)
from common.statistics import bootstrap

DRAWS = 1000

logger = logging.getLogger("seg_ssl")


class Otherwise(NamedTuple):
    """A network, and how to predict other than by asking it once."""

    network: nn.Module  # whose pseudo-labels are judged
    predict: Callable[[Case], ClassVolume]
    words: str = ""


def predictions(
    domain: Domain, network: nn.Module, split: Split
) -> Iterator[tuple[Case, ClassVolume]]:
    """Each case of ``split`` with its probabilities, one at a time."""
    network.eval()
    for case in domain.cases(split):
        with torch.inference_mode():
            predicted = domain.predict(network, case)
        yield case, predicted


def rows(domain: Domain, case: Case, predicted: ClassVolume, split: Split) -> pd.DataFrame:
    """The rows of cases.csv for one case."""
    measures = domain.measure(predicted, case)
    return pd.DataFrame(
        [(case.id, case.group, split, *measure) for measure in measures], columns=list(CASES)
    )


def table(cases: pd.DataFrame) -> pd.DataFrame:
    """One row per case, one column per ``(metric, class)``, in the order they were measured."""
    wide = cases.pivot(index="case", columns=["metric", "class"], values="value")
    columns = pd.MultiIndex.from_frame(cases[["metric", "class"]].drop_duplicates())
    return wide.reindex(index=pd.Index(cases["case"].unique(), name="case"), columns=columns)


def evaluate(
    domain: Domain,
    network: nn.Module | Otherwise,
    *,
    split: Split,
    folder: Path,
    trust: Trust | None,
    watch: Watch | None = None,
    seed: int = 0,
) -> Evaluation:
    """Predict and measure every case of ``split``, and write down all that a report needs.

    Writes into ``folder``: predictions/, cases.csv (where rows of other splits stay),
    summary.csv, figures/ of the worst, median and best case, and evaluation.json.

    Args:
        domain: Where the cases come from.
        network: Predictor, on its device.
        split: Which cases.
        folder: The run folder.
        trust: What the run trusts; judged on unlabeled cases whose truth is known, and diagnosed
            where there is a case to do so. None where the run makes no pseudo-labels.
        watch: Hears of progress.
        seed: Of the bootstrap, and of the choice of unlabeled cases.

    Raises:
        DataError: When the split has no case, or no case with truth.
        RunError: When a file cannot be written.
    """
    began = time.monotonic()
    if not isinstance(network, Otherwise):
        network = Otherwise(network, functools.partial(domain.predict, network.eval()))
    work = _Work(domain, network.predict, split, folder, watch or (lambda *_: None))
    measured, unmeasured = _measured(work, _check(domain, split))
    by_case = table(measured)
    groups = measured.drop_duplicates("case")["group"].tolist()
    scores = _scores(domain, by_case)
    pseudo = None
    if trust is not None:
        pseudo = judge_and_diagnose(
            domain, network.network, trust, folder=folder, seed=seed, watch=work.watch
        )
    pictures = _pictures(work, scores)

    text = domain.describe()
    found = Evaluation(
        split=split,
        asked=network.words,
        headline=domain.headline,
        scores={str(case): _finite(score) for case, score in scores.items()},
        groups=len(set(groups)),
        unmeasured=tuple(unmeasured),
        classes=looks(domain),
        data=(*text.data, *(oversampling.facts(domain, trust.keep) if trust else ())),
        rules=tuple(text.rules),
        warnings=tuple(text.warnings),
        limits=tuple(text.limits),
        splits={name: tuple(cases) for name, cases in text.splits.items()},
        subgroups=_known(text, scores.index),
        pictures=pictures,
        pseudo_labels=pseudo,
        draws=DRAWS,
        seed=seed,
        seconds=time.monotonic() - began,
    )
    _write(work, measured, _summary(domain, by_case, groups, seed), found)
    return found


def _known(text: ReportText, cases: pd.Index) -> dict[str, dict[str, str]]:
    """The subgroup of each of ``cases``, by columns that say something of some."""
    own = {
        name: {str(case): of.get(str(case), "") for case in cases}
        for name, of in text.known.items()
    }
    return {name: subgroups(of) for name, of in own.items() if any(of.values())}


@dataclass(frozen=True, slots=True)
class _Work:
    """What is evaluated, and where to."""

    domain: Domain
    predict: Callable[[Case], ClassVolume]
    split: Split
    folder: Path
    watch: Watch


def _check(domain: Domain, split: Split) -> int:
    """How many cases the split holds, where at least one can be measured."""
    cases = [*domain.cases(split)]
    if not cases:
        raise DataError(
            f"split '{split}' holds no case, so there is nothing to evaluate. Choose another "
            f"split, or name cases under domain.splits.{split} in the config."
        )
    if all(case.truth is None for case in cases):
        raise DataError(
            f"none of the {len(cases)} cases of split '{split}' has a label, so nothing can be "
            "measured. Add label files, choose another split, or use predict instead."
        )
    return len(cases)


def _measured(work: _Work, count: int) -> tuple[pd.DataFrame, list[str]]:
    """The rows of all cases with truth, and the names of those without; writes label maps."""
    target = work.folder / "predictions"
    target.mkdir(parents=True, exist_ok=True)
    found, unmeasured = [], []
    for case in work.domain.cases(work.split):
        with torch.inference_mode():
            predicted = work.predict(case)
        work.domain.write(predicted, case, target)
        if case.truth is None:
            unmeasured.append(case.id)
        else:
            found.append(rows(work.domain, case, predicted, work.split))
        work.watch(work.split, len(found) + len(unmeasured), count)
    if unmeasured:
        logger.warning(
            "%d of %d cases of split '%s' have no label: predicted, not measured: %s.",
            len(unmeasured),
            count,
            work.split,
            ", ".join(unmeasured),
        )
    return pd.concat(found, ignore_index=True), unmeasured


def _scores(domain: Domain, by_case: pd.DataFrame) -> pd.Series:
    """The headline metric of each case, as if it were the whole data set."""
    if domain.headline in by_case.columns:
        return by_case[domain.headline]
    alone = [domain.summarize(by_case.loc[[case]])[domain.headline] for case in by_case.index]
    return pd.Series(alone, index=by_case.index, dtype=float)


def _summary(
    domain: Domain, by_case: pd.DataFrame, groups: Sequence[str], seed: int
) -> pd.DataFrame:
    """The rows of summary.csv. A quantity that no single case has rests on all cases."""
    summary = domain.summarize(by_case)
    pairs = pd.MultiIndex.from_tuples([*summary.index], names=["metric", "class"])
    intervals = bootstrap(by_case, groups, domain.summarize, seed=seed, draws=DRAWS)
    spread = by_case.quantile([0.25, 0.5, 0.75]).T.set_axis(["q1", "median", "q3"], axis=1)
    found = spread.reindex(pairs)
    found["value"] = summary.to_numpy(dtype=float)
    found[["low", "high"]] = intervals.to_numpy()
    found["n"] = by_case.notna().sum().reindex(pairs, fill_value=len(by_case)).astype(int)
    return found.reset_index()[list(SUMMARY)]


def _ranked(scores: pd.Series) -> Mapping[str, str]:
    """Case name to rank: worst, median and best, each case once."""
    known = scores.dropna()
    order = sorted(known.index, key=lambda case: (known[case], case))
    if len(order) < 2:
        return dict.fromkeys([*order, *scores.index][:1], "only" if order else "not ranked")
    middle = {order[(len(order) - 1) // 2]: "median"} if len(order) > 2 else {}
    return {order[0]: "worst"} | middle | {order[-1]: "best"}


def _pictures(work: _Work, scores: pd.Series) -> tuple[Picture, ...]:
    """Draw the ranked cases, predicted once more: all probabilities would not fit memory."""
    ranked, target = _ranked(scores), work.folder / "figures"
    before = read_evaluation(work.folder / "evaluation.json")
    for old in before.pictures if before else ():
        (work.folder / old.path).unlink(missing_ok=True)
    target.mkdir(parents=True, exist_ok=True)
    drawn = {}
    for case in work.domain.cases(work.split):
        if case.id in ranked:
            with torch.inference_mode():
                predicted = work.predict(case)
            path = work.domain.figure(predicted, case, target)
            drawn[case.id] = path.relative_to(work.folder).as_posix()
            work.watch("figures", len(drawn), len(ranked))
    return tuple(
        Picture(path=drawn[case], case=case, rank=rank, score=_finite(scores[case]))
        for case, rank in ranked.items()
    )


def _write(work: _Work, measured: pd.DataFrame, summary: pd.DataFrame, found: Evaluation) -> None:
    """The tables; what cases.csv says of other splits stays."""
    cases = read_cases(work.folder / "cases.csv")
    others = cases[cases["split"] != work.split]
    together = pd.concat([others, measured]) if len(others) else measured
    write_whole(work.folder / "cases.csv", together.to_csv(index=False))
    write_whole(work.folder / "summary.csv", summary.to_csv(index=False))
    write_whole(work.folder / "evaluation.json", found.model_dump_json(indent=1) + "\n")


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
