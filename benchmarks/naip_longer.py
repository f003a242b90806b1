"""How long must NAIP be trained for more labels to show? Judged on the validation block.

Supervised on 16 tiles and on all 132, everything as in naip.py but the number of steps; no test
tile is read. `python -m benchmarks.naip_longer [--print]`.
"""

from benchmarks import naip
from benchmarks.arms import Arm, Comparison, main
from rsseg_ssl.adapter import rsseg

SUPERVISED = naip.CONFIGS / "supervised.yaml"
LABELED = {"1/8": naip.labeled(8), "all": naip.EVERY}
COMPARISON = Comparison(
    name="naip_longer",
    adapter=rsseg,
    headline=("miou", ""),
    split="validation",
    arms=[
        Arm(f"supervised-{share}, {steps} steps", SUPERVISED, (*labeled, f"fit.steps={steps}"))
        for steps in (9000, 3000)
        for share, labeled in LABELED.items()
    ],
)

if __name__ == "__main__":
    main(COMPARISON)
