"""What sources, filters and refiners make of one half-trained network, held against hidden truth.

A supervised network learns from 4 labeled cases for half as long as in hippocampus.py and naip.py.
Filters that learn see 300 batches of unlabeled patches first; those that held-out cases set are set
by the validation cases (of the hippocampus 4 further ones). Then all are asked about the same
unlabeled cases, whole, whose truth no training saw. `python -m benchmarks.filters medseg|rsseg
[--print] [--draw]`: `--draw` makes docs/filters.png of both.
"""

from __future__ import annotations

import argparse
import typing
from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from torch import nn

from benchmarks import hippocampus, naip
from benchmarks.arms import ROOT
from benchmarks.cost import LENGTHS
from common import validation, verbs
from common.adapter import Adapter
from common.calibration import BINS, HeldOut, threshold_for
from common.domain import Domain
from common.filters import (
    All,
    AnyFilter,
    Calibrated,
    ClassConfidence,
    Confidence,
    Filter,
    SeesLabels,
)
from common.hidden_truth import Seen, Trust, annotated, in_words, look
from common.labeling import trust
from common.metrics import PseudoQuality, pseudo_quality
from common.refiners import AnyRefiner, Refiner, chained
from common.sources import MCDropout, Mirrored, Plain, Propagation, Prototypes, Source
from common.trained import Trained, restored
from medseg_ssl.adapter import medseg
from rsseg_ssl.adapter import rsseg

RESULTS = ROOT / "benchmarks" / "results"
PICTURE = ROOT / "docs" / "filters.png"
CASES = 24
BATCHES = 300
HELD_OUT = [f"hippocampus_{number}" for number in ("003", "004", "006", "008")]


class Setting(NamedTuple):
    """A domain, and where its half-trained network comes from."""

    adapter: Adapter
    config: str
    overrides: tuple[str, ...]
    title: str


