"""NAIP land cover: 4, 16 or all 132 labeled tiles, tested on 49 tiles of other places.

The draws of labeled tiles differ by seed and come with the data, as do the spatial blocks. No
checkpoint is chosen: the last one is tested. All arms share a LinkNet on a ResNet-10 from scratch
(5.4 million weights), one learning rate, and how labeled tiles are seen. Those, and what differs
from the shipped config of a method, were chosen on the validation block (naip_choices.py), as was
the longer of both lengths (naip_longer.py). `python -m benchmarks.naip 3000|9000 [--print]`.
"""

import sys

from benchmarks.arms import DATA, ROOT, Arm, Comparison, main
from rsseg_ssl.adapter import rsseg

CONFIGS = ROOT / "configs" / "rsseg"
SHARED = (
    f"domain.data={DATA / 'naip_landcover'}",
    "domain.network={name: linknet, encoder: tu-resnet10t}",
    "fit.learning_rate=3.0e-3",
    "fit.rate=one_cycle",
    "fit.warm_up=0",
    "fit.precision=bf16-mixed",
    "domain.class_share=0.5",
    "method.strong_labeled=0.5",
)
EVERY = (*SHARED, "domain.splits.labeled=splits/block_train.txt")
"""All 132 tiles labeled."""
OWN = {
    "mean_teacher": (
        "method.unlabeled_loss={name: soft_dice}",
        "method.unlabeled_weight={name: sigmoid, end: 1.0, until: 0.2}",
    )
}


def labeled(share: int) -> tuple[str, ...]:
    """The overrides for one of the draws that come with the data."""
    return (*SHARED, f"domain.splits.labeled=splits/labeled_1_{share}_seed{{seed}}.txt")


def comparison(steps: int) -> Comparison:
    """All arms at one length."""
    length = f"fit.steps={steps}"
    few = [
        Arm(
            f"{method}-1/{share}",
            CONFIGS / f"{method}.yaml",
            (*labeled(share), *OWN.get(method, ()), length),
        )
        for share in (32, 8)
        for method in ("supervised", "mean_teacher", "cross_pseudo")
    ]
    return Comparison(
        name="naip" if steps == 3000 else f"naip_{steps}",
        adapter=rsseg,
        headline=("miou", ""),
        arms=[*few, Arm("supervised-all", CONFIGS / "supervised.yaml", (*EVERY, length))],
    )


def chosen_steps() -> int:
    """The first word of the command line, taken from it."""
    if sys.argv[1:2] not in (["3000"], ["9000"]):
        raise SystemExit("Say how many steps: 3000, or 9000.")
    return int(sys.argv.pop(1))


if __name__ == "__main__":
    main(comparison(chosen_steps()))
