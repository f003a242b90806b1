"""What a run ran on: versions, commit, device, data."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import torch

PACKAGES = ("seg-ssl", "torch", "lightning", "numpy", "monai", "nibabel", "torchgeo", "rasterio")


ENDS = 65_536
"""Bytes of each end of a file that its digest looks at, so that large scenes take no time."""


def record_environment(folder: Path, accelerator: str, files: Iterable[Path]) -> None:
    """Write ``folder/environment.json``."""
    record = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": device(accelerator),
        "threads": torch.get_num_threads(),
        "commit": _commit(),
        "data_digest": digest(files),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
    }
    text = json.dumps(record, indent=2)
    (folder / "environment.json").write_text(text + "\n", encoding="utf-8")


def device(accelerator: str) -> str:
    """The name of the device that computes."""
    if accelerator != "cpu" and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def memory_gib() -> float:
    """Of the first GPU, or of this machine where there is none."""
    if torch.cuda.is_available():
        return float(torch.cuda.get_device_properties(0).total_memory / 2**30)
    if sys.platform == "win32":  # which does not tell
        return math.nan
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def digest(files: Iterable[Path]) -> str:
    """The same for the same files: their names, sizes, and the bytes at both ends."""
    whole = hashlib.sha256()
    for path in sorted(files):
        size = path.stat().st_size
        with path.open("rb") as file:
            ends = file.read(ENDS)
            file.seek(max(0, size - ENDS))
            ends += file.read()
        whole.update(f"{path.name} {size} {hashlib.sha256(ends).hexdigest()}\n".encode())
    return whole.hexdigest()[:16]


def version() -> str:
    """Of this library."""
    return _version("seg-ssl") or "unknown"


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the source tree; None where the package was installed without one."""
    if not (Path(__file__).parents[1] / ".git").exists():
        return None
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