SETTINGS = {
    "medseg": Setting(
        medseg,
        "medseg/supervised.yaml",
        (
            *hippocampus.HERE,
            f"domain.splits.validation=[{', '.join(HELD_OUT)}]",
            "domain.batch.unlabeled=4",
            "fit.steps=750",
        ),
        "Hippocampus MRI, 4 labeled volumes",
    ),
    "rsseg": Setting(
        rsseg,
        "rsseg/supervised.yaml",
        (
            *(each.replace("{seed}", "0") for each in naip.labeled(32)),
            "fit.steps=1500",
            "domain.batch.unlabeled=4",
        ),
        "NAIP land cover, 4 labeled tiles",
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("domain", choices=[*SETTINGS])
    parser.add_argument("--print", action="store_true", help="print the table, run nothing")
    parser.add_argument("--draw", action="store_true", help="make the picture of both domains")
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    path = RESULTS / f"filters_{wanted.domain}.csv"
    if not wanted.print:
        found = pd.DataFrame(judged(wanted.domain))
        found.to_csv(path, index=False, float_format="%.4f")
    print(as_table(pd.read_csv(path)))
    if wanted.draw:
        draw()


def half_trained(name: str) -> Trained:
    """The network of a domain, trained when it is asked for the first time."""
    setting, folder = SETTINGS[name], ROOT / "benchmarks" / "runs" / "filters" / name
    if not (folder / "best.ckpt").exists():
        config = ROOT / "configs" / setting.config
        run = verbs.load(config, setting.adapter, [*setting.overrides])
        verbs.train(run, setting.adapter, folder)
    return restored(folder, setting.adapter)


def judged(name: str) -> Iterator[dict[str, object]]:
    """A row for each source, filter and refiner, and for thresholds on the confidence."""
    trained = half_trained(name)
    domain, network = trained.domain, trained.learner.nets.predictor
    held_out = validation.calibration(domain, Plain())(network)
    filters = [*live_filters(domain, network, held_out)]
    cases = [*annotated([*domain.cases("unlabeled")], seed=0)][:CASES]
    told = {}
    for index, (case, truth) in enumerate(cases):
        print(f"case {index + 1} of {len(cases)}", flush=True)
        for key, quality in of_case(domain, network, filters, case, truth):
            told[key] = told[key] + quality if key in told else quality
    for (kind, words), quality in told.items():
        yield {"kind": kind, "what": words, **summary(quality)}


def of_case(domain: Domain, network: nn.Module, filters, case, truth) -> Iterator:
    """What one case says of everything."""
    plain = look(domain, network, Trust("", All()), case, truth)
    valid = domain.whole(case).weak.valid
    for threshold in [*np.round(np.linspace(0, 0.99, 34), 2).tolist(), 0.995, 0.999]:
        yield ("threshold", f"{threshold:g}"), kept(plain, Confidence(threshold=threshold), valid)
    for rule, live in filters:
        yield ("filter", in_words(rule)), kept(plain, live, valid)
    weak, pixel = domain.whole(case)
    for refiner in refiners():
        guess = chained((refiner,), lambda: pixel)(plain.guess, weak)
        words = in_words(All(), (refiner,)).split("; then ")[-1]
        yield ("refiner", words), pseudo_quality(guess.probs[0], guess.weight[0], plain.truth)
    for source in sources():
        seen = look(domain, network, Trust("", All(), (), source), case, truth)
        name = in_words(All(), (), source).removesuffix("; then all")
        yield ("source", name), pseudo_quality(seen.probs, seen.guess.weight[0], seen.truth)
        yield ("source, confidence 0.9", name), kept(seen, Confidence(threshold=0.9), valid)


def kept(seen: Seen, keep: Callable, valid: torch.Tensor) -> PseudoQuality:
    """What a filter keeps of a case."""
    return pseudo_quality(seen.probs, trust(seen.probs[None], keep, valid)[0], seen.truth)


def live_filters(
    domain: Domain, network: nn.Module, held_out: HeldOut
) -> Iterator[tuple[Filter, nn.Module]]:
    """Each filter as it stands in the middle of a training of this network."""
    classes = len(domain.task.classes)
    rules = [kind() for kind in typing.get_args(typing.get_args(AnyFilter)[0])]
    rules = [each for each in rules if not isinstance(each, ClassConfidence)]
    steps = [*range(BINS)]
    asked = threshold_for(held_out.reliability, 0.95, steps=steps, least_coverage=0.05)
    asked = asked.nan_to_num(1.0).tolist()
    rules.append(ClassConfidence(thresholds=tuple(round(each, 2) for each in asked)))
    lives = [each.start(classes) for each in rules]
    for batch in islice(domain.batches(seed=0, first_step=0), BATCHES):
        with torch.inference_mode():
            probs = network(batch.unlabeled.image).float().softmax(dim=1)
        for live in lives:
            for part in live.modules():
                if isinstance(part, SeesLabels):
                    part.see(batch.labeled.target)
            trust(probs, lambda some, live=live: live(some, progress=0.5), batch.unlabeled.valid)
    for rule, live in zip(rules, lives, strict=True):
        if isinstance(live, Calibrated):
            live.calibrate(held_out)
        live.eval()
        yield rule, lambda some, live=live: live(some, progress=0.5)


def refiners() -> list[Refiner]:
    """Each refiner that needs no weights, with lengths of a few pixels."""
    kinds = typing.get_args(typing.get_args(AnyRefiner)[0])
    named = {kind.model_fields["name"].default: kind for kind in kinds}
    return [kind(**LENGTHS.get(name, {})) for name, kind in named.items() if name != "sam"]


def sources() -> list[Source]:
    """Ways to ask that change which class is named."""
    several = {"mean", "vote", "by_certainty"}
    return [
        Plain(),
        *(Mirrored(combine=each) for each in sorted(several)),
        MCDropout(noise=0.1),
        Prototypes(),
        Propagation(alpha=0.5),
        Propagation(alpha=0.9),
    ]


def briefly(words: str) -> str:
    """A name and the first setting of its own that is a plain value."""
    name, *settings = words.split(", ")
    shared = ("oversampling", "every", "folds", "fold_steps")
    own = [each for each in settings if not each.startswith(shared)][:1]
    return ", ".join([name, *(each for each in own if not {*each} & {*"[{"})])


def summary(quality: PseudoQuality) -> dict[str, float]:
    """Coverage and precision of all pixels, and their means over the classes predicted."""
    predicted, kept, right = quality.predicted, quality.kept, quality.right
    return {
        "kept": float(kept.sum() / predicted.sum()),
        "right": float(right.sum() / kept.sum()) if kept.sum() > 0 else float("nan"),
        "kept, class mean": float((kept / predicted).nanmean()),
        "right, class mean": float((right / kept)[kept > 0].mean()),
    }


def as_table(found: pd.DataFrame) -> str:
    """All but the curve, as Markdown."""
    numbers = ["kept", "right", "kept, class mean", "right, class mean"]
    lines = [f"| | what | {' | '.join(numbers)} |", "|---|---|---|---|---|---|"]
    for _, row in found[found["kind"] != "threshold"].iterrows():
        cells = [f"{row[each]:.3f}" for each in numbers]
        lines.append(f"| {row['kind']} | {briefly(str(row['what']))} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _near(points: pd.DataFrame, x: str, y: str) -> list[pd.DataFrame]:
    """Points so near to each other that one label must do."""
    groups: list[list[int]] = []
    for index, row in points.sort_values([y, x]).iterrows():
        for group in groups:
            last = points.loc[group[-1]]
            if abs(last[x] - row[x]) < 0.045 and abs(last[y] - row[y]) < 0.0065:
                group.append(index)
                break
        else:
            groups.append([index])
    return [points.loc[group] for group in groups]


def draw() -> None:
    """Precision over coverage: the curve of one threshold, and each filter as a point."""
    figure, axes = plt.subplots(1, 2, figsize=(13, 5.5), layout="constrained")
    for axis, (name, setting) in zip(axes, SETTINGS.items(), strict=True):
        found = pd.read_csv(RESULTS / f"filters_{name}.csv")
        x, y = "kept, class mean", "right, class mean"
        curve = found[found["kind"] == "threshold"]
        axis.plot(curve[x], curve[y], color="0.6", zorder=1, label="one threshold on confidence")
        dropping = found["what"].str.startswith("boundary_band")
        points = found[(found["kind"] == "filter") | dropping]
        axis.scatter(points[x], points[y], s=22, zorder=2)
        for group in _near(points, x, y):
            names, at = group["what"].str.split(",").str[0], (group[x].mean(), group[y].min())
            left = at[0] > 0.82
            axis.annotate(
                ", ".join(names),
                at,
                (-7 if left else 5, -9 if left else 4),
                textcoords="offset points",
                ha="right" if left else "left",
                fontsize=7,
            )
        axis.set(title=setting.title, xlabel="kept, mean over classes", ylabel="right, of these")
        axis.legend(loc="upper right", frameon=False)
    figure.savefig(PICTURE, dpi=110)


if __name__ == "__main__":
    main()
