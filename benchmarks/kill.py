"""Kill trainings with SIGKILL at random moments, start them again, and compare the last weights.

`python -m benchmarks.kill [--kills 3]` does so for both adapters on the real data, on the CPU.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.arms import DATA, ROOT

COMMANDS = {
    "medseg-ssl": (ROOT / "configs/medseg/fixmatch.yaml", DATA / "hippocampus", 40),
    "rsseg-ssl": (ROOT / "configs/rsseg/fixmatch.yaml", DATA / "naip_landcover", 12),
}


def train(command: str, folder: Path) -> list[str]:
    """The command line of a short training in ``folder``."""
    config, data, steps = COMMANDS[command]
    overrides = [f"domain.data={data}", f"fit.steps={steps}", "fit.save_every=2", "fit.log_every=2"]
    sets = [part for each in [*overrides, "fit.accelerator=cpu"] for part in ("--set", each)]
    script = Path(sys.executable).parent / command
    return [str(script), "train", str(config), "--output", str(folder), *sets]


def last_step(folder: Path) -> int:
    """The step of the latest checkpoint; 0 before the first."""
    path = folder / "latest.ckpt"
    return int(torch.load(path, weights_only=True)["step"]) if path.exists() else 0


def survive(command: str, folder: Path, kills: int, rng: random.Random) -> list[int]:
    """Train to the end, killed ``kills`` times on the way; the steps it was set back to."""
    steps, held = COMMANDS[command][2], []
    for target in sorted(rng.sample(range(2, steps - 2), kills)):
        process = subprocess.Popen(train(command, folder), stdout=subprocess.DEVNULL)
        while process.poll() is None and last_step(folder) < target:
            time.sleep(0.05)
        time.sleep(rng.random())
        process.kill()
        process.wait()
        held.append(last_step(folder))
    subprocess.run(train(command, folder), check=True, stdout=subprocess.DEVNULL)
    return held


def main() -> None:
    """Print, for each adapter, whether the weights are the same to the bit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    wanted = parser.parse_args()
    for command in COMMANDS:
        with tempfile.TemporaryDirectory() as scratch:
            unbroken, broken = Path(scratch, "unbroken"), Path(scratch, "broken")
            subprocess.run(train(command, unbroken), check=True, stdout=subprocess.DEVNULL)
            held = survive(command, broken, wanted.kills, random.Random(wanted.seed))
            a, b = (
                torch.load(each / "best.ckpt", weights_only=True)["model"]
                for each in (unbroken, broken)
            )
            same = all(torch.equal(a[key], b[key]) for key in a.keys() | b.keys())
            verdict = "bit-identical weights" if same else "DIFFERENT weights"
            print(f"{command}: killed and resumed at steps {held}: {verdict}", flush=True)


if __name__ == "__main__":
    main()
