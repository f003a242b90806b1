"""NAIP land cover: 4, 16 or all 132 labeled tiles, tested on 49 tiles of other places.

The draws of labeled tiles differ by seed and come with the data, as do the spatial blocks. No
checkpoint is chosen: the last one is tested. All arms share a LinkNet on a ResNet-10 from scratch
(5.4 million weights), 3,000 steps, one learning rate, and how labeled tiles are seen. Those, and
what differs from the shipped config of a method, were chosen on the validation block
(naip_choices.py). `python -m benchmarks.naip [--print]`.
"""

from benchmarks.arms import DATA, ROOT, Arm, Comparison, main
from rsseg_ssl.adapter import rsseg

CONFIGS = ROOT / "configs" / "rsseg"
SHARED = (
    f"domain.data={DATA / 'naip_landcover'}",
    "domain.network={name: linknet, encoder: tu-resnet10t}",
    "fit.steps=3000",
    "fit.learning_rate=3.0e-3",
    "fit.rate=one_cycle",
    "fit.warm_up=0",
    "fit.precision=bf16-mixed",
    "domain.class_share=0.5",
    "method.strong_labeled=0.5",
)
OWN = {
    "mean_teacher": (
        "method.unlabeled_loss={name: soft_dice}",
        "method.unlabeled_weight={name: sigmoid, end: 1.0, until: 0.2}",
    )
}


def labeled(share: int) -> tuple[str, ...]:
    """The overrides for one of the draws that come with the data."""
    return (*SHARED, f"domain.splits.labeled=splits/labeled_1_{share}_seed{{seed}}.txt")


COMPARISON = Comparison(
    name="naip",
    adapter=rsseg,
    headline=("miou", ""),
    arms=[
        *(
            Arm(
                f"{method}-1/{share}",
                CONFIGS / f"{method}.yaml",
                (*labeled(share), *OWN.get(method, ())),
            )
            for share in (32, 8)
            for method in ("supervised", "mean_teacher", "cross_pseudo")
        ),
        Arm(
            "supervised-all",
            CONFIGS / "supervised.yaml",
            (*SHARED, "domain.splits.labeled=splits/block_train.txt"),
        ),
    ],
)

if __name__ == "__main__":
    main(COMPARISON)
