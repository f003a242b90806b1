"""NAIP land cover: 4, 16 or all 132 labeled tiles, tested on 49 tiles of other places.

The draws of labeled tiles differ by seed and come with the data, as do the spatial blocks. No
checkpoint is chosen: the last one is tested. All arms share a small U-Net that works at full
resolution (0.5 million weights), 4,000 steps and one learning rate; these were chosen on the
validation block with supervised arms only. `python -m benchmarks.naip [--print]`.
"""

from benchmarks.arms import DATA, ROOT, Arm, Comparison, main
from rsseg_ssl.domain import rsseg

CONFIGS = ROOT / "configs" / "rsseg"
UNET = (
    "domain.network={name: custom, target: 'monai.networks.nets:BasicUNet', multiple: 16, "
    "arguments: {spatial_dims: 2, in_channels: 4, out_channels: 6, norm: batch, "
    "features: [16, 16, 32, 64, 128, 16]}}"
)
SHARED = (
    f"domain.data={DATA / 'naip_landcover'}",
    UNET,
    "fit.steps=4000",
    "fit.learning_rate=3.0e-3",
    "fit.rate=one_cycle",
    "fit.warm_up=0",
)


def labeled(share: int) -> tuple[str, ...]:
    """The overrides for one of the draws that come with the data."""
    return (*SHARED, f"domain.splits.labeled=splits/labeled_1_{share}_seed{{seed}}.txt")


COMPARISON = Comparison(
    name="naip",
    adapter=rsseg,
    headline=("miou", ""),
    arms=[
        *(
            Arm(f"{method}-1/{share}", CONFIGS / f"{method}.yaml", labeled(share))
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
