"""Every method of the survey under one budget: same network, steps, labels and test cases.

`python -m benchmarks.methods medseg|rsseg [--arms fixmatch] [--seeds 0] [--print]`: hippocampus MRI
with 4 labeled volumes, or NAIP land cover with 4 labeled tiles. One arm is one file of configs/.
"""

import sys

from benchmarks import naip
from benchmarks.arms import DATA, ROOT, Arm, Comparison, main
from medseg_ssl.domain import medseg
from rsseg_ssl.domain import rsseg

OTHER_DATA = ("voc_", "cityscapes_")
"""Recipes for data that the user brings."""

SHARED = {
    "medseg": (f"domain.data={DATA / 'hippocampus'}",),
    "rsseg": naip.labeled(32),
}


def arms(domain: str) -> list[Arm]:
    """One arm for each config of a domain."""
    files = sorted((ROOT / "configs" / domain).glob("*.yaml"))
    return [
        Arm(path.stem, path, SHARED[domain])
        for path in files
        if not path.stem.startswith(OTHER_DATA)
    ]


COMPARISONS = {
    "medseg": Comparison("methods_medseg", medseg, arms("medseg"), ("dice", "mean")),
    "rsseg": Comparison("methods_rsseg", rsseg, arms("rsseg"), ("miou", "")),
}

if __name__ == "__main__":
    if sys.argv[1:2] not in (["medseg"], ["rsseg"]):
        raise SystemExit("Say which: python -m benchmarks.methods medseg, or rsseg.")
    main(COMPARISONS[sys.argv.pop(1)])
