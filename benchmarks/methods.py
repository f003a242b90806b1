"""Every method of the survey under one budget: same network, steps, labels and test cases.

The budget is short, so that all of them can be run; longer ones are in hippocampus.py and naip.py.

`python -m benchmarks.methods medseg|rsseg [--arms fixmatch] [--seeds 0] [--print]`: hippocampus MRI
with 4 labeled volumes, or NAIP land cover with 4 labeled tiles. One arm is one file of configs/.
"""

import sys

from benchmarks import naip
from benchmarks.arms import DATA, ROOT, Arm, Comparison, main
from medseg_ssl.adapter import medseg
from rsseg_ssl.adapter import rsseg

OTHER_DATA = ("voc_", "cityscapes_", "la_", "acdc_", "pancreas_", "brats_")
"""Recipes for data that the user brings."""

MOST_USED = (
    "supervised",
    "mean_teacher",
    "fixmatch",
    "cross_pseudo",
    "unimatch",
    "u2pl",
    "ua_mt",
    "cutmix_seg",
    "ccvc",
    "dst",
    "bcp",
    "urpc",
    "cafs",
)
"""Three seeds; the others one."""

WHY = {
    "dhc-equal": ("dhc", ("method.difficulty_decay=1.0", "method.rarity_decay=1.0")),
    "dhc-rarity": ("dhc", ("method.difficulty_decay=1.0",)),
    "mc_net-both": ("mc_net", ("method.supervised_loss={name: cross_entropy_dice}",)),
    "ua_mt-1.0": ("ua_mt", ("method.unlabeled_weight={name: sigmoid, end: 1.0}",)),
}
"""Changed configs that tell why a method does not gain: class weights of DHC that stay 1 (for both
peers, or for hard classes alone), MC-Net with the supervised loss of most others, and UA-MT with
ten times its weight."""

SHARED = {  # single precision: few CPUs compute bfloat16 faster, and some far slower
    "medseg": (f"domain.data={DATA / 'hippocampus'}", "fit.steps=600"),
    "rsseg": (*naip.labeled(32), "fit.steps=1000", "fit.precision=32-true"),
}


def arms(domain: str) -> list[Arm]:
    """One arm for each config of a domain, the most used first, then those of :data:`WHY`."""
    names = {path.stem for path in (ROOT / "configs" / domain).glob("*.yaml")}
    others = sorted(n for n in names - {*MOST_USED} if not n.startswith(OTHER_DATA))
    shipped = [
        Arm(
            name,
            ROOT / "configs" / domain / f"{name}.yaml",
            SHARED[domain],
            seeds=(0, 1, 2) if name in MOST_USED else (0,),
        )
        for name in (*MOST_USED, *others)
    ]
    changed = [
        Arm(name, ROOT / "configs" / domain / f"{method}.yaml", (*SHARED[domain], *to), seeds=(0,))
        for name, (method, to) in WHY.items()
    ]
    return [*shipped, *changed]


COMPARISONS = {
    "medseg": Comparison("methods_medseg", medseg, arms("medseg"), ("dice", "mean")),
    "rsseg": Comparison("methods_rsseg", rsseg, arms("rsseg"), ("miou", "")),
}


def chosen_domain() -> str:
    """The first word of the command line, taken from it."""
    if sys.argv[1:2] not in (["medseg"], ["rsseg"]):
        raise SystemExit("Say which: medseg, or rsseg.")
    return sys.argv.pop(1)


if __name__ == "__main__":
    main(COMPARISONS[chosen_domain()])
