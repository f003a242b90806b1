"""What the log says of a few steps, against counting pixel by pixel."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.batch import IGNORE, Batch, Labeled, Pseudo, SoftPseudo, Unlabeled
from common.meter import Meter
from common.methods import Outcome
from tests.toy import any_class

SIDES = {2: (4, 3), 3: (2, 3, 2)}
CLASSES = 3


def step(seed: int, *, dims: int, soft: bool, device: str = "cpu") -> tuple[Outcome, Batch]:
    rng = np.random.default_rng(seed)
    shape = (2, *SIDES[dims])
    valid = torch.from_numpy(rng.random(shape) < 0.7)
    weight = torch.from_numpy(rng.random(shape) * (rng.random(shape) < 0.5)).float() * valid
    if soft:
        probs = torch.from_numpy(rng.random((2, CLASSES, *SIDES[dims]))).float()
        pseudo = SoftPseudo(probs.to(device), weight.to(device))
    else:
        target = torch.from_numpy(rng.integers(0, CLASSES, shape))
        target = torch.where(valid, target, IGNORE)
        pseudo = Pseudo(target.to(device), weight.to(device))
    image = torch.zeros(2, 1, *SIDES[dims], device=device)
    possible = any_class(CLASSES, dims).expand(2, *[-1] * (1 + dims))
    batch = Batch(
        Labeled(image, torch.zeros(shape, dtype=torch.int64)),
        Unlabeled(image, valid.to(device), possible.to(device)),
    )
    losses = {name: torch.tensor(rng.random(), device=device) for name in ("supervised", "other")}
    return Outcome(losses=losses, pseudo=pseudo), batch


def naive(seen: list[tuple[Outcome, Batch]]) -> dict[str, float]:
    predicted, kept, losses = defaultdict(float), defaultdict(float), defaultdict(list)
    for outcome, batch in seen:
        for name, value in outcome.losses.items():
            losses[name].append(float(value))
        label, weight = outcome.pseudo
        target = label.argmax(dim=1) if isinstance(outcome.pseudo, SoftPseudo) else label
        for place in np.ndindex(*target.shape):
            if batch.unlabeled.valid[place]:
                predicted[int(target[place])] += 1
                kept[int(target[place])] += float(weight[place])
    values = {f"loss/{name}": float(np.mean(each)) for name, each in losses.items()}
    values["loss/total"] = sum(values.values())
    total = sum(predicted.values())
    values["coverage"] = sum(kept.values()) / max(total, 1)
    for index in range(CLASSES):
        values[f"coverage/{index}"] = kept[index] / max(predicted[index], 1)
        values[f"share/{index}"] = predicted[index] / max(total, 1)
    return values


@given(
    seeds=st.lists(st.integers(0, 1000), min_size=1, max_size=4),
    dims=st.sampled_from([2, 3]),
    soft=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_losses_coverage_and_shares_are_counted_pixel_by_pixel(
    seeds: list[int], dims: int, soft: bool
) -> None:
    seen = [step(seed, dims=dims, soft=soft) for seed in seeds]
    meter = Meter(CLASSES)
    for outcome, batch in seen:
        meter.see(outcome, batch)
    assert meter.flush() == pytest.approx(naive(seen), abs=1e-5)


def test_a_flush_is_a_fresh_start() -> None:
    meter, (outcome, batch) = Meter(CLASSES), step(1, dims=2, soft=False)
    meter.see(outcome, batch)
    first = meter.flush()
    meter.see(outcome, batch)
    assert meter.flush() == first


def test_supervised_training_speaks_of_losses_only() -> None:
    meter, (outcome, batch) = Meter(CLASSES), step(1, dims=2, soft=False)
    meter.see(outcome._replace(pseudo=None), batch)
    assert set(meter.flush()) == {"loss/supervised", "loss/other", "loss/total"}


def test_a_class_that_is_never_predicted_has_no_coverage_and_no_share() -> None:
    outcome, batch = step(1, dims=2, soft=False)
    only = Pseudo(torch.zeros_like(outcome.pseudo.target), outcome.pseudo.weight)
    meter = Meter(CLASSES)
    meter.see(outcome._replace(pseudo=only), batch)
    values = meter.flush()
    assert values["share/0"] == 1
    assert values["coverage/2"] == values["share/2"] == 0


def test_nothing_valid_is_zero_and_not_nan() -> None:
    outcome, batch = step(1, dims=2, soft=False)
    nowhere = torch.zeros_like(batch.unlabeled.valid)
    meter = Meter(CLASSES)
    meter.see(outcome, batch._replace(unlabeled=batch.unlabeled._replace(valid=nowhere)))
    assert meter.flush()["coverage"] == 0


@pytest.mark.parametrize("soft", [True, False])
def test_a_step_is_seen_without_waiting_for_the_device(soft: bool) -> None:
    meter = Meter(CLASSES)
    for seed in range(2):
        meter.see(*step(seed, dims=3, soft=soft, device="meta"))  # a value asked of it would raise


def test_what_is_seen_holds_no_graph() -> None:
    outcome, batch = step(1, dims=2, soft=False)
    loss = torch.ones(1, requires_grad=True).sum()
    meter = Meter(CLASSES)
    meter.see(outcome._replace(losses={"supervised": loss}), batch)
    assert not any(value.requires_grad for value in meter._sums.values())
