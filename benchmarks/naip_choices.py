"""The settings of naip.py, chosen on the validation block; no test tile is read.

Every candidate is trained on the three draws of 4 labeled tiles, for half as long as there.
`python -m benchmarks.naip_choices [--print]`.
"""

from benchmarks.arms import DATA, ROOT, Arm, Comparison, main
from rsseg_ssl.domain import rsseg

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
        candidate("mean_teacher", "mean_teacher"),
        candidate("mean_teacher, strong", "mean_teacher", HALF),
        candidate("cross_pseudo, strong", "cross_pseudo", HALF),
        candidate(
            "cross_pseudo, strong, dice",
            "cross_pseudo",
            HALF,
            "method.unlabeled_loss={name: cross_entropy_dice}",
        ),
        candidate(
            "fixmatch, strong, dice, classmix",
            "fixmatch",
            HALF,
            "method.filter={name: all}",
            "method.mix={name: classmix}",
            "method.unlabeled_loss={name: cross_entropy_dice}",
        ),
        candidate(
            "mean_teacher, strong, classmix",
            "mean_teacher",
            HALF,
            "method.mix={name: classmix}",
        ),
        candidate("supervised, strong, zoom", "supervised", HALF, "domain.weak.zoom=1.5"),
    ],
)

if __name__ == "__main__":
    main(COMPARISON)
