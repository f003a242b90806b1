"""Pseudo-labels as files: one label map for each unlabeled case, to open, correct and train on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from common.adapter import Adapter, file_name
from common.environment import digest
from common.errors import DataError, RunError
from common.hidden_truth import Watch, guessed
from common.record import write_whole
from common.trained import restored

RECORD = "pseudo_labels.json"
MAPS = "labels"
TRUSTED = 0.5
"""Pixels of at least so much trust keep their label; the others are unmarked."""


def label(
    folder: Path,
    adapter: Adapter,
    output: Path,
    *,
    watch: Watch = lambda what, done, total: None,
) -> list[Path]:
    """Write the pseudo-labels of every unlabeled case of a run, on the grid of its image.

    A pixel is marked where the run trusts it, after source, filter and refiners. What a call was
    cut off from is done by the next one; a case that has its file is left alone.

    Args:
        folder: Of the run.
        adapter: Of its domain.
        output: Holds the label maps in ``labels`` and what they are in ``pseudo_labels.json``.
        watch: Hears of progress.

    Returns:
        The label maps, in the order of the cases.

    Raises:
        DataError: When the run has no unlabeled case.
        RunError: When ``output`` holds pseudo-labels of something else, or cannot be written.
    """
    found = restored(folder, adapter)
    domain, network = found.domain, found.learner.nets.predictor.eval()
    cases = [*domain.cases("unlabeled")]
    if not cases:
        raise DataError(f"run '{folder}' has no unlabeled case to label: see domain.splits.")
    record = {
        "run": folder.name,
        "checkpoint": digest([folder / "best.ckpt"]),
        "trust": found.trust.name,
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
            taught = guessed(domain, network, found.trust, case).taught
            sure, probs = taught.weight[0] >= TRUSTED, taught.probs[0]
            written.append(domain.write_pseudo(probs, sure, case, maps, about=about))
        watch("labeled", index + 1, len(cases))
    return written


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
