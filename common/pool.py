"""Pseudo-labels as files: one label map for each unlabeled case, to open, correct and train on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import config
from common.adapter import Adapter
from common.domain import Watch
from common.environment import digest
from common.errors import ConfigError, DataError, RunError
from common.filters import All, AnyFilter
from common.hidden_truth import Trust, in_words, taught
from common.record import write_whole
from common.together import Asking, all_restored, answer, check_asking
from common.trained import Trained

RECORD = "pseudo_labels.json"
MAPS, CONFIDENCE = "labels", "confidence"
TRUSTED = 0.5
"""Pixels of at least so much trust keep their label; the others are unmarked."""


class Labeling(Asking):
    """How predictions become pseudo-labels, as in ``method`` of a config."""

    filter: AnyFilter = All()


def label(
    folders: Sequence[Path],
    adapter: Adapter,
    output: Path,
    *,
    overrides: Sequence[str] = (),
    watch: Watch = lambda what, done, total: None,
) -> list[Path]:
    """Write pseudo-labels of every unlabeled case of a run, on the grid of its image.

    A pixel is marked where the run trusts it, after source, filter and refiners. With several
    runs their predictions are combined first; cases, filter and refiners are those of the first.
    What a call was cut off from is done by the next one; a case that has its file is left alone.

    Args:
        folders: Of the runs, one or more.
        adapter: Of their domain.
        output: Holds the label maps in ``labels``, how sure the runs are in ``confidence`` (before
            filter and refiners), and what all of it is in ``pseudo_labels.json``.
        overrides: Of source, filter, refiners and combine, such as ``"filter.threshold=0.9"``.
        watch: Hears of progress.

    Returns:
        The label maps, in the order of the cases.

    Raises:
        ConfigError: When ``overrides`` cannot be used.
        DataError: When the run has no unlabeled case.
        RunError: When runs differ in their classes, ``output`` holds pseudo-labels of something
            else, or cannot be written.
    """
    runs = all_restored(folders, adapter)
    own = labeling(runs[0], overrides)
    check_asking(runs, own)
    domain, trusted = runs[0].domain, trust_of(runs[0], own)
    cases = [*domain.cases("unlabeled")]
    if not cases:
        raise DataError(f"run '{folders[0]}' has no unlabeled case to label: see domain.splits.")
    checkpoints = [digest([folder / "best.ckpt"]) for folder in folders]
    record = {
        "runs": [folder.name for folder in folders],
        "checkpoints": checkpoints,
        "combine": own.combine if len(folders) > 1 else None,
        "trust": trusted.name,
        "unmarked below trust": TRUSTED,
        "cases": [case.id for case in cases],
    }
    _claim(output, record)
    names = (folder.name for folder in folders)
    about = f"pseudo-label of {', '.join(names)}, checkpoint {', '.join(checkpoints)}"
    maps, doubts, written = output / MAPS, output / CONFIDENCE, []
    maps.mkdir(exist_ok=True)
    doubts.mkdir(exist_ok=True)
    for index, case in enumerate(cases):
        written.append(maps / domain.name_of(case))
        missing = [folder for folder in (maps, doubts) if not (folder / written[-1].name).exists()]
        if not missing:
            continue
        probs = answer(runs, own, case).cpu().float()
        if doubts in missing:
            domain.write_confidence(probs, case, doubts)
        if maps in missing:
            guess = taught(probs, trusted, domain.whole(case))
            sure = guess.weight[0] >= TRUSTED
            domain.write_pseudo(guess.probs[0], sure, case, maps, about=about)
        watch("labeled", index + 1, len(cases))
    return written


def labeling(found: Trained, overrides: Sequence[str]) -> Labeling:
    """How the run makes pseudo-labels, but for what is overridden.

    Raises:
        ConfigError: When ``overrides`` cannot be used.
    """
    method = found.run.method
    own = Labeling(source=method.source, filter=method.filter, refiners=method.refiners)
    return config.changed(own, overrides)


def trust_of(found: Trained, own: Labeling) -> Trust:
    """What is made of predictions of the run, or of several, when ``own`` says how.

    Raises:
        ConfigError: When that cannot be had from a finished run.
    """
    method, domain = found.run.method, found.domain
    keep = found.trust.keep
    if own.filter != method.filter:
        if own.filter.learns:
            raise ConfigError(
                f"filter {own.filter.name!r} is set while a run trains, so it cannot be chosen "
                "afterwards. Label with a run that trained with it, or choose another filter."
            )
        keep = own.filter.start(len(domain.task.classes))
    words = in_words(own.filter, own.refiners, own.source)
    return Trust(words, keep, own.refiners, own.source)


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
