"""Label maps of files and folders, by one run or by several."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from common import config
from common.adapter import Adapter
from common.environment import digest
from common.record import write_whole
from common.splits import OneOf
from common.together import Asking, all_restored, answer, check_asking, refined

ALL = OneOf()
PROBABILITIES = "probabilities"


class Predicting(Asking):
    """How runs are asked, and what is written of their answer."""

    probabilities: bool = False  # of every class as well, in a folder beside the label maps


def predict(
    folders: Path | Sequence[Path],
    adapter: Adapter,
    paths: Sequence[Path],
    output: Path,
    *,
    overrides: Sequence[str] = (),
    part: OneOf = ALL,
    watch: Callable[[Path, int, int], None] = lambda path, done, total: None,
) -> list[Path]:
    """Predict files and folders with the best checkpoint; one label map each in ``output``.

    What a call was cut off from is done by the next one: ``predictions.json`` beside the label maps
    knows which image each was predicted from, by which checkpoints, and how they were asked. Where
    all of that is as it was, a label map is left as it is.

    Args:
        folders: A run, or several that predict together.
        adapter: Of their domain.
        paths: What to predict.
        output: Where to; made where it is missing.
        overrides: Of :class:`Predicting`, such as ``"source.name=mirrored"``.
        part: Of the cases, where several processes share them.
        watch: Hears of each label map, how many there are so far, and how many there will be.

    Raises:
        ConfigError: When ``overrides`` cannot be used.
        DataError: Naming every path that cannot be predicted.
        RunError: When a run has not finished, or runs differ in their classes.
    """
    asking = config.changed(Predicting(), overrides)
    folders = [folders] if isinstance(folders, Path) else folders
    first, *_ = runs = all_restored(folders, adapter)
    check_asking(runs, asking)
    cases = [*first.domain.find(paths)][part.number - 1 :: part.of]
    beside = output / PROBABILITIES
    (beside if asking.probabilities else output).mkdir(parents=True, exist_ok=True)
    by = {
        "runs": [folder.name for folder in folders],
        "checkpoints": [digest([folder / "best.ckpt"]) for folder in folders],
        "asked": asking.model_dump(mode="json"),
    }
    own = "" if part.of == 1 else f"-{part.number}-of-{part.of}"
    record = output / f"predictions{own}.json"
    done, written = _done(record, by), []
    for number, case in enumerate(cases, start=1):
        path, seen = output / first.domain.name_of(case), digest(case.files)
        files = [path, beside / path.name] if asking.probabilities else [path]
        if done.get(path.name) != seen or not all(each.exists() for each in files):
            probs = refined(first, asking, answer(runs, asking, case), case)
            if asking.probabilities:
                first.domain.write_probabilities(probs, case, beside)
            path = first.domain.write(probs, case, output)
            done[path.name] = seen
            text = json.dumps({**by, "images": done}, indent=2, ensure_ascii=False)
            write_whole(record, text + "\n")
        written.append(path)
        watch(path, number, len(cases))
    return written


def _done(record: Path, by: dict[str, Any]) -> dict[str, str]:
    """Label maps that were predicted by the same, and from which image each was."""
    try:
        known = json.loads(record.read_text(encoding="utf-8"))
        images = known.pop("images")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # nothing of ours
        return {}
    return {str(name): str(seen) for name, seen in images.items()} if known == by else {}
