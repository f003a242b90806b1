"""Finished runs, one or several, asked about whole cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from common import config
from common.adapter import Adapter
from common.batch import ClassVolume, SoftPseudo
from common.domain import Case
from common.errors import ConfigError, RunError
from common.evaluate import Otherwise
from common.hidden_truth import said
from common.refiners import AnyRefiner, chained
from common.settings import Settings
from common.sources import COMBINED, AnySource, Combine, Plain, asked
from common.trained import Trained, restored

ROWS = 64
"""Rows of a case that are combined at once, so that large ones may lie on disk."""


WORDS: Mapping[Combine, str] = {
    "mean": "by the mean of their probabilities",
    "vote": "by vote",
    "by_certainty": "by the mean of their probabilities, weighted by certainty",
}


class Asking(Settings):
    """How runs are asked, and what is made of their answer."""

    source: AnySource = Plain()
    combine: Combine = "mean"  # of several runs
    refiners: tuple[AnyRefiner, ...] = ()


def otherwise(folders: Sequence[Path], adapter: Adapter, overrides: Sequence[str]) -> Otherwise:
    """How runs predict together, or as ``overrides`` say, for an evaluation.

    Raises:
        ConfigError: When ``overrides`` cannot be used.
        RunError: When a run has not finished, or runs differ in their classes.
    """
    asking = config.changed(Asking(), overrides)
    first, *_ = runs = all_restored(folders, adapter)
    check_asking(runs, asking)
    names = ", ".join(folder.name for folder in folders)
    parts = [f"{names} together, {WORDS[asking.combine]}" if len(folders) > 1 else names]
    parts += [] if isinstance(asking.source, Plain) else [f"asked by {said(asking.source)}"]
    parts += [f"then {said(each)}" for each in asking.refiners]
    return Otherwise(
        first.learner.nets.predictor.eval(),
        lambda case: refined(first, asking, answer(runs, asking, case), case),
        "; ".join(parts),
    )


def all_restored(folders: Sequence[Path], adapter: Adapter) -> list[Trained]:
    """What run folders hold, if it goes together.

    Raises:
        RunError: When a folder holds no finished training, or runs differ in channels or classes.
    """
    runs = [restored(folder, adapter) for folder in folders]
    tasks = [(run.domain.task.channels, run.domain.task.classes) for run in runs]
    for task, folder in zip(tasks, folders, strict=True):
        if task != tasks[0]:
            raise RunError(
                f"'{folder}' has other channels or classes than '{folders[0]}'. Runs that predict "
                "together must have been trained for the same classes, in the same order."
            )
    return runs


def check_asking(runs: Sequence[Trained], asking: Asking) -> None:
    """Refuse what these runs cannot be asked.

    Raises:
        ConfigError: Naming it.
    """
    if len(runs) == 1 and asking.combine != "mean":
        raise ConfigError("--set combine: one run has nothing to combine. Name several, or none.")
    for run in runs:
        if problem := asking.source.unfit(run.learner.nets, run.domain.mirrors):
            raise ConfigError(f"--set source: {problem}")


@torch.inference_mode()
def answer(runs: Sequence[Trained], asking: Asking, case: Case) -> ClassVolume:
    """Class probabilities of a case: each run sees it in its own way, and is asked by the source.

    What a single run says is returned as it is, on disk where it is large.
    """
    answers = []
    for run in runs:
        network = asked(run.learner.nets.predictor.eval(), asking.source, run.domain.mirrors)
        answers.append(run.domain.predict(network, case))
    joint = answers[0]
    if len(answers) > 1:
        for at in range(0, joint.shape[1], ROWS):
            rows = torch.stack([each[:, at : at + ROWS].cpu().float() for each in answers])
            joint[:, at : at + ROWS] = COMBINED[asking.combine](rows[:, None])[0]
    return joint


@torch.inference_mode()
def refined(found: Trained, asking: Asking, probs: ClassVolume, case: Case) -> ClassVolume:
    """``probs`` of a case after the refiners; the same where there are none."""
    if not asking.refiners:
        return probs
    whole = found.domain.whole(case)
    guess = SoftPseudo(probs.cpu().float()[None], whole.weak.valid.float())
    return chained(asking.refiners, lambda: whole.pixel)(guess, whole.weak).probs[0]
