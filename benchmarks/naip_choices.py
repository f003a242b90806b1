"""The settings of naip.py, chosen on the validation block; no test tile is read.

Every candidate is trained on the three draws of 4 labeled tiles, for half as long as there.
`python -m benchmarks.naip_choices [--print]`.
"""

from benchmarks.arms import DATA, ROOT, Arm, Comparison, main
from rsseg_ssl.adapter import rsseg

CONFIGS = ROOT / "configs" / "rsseg"
SHARED = (
    f"domain.data={DATA / 'naip_landcover'}",
    "domain.splits.labeled=splits/labeled_1_32_seed{seed}.txt",
    "domain.network={name: linknet, encoder: tu-resnet10t}",
    "fit.steps=1500",
    "fit.learning_rate=3.0e-3",
    "fit.rate=one_cycle",
    "fit.warm_up=0",
    "fit.precision=bf16-mixed",
    "fit.save_every=500",
)
HALF = "method.strong_labeled=0.5"
CLASSES = "domain.class_share=0.5"
CLASSMIX = "method.mix={name: classmix}"
SOFT_DICE = (
    "method.unlabeled_loss={name: soft_dice}",
    "method.unlabeled_weight={name: sigmoid, end: 1.0, until: 0.2}",
)
BOTH = (CLASSES, HALF)
ALL = "method.filter={name: all}"
DICE = "method.unlabeled_loss={name: cross_entropy_dice}"


def candidate(name: str, method: str, *changes: str) -> Arm:
    """One thing to try."""
    return Arm(name, CONFIGS / f"{method}.yaml", (*SHARED, *changes))


COMPARISON = Comparison(
    name="naip_choices",
    adapter=rsseg,
    headline=("miou", ""),
    split="validation",
    arms=[
        candidate("supervised", "supervised"),
        candidate("supervised, strong", "supervised", HALF),
        candidate("supervised, classes", "supervised", CLASSES),
        candidate("supervised, classes, strong", "supervised", CLASSES, HALF),
        candidate("mean_teacher", "mean_teacher"),
        candidate("mean_teacher, strong", "mean_teacher", HALF),
        candidate("mean_teacher, classes", "mean_teacher", CLASSES),
        candidate("mean_teacher, classes, classmix", "mean_teacher", CLASSES, CLASSMIX),
        candidate("fixmatch, classes, classmix, dice", "fixmatch", CLASSES, CLASSMIX, ALL, DICE),
        candidate("fixmatch, both, classmix, dice", "fixmatch", *BOTH, CLASSMIX, ALL, DICE),
        candidate("cross_pseudo, both", "cross_pseudo", *BOTH),
        candidate("cross_pseudo, both, dice", "cross_pseudo", *BOTH, DICE),
        candidate("mean_teacher, both, soft dice", "mean_teacher", *BOTH, *SOFT_DICE),
    ],
)

if __name__ == "__main__":
    main(COMPARISON)
