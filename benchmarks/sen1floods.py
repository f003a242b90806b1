"""Radar chips with NaN, a mask that says nothing and an empty image: no NaN may come of them.

`python -m benchmarks.sen1floods [--steps 150]` trains, predicts and measures, and looks at every
number that was written.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import pandas as pd
import rasterio
import torch

from benchmarks.arms import DATA
from common import verbs
from rsseg_ssl.adapter import rsseg

LABELED = ("Ghana_83483", "India_900498", "Mekong_333434", "Nigeria_812045")  # the first: no label
TEST = ("Paraguay_34417", "Spain_7370579", "USA_905409")  # the first: no pixel
CONFIG = """\
domain:
  data: {data}
  classes:
    - {{name: not water, value: 0, color: [200, 190, 160]}}
    - {{name: water, value: 1, color: [43, 61, 255]}}
  ignore: [-1]
  splits: {{labeled: [{labeled}], test: [{test}]}}
  network: {{name: unet, encoder: mobilenet_v2}}
  batch: {{labeled: 4, unlabeled: 4}}
method: {{name: fixmatch, teacher_decay: 0.99, mix: {{name: cutmix}}}}
fit: {{steps: {steps}, learning_rate: 1.0e-3, log_every: 1}}
"""


def main() -> None:
    """Train, evaluate and count what is not finite."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=150)
    steps = parser.parse_args().steps
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        config, folder = Path(scratch, "floods.yaml"), Path(scratch, "run")
        text = CONFIG.format(
            data=DATA / "sen1floods11_sample",
            labeled=", ".join(LABELED),
            test=", ".join(TEST),
            steps=steps,
        )
        config.write_text(text, encoding="utf-8")
        verbs.train(verbs.load(config, rsseg), rsseg, folder)
        verbs.evaluate(folder, rsseg, split="test")
        log, cases = pd.read_csv(folder / "log.csv"), pd.read_csv(folder / "cases.csv")
        summary = pd.read_csv(folder / "summary.csv").set_index(["metric", "class"])["value"]
        with rasterio.open(next((folder / "predictions").glob("Paraguay*"))) as empty:
            nodata = (empty.read(1) == empty.nodata).mean()
        apart = cases[cases["case"] != TEST[0]]
        print(f"{len(log)} logged values, {log['value'].isna().sum()} not finite")
        undefined = apart[apart["value"].isna()]
        print(f"{len(apart)} measures of scenes with data; undefined, as a share of nothing:")
        print(undefined[["case", "metric", "class"]].to_string(index=False, header=False) or "none")
        print(f"the empty scene: {nodata:.0%} of its prediction is nodata")
        print(summary.to_string())


if __name__ == "__main__":
    main()
