"""What pixel-wise gradient boosting makes of the same NAIP tiles: a floor for every network.

Bands, NDVI, NDWI, and the mean and deviation of each band in windows of 5 and 15 pixels; 60,000
annotated pixels drawn by seed, and scikit-learn's own settings (400,000 and 200 rounds overfit 4
tiles). Needs scikit-learn (`pip install -e .[benchmarks]`).

`python -m benchmarks.naip_boosting [--print]`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from datetime import date

import numpy as np
import pandas as pd
import torch
from scipy.ndimage import uniform_filter
from sklearn.ensemble import HistGradientBoostingClassifier

from benchmarks import naip
from benchmarks.arms import KEPT, Arm, Comparison, main
from common import environment, evaluate, verbs
from common.batch import IGNORE
from rsseg_ssl import reader
from rsseg_ssl.cases import SceneCase

PIXELS = 60_000
RED, GREEN, NEAR_INFRARED = 0, 1, 3
SIDES = (5, 15)  # pixels


def features(case: SceneCase) -> np.ndarray:
    """What is known of each pixel, ``(H * W, features)``."""
    bands = reader.read(case, case.whole)[0].astype(np.float32)
    red, green, near = bands[RED], bands[GREEN], bands[NEAR_INFRARED]
    planes = [*bands, (near - red) / (near + red + 1), (green - near) / (green + near + 1)]
    for side in SIDES:
        for band in bands:
            mean = uniform_filter(band, side)
            planes += [mean, np.sqrt(np.maximum(uniform_filter(band**2, side) - mean**2, 0))]
    return np.stack(planes, axis=-1).reshape(-1, len(planes))


def drawn(cases: Iterable[SceneCase], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Features and classes of annotated pixels."""
    pairs = [(features(case), case.truth.flatten().numpy()) for case in cases]
    known, target = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    chosen = rng.permutation(np.flatnonzero(target != IGNORE))[:PIXELS]
    return known[chosen], target[chosen]


def run_arm(comparison: Comparison, arm: Arm, seed: int) -> pd.DataFrame:
    """Boosting on the labeled tiles of one arm, tested."""
    run = verbs.load(arm.config, comparison.adapter, [*arm.overrides_of(seed), f"seed={seed}"])
    domain = comparison.adapter.open(comparison.adapter.resolve(run))
    model = HistGradientBoostingClassifier(random_state=seed)
    model.fit(*drawn(domain.cases("labeled"), np.random.default_rng(seed)))
    measured = []
    for case in domain.cases(comparison.split):
        probs = np.zeros((len(domain.task.classes), *case.grid.shape_yx), dtype=np.float32)
        found = model.predict_proba(features(case)).T
        probs[model.classes_] = found.reshape(len(found), *case.grid.shape_yx)
        measured.append(evaluate.rows(domain, case, torch.from_numpy(probs), comparison.split))
    values = domain.summarize(evaluate.table(pd.concat(measured)))
    shown = {" ".join(key).strip(): value for key, value in values.items() if key[0] in KEPT}
    row = {"arm": arm.name, "seed": seed, **shown, "date": date.today().isoformat()}
    return pd.DataFrame([row | {"device": environment.device("cpu")}])


BASE = naip.comparison(3000)
COMPARISON = Comparison(
    name="naip_boosting",
    adapter=BASE.adapter,
    headline=BASE.headline,
    arms=[
        dataclasses.replace(arm, name=arm.name.replace("supervised", "boosting"))
        for arm in BASE.arms
        if arm.name.startswith("supervised")
    ],
    run_arm=run_arm,
)

if __name__ == "__main__":
    main(COMPARISON)
