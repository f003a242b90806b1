"""Give a trained network away: to a scanner, a viewer, a server."""

from __future__ import annotations

import shutil
from pathlib import Path

from common.adapter import Adapter
from common.environment import version
from common.errors import ConfigError, RunError
from common.shipping import INPUT, OUTPUT, Parcel, Probabilities
from common.trained import restored


def export(folder: Path, adapter: Adapter, output: Path, *, to: str) -> Path:
    """Write the best network of a run in a format that needs nothing of this library.

    What is written answers with class probabilities, and is held against the network itself. The
    model card of an evaluated run goes with it.

    Args:
        folder: Of the run.
        adapter: Of its domain.
        output: A folder, which is made where it is missing.
        to: A format that the domain knows: ``onnx`` and ``torch`` in all.

    Returns:
        The file to open.

    Raises:
        ConfigError: When there is no such format, or a package for it is missing.
        RunError: When the run has not finished, ``output`` holds something, or the network does
            not go into the format.
    """
    found = restored(folder, adapter)
    cargo = adapter.cargo(found.run)
    if to not in cargo.formats:
        raise ConfigError(f"--to {to}: choose one of {', '.join(sorted(cargo.formats))}.")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise RunError(f"'{output}' exists and is not empty. Give another --output.")
    output.mkdir(parents=True, exist_ok=True)
    task = found.domain.task
    facts = {
        "software": f"seg-ssl {version()}",
        "method": found.run.method.name,
        "steps": found.run.fit.steps,
        "input": _described(INPUT, task.channels, cargo.sides),
        "output": _described(OUTPUT, len(task.classes), cargo.sides),
        **cargo.facts,
    }
    network = Probabilities(found.learner.nets.predictor.cpu().eval())
    made = cargo.formats[to](Parcel(network, (task.channels, *cargo.sides), facts), output)
    if (folder / "model_card.md").exists():
        shutil.copy2(folder / "model_card.md", output / "model_card.md")
    return made


def _described(name: str, maps: int, sides: tuple[int, ...]) -> dict[str, object]:
    return {"name": name, "shape": ["batch", maps, *sides], "type": "float32"}
