"""What a run ran on: versions, commit, device."""

from __future__ import annotations

import json
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import torch

PACKAGES = ("seg-ssl", "torch", "lightning", "numpy", "monai", "nibabel", "torchgeo", "rasterio")


def record_environment(folder: Path, accelerator: str) -> None:
    """Write ``folder/environment.json``."""
    record = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": device(accelerator),
        "threads": torch.get_num_threads(),
        "commit": _commit(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
    }
    text = json.dumps(record, indent=2)
    (folder / "environment.json").write_text(text + "\n", encoding="utf-8")


def device(accelerator: str) -> str:
    """The name of the device that computes."""
    if accelerator != "cpu" and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the source tree; None where the package was installed without one."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
            timeout=5,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()
