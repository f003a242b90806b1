"""Hippocampus MRI: 4 labeled volumes, 44 for the test, 172 unlabeled, the same network and steps.

No checkpoint is chosen: the last one is tested. `python -m benchmarks.hippocampus [--print]`.
"""

from benchmarks.arms import DATA, ROOT, Arm, Comparison, main
from medseg_ssl.adapter import medseg

CONFIGS = ROOT / "configs" / "medseg"
HERE = (f"domain.data={DATA / 'hippocampus'}",)
ALL = (
    f"domain.splits.labeled={CONFIGS / 'splits' / 'hippocampus_labeled_all.txt'}",
    "domain.splits.unlabeled=[]",
)

COMPARISON = Comparison(
    name="hippocampus",
    adapter=medseg,
    headline=("dice", "mean"),
    arms=[
        Arm("supervised-4", CONFIGS / "supervised.yaml", HERE),
        Arm("mean_teacher-4", CONFIGS / "mean_teacher.yaml", HERE),
        Arm("fixmatch-4", CONFIGS / "fixmatch.yaml", HERE),
        Arm("cross_pseudo-4", CONFIGS / "cross_pseudo.yaml", HERE),
        Arm(
            "supervised-all",
            CONFIGS / "supervised.yaml",
            (*HERE, *ALL),
        ),
    ],
)

if __name__ == "__main__":
    main(COMPARISON)
