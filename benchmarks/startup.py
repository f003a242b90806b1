"""How long `--help` takes: `python -m benchmarks.startup`, best and median of ten."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path


def seconds(command: str) -> float:
    """One call of ``command --help``."""
    began = time.perf_counter()
    script = Path(sys.executable).parent / command
    subprocess.run([str(script), "--help"], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


if __name__ == "__main__":
    for name in ("medseg-ssl", "rsseg-ssl"):
        taken = [seconds(name) for _ in range(10)]
        print(f"{name} --help: best {min(taken):.2f} s, median {statistics.median(taken):.2f} s")
