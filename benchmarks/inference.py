"""A whole volume through windows: against MONAI's SlidingWindowInferer, same windows and weights.

`python -m benchmarks.inference`: seconds and peak memory of each, in processes of their own that
take turns, and how far the answers are apart. The network of one layer leaves nothing but the
laying out and blending of windows; the default UNet shows what of that is left in practice.
`--large`: 1,024 voxels a side, ours alone, whose result lies on disk.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

import torch
from monai.inferers import SlidingWindowInferer
from torch import Tensor, nn

from medseg_ssl.inference import InferenceSettings, predict_volume
from medseg_ssl.networks import UNet

PATCH, CLASSES = (96, 96, 64), 3
CASES = {
    "160x160x88, UNet": ((160, 160, 88), "unet"),
    "160x160x88, one layer": ((160, 160, 88), "layer"),
    "512x512x200, one layer": ((512, 512, 200), "layer"),
    "1024x1024x1024, one layer": ((1024, 1024, 1024), "layer"),
}


def network_of(kind: str) -> nn.Module:
    """The same weights each time."""
    torch.manual_seed(0)
    return (UNet().build(1, CLASSES) if kind == "unet" else nn.Conv3d(1, CLASSES, 1)).eval()


def ours(network: nn.Module, image: Tensor) -> Tensor:
    return predict_volume(
        network, image, patch=PATCH, classes=CLASSES, settings=InferenceSettings()
    )


@torch.no_grad()
def theirs(network: nn.Module, image: Tensor) -> Tensor:
    inferer = SlidingWindowInferer(PATCH, 4, overlap=0.5, mode="gaussian", sigma_scale=0.125)
    probs: Tensor = inferer(image[None], lambda pixels: network(pixels).softmax(dim=1))[0]
    return probs


def once(who: str, case: str) -> None:
    """Print what one prediction costs, and a digest of it, as JSON."""
    torch.set_num_threads(1)
    shape, kind = CASES[case]
    image = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))
    network = network_of(kind)
    before, began = _peak_mib(), time.perf_counter()
    probs = (ours if who == "ours" else theirs)(network, image)
    taken, after = time.perf_counter() - began, _peak_mib()
    some = probs[:, ::37, ::31, ::29].float().flatten().tolist()
    print(json.dumps({"seconds": taken, "mib": after - before, "peak": after, "some": some}))


def measured(who: str, case: str) -> dict:
    command = [sys.executable, "-m", "benchmarks.inference", "--who", who, "--case", case]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return json.loads(said.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--who", choices=["ours", "monai"])
    parser.add_argument("--case", choices=[*CASES])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--large", action="store_true")
    chosen = parser.parse_args()
    if chosen.who:
        once(chosen.who, chosen.case)
    elif chosen.large:
        found = measured("ours", [*CASES][-1])
        print(f"{found['seconds']:.0f} s, at most {found['peak']:.0f} MiB in memory")
    else:
        print("| volume, network | s | MONAI, s | ratio | MiB | MONAI, MiB | ratio | apart |")
        print("|---|---|---|---|---|---|---|---|")
        for case in [*CASES][:-1]:
            print(_row(case, chosen.repeats), flush=True)


def _row(case: str, repeats: int) -> str:
    pairs = [(measured("ours", case), measured("monai", case)) for _ in range(repeats)]
    (s, other_s), (mib, other_mib) = (
        [statistics.median(each[side][key] for each in pairs) for side in (0, 1)]
        for key in ("seconds", "mib")
    )
    ratio = statistics.median(one["seconds"] / other["seconds"] for one, other in pairs)
    apart = max(abs(a - b) for a, b in zip(pairs[0][0]["some"], pairs[0][1]["some"], strict=True))
    return (
        f"| {case} | {s:.2f} | {other_s:.2f} | {ratio:.2f} | {mib:.0f} | {other_mib:.0f} | "
        f"{mib / other_mib:.2f} | {apart:.1g} |"
    )


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
