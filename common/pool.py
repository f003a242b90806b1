"""Pseudo-labels as files: one label map for each unlabeled case, to open, correct and train on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from common import config
from common.adapter import Adapter, file_name
from common.environment import digest
from common.errors import ConfigError, DataError, RunError
from common.filters import All, AnyFilter
from common.hidden_truth import Trust, Watch, guessed, in_words
from common.record import write_whole
from common.refiners import AnyRefiner
from common.settings import Settings
from common.sources import AnySource, Plain
from common.trained import Trained, restored

RECORD = "pseudo_labels.json"
MAPS = "labels"
TRUSTED = 0.5
"""Pixels of at least so much trust keep their label; the others are unmarked."""


class Labeling(Settings):
    """How a network's predictions become pseudo-labels, as in ``method`` of a config."""

    source: AnySource = Plain()
    filter: AnyFilter = All()
    refiners: tuple[AnyRefiner, ...] = ()


def label(
    folder: Path,
    adapter: Adapter,
    output: Path,
    *,
    overrides: Sequence[str] = (),
    watch: Watch = lambda what, done, total: None,
) -> list[Path]:
    """Write the pseudo-labels of every unlabeled case of a run, on the grid of its image.

    A pixel is marked where the run trusts it, after source, filter and refiners. What a call was
    cut off from is done by the next one; a case that has its file is left alone.

    Args:
        folder: Of the run.
        adapter: Of its domain.
        output: Holds the label maps in ``labels`` and what they are in ``pseudo_labels.json``.
        overrides: Of the run's source, filter and refiners, such as ``"filter.threshold=0.9"``.
        watch: Hears of progress.

    Returns:
        The label maps, in the order of the cases.

    Raises:
        ConfigError: When ``overrides`` cannot be used.
        DataError: When the run has no unlabeled case.
        RunError: When ``output`` holds pseudo-labels of something else, or cannot be written.
    """
    found = restored(folder, adapter)
    domain, network = found.domain, found.learner.nets.predictor.eval()
    trusted = trust_of(found, overrides)
    cases = [*domain.cases("unlabeled")]
    if not cases:
        raise DataError(f"run '{folder}' has no unlabeled case to label: see domain.splits.")
    record = {
        "run": folder.name,
        "checkpoint": digest([folder / "best.ckpt"]),
        "trust": trusted.name,
        "unmarked below trust": TRUSTED,
        "cases": [case.id for case in cases],
    }
    _claim(output, record)
    about = f"pseudo-label of run {folder.name}, checkpoint {record['checkpoint']}"
    maps, written = output / MAPS, []
    maps.mkdir(exist_ok=True)
    for index, case in enumerate(cases):
        there = [*maps.glob(f"{file_name(case.id)}.*")]
        if there:
            written.append(there[0])
            continue
        with torch.inference_mode():
            taught = guessed(domain, network, trusted, case).taught
            sure, probs = taught.weight[0] >= TRUSTED, taught.probs[0]
            written.append(domain.write_pseudo(probs, sure, case, maps, about=about))
        watch("labeled", index + 1, len(cases))
    return written


def trust_of(found: Trained, overrides: Sequence[str]) -> Trust:
    """What the run makes of a prediction, but for what is overridden."""
    method, domain = found.run.method, found.domain
    own = Labeling(source=method.source, filter=method.filter, refiners=method.refiners)
    asked = config.changed(own, overrides)
    keep = found.trust.keep
    if asked.filter != own.filter:
        if asked.filter.learns:
            raise ConfigError(
                f"filter {asked.filter.name!r} is set while a run trains, so it cannot be chosen "
                "afterwards. Label with a run that trained with it, or choose another filter."
            )
        keep = asked.filter.start(len(domain.task.classes))
    if problem := asked.source.unfit(found.learner.nets, domain.mirrors):
        raise ConfigError(f"--set source: {problem}")
    return Trust(
        in_words(asked.filter, asked.refiners, asked.source), keep, asked.refiners, asked.source
    )


def _claim(output: Path, record: dict[str, Any]) -> None:
    """Say in ``output`` what its files are, or refuse it where they are something else."""
    path = output / RECORD
    if path.exists():
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            known = None
        if known == record:
            return
        raise RunError(
            f"'{output}' holds pseudo-labels of another run, checkpoint or filter, see {RECORD} "
            "there. Choose another --output, or remove the folder."
        )
    if output.exists() and any(output.iterdir()):
        raise RunError(
            f"'{output}' is not empty and holds no {RECORD}. Choose a new folder for --output."
        )
    write_whole(path, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
