"""NAIP land cover: 4, 16 or all 132 labeled tiles, tested on 49 tiles of other places.

The draws of labeled tiles differ by seed and come with the data, as do the spatial blocks. No
checkpoint is chosen: the last one is tested. `python -m benchmarks.naip [--print]`.
"""

from benchmarks.arms import DATA, ROOT, Arm, Comparison, main
from rsseg_ssl.domain import rsseg

CONFIGS = ROOT / "configs" / "rsseg"
HERE = f"domain.data={DATA / 'naip_landcover'}"


def labeled(share: int) -> tuple[str, ...]:
    """The overrides for one of the draws that come with the data."""
    return (HERE, f"domain.splits.labeled=splits/labeled_1_{share}_seed{{seed}}.txt")


COMPARISON = Comparison(
    name="naip",
    adapter=rsseg,
    headline=("miou", ""),
    arms=[
        *(
            Arm(f"{method}-1/{share}", CONFIGS / f"{method}.yaml", labeled(share))
            for share in (32, 8)
            for method in ("supervised", "mean_teacher", "fixmatch", "cross_pseudo")
        ),
        Arm(
            "supervised-all",
            CONFIGS / "supervised.yaml",
            (HERE, "domain.splits.labeled=splits/block_train.txt"),
        ),
    ],
)

if __name__ == "__main__":
    main(COMPARISON)
