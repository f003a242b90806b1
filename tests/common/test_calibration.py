"""What confidence is worth: counted case by case, turned into thresholds, kept by a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import stats
from torch import Tensor

from common.batch import IGNORE
from common.calibration import (
    BINS,
    HeldOut,
    bounded_thresholds,
    class_thresholds,
    reliability,
)
from common.errors import ConfigError
from common.filters import CalibratedFilter, ClassCalibrated, Conformal
from common.fit import Company, FitSettings
from common.folds import fold_runs
from common.methods import FixMatch, Supervised
from common.metrics import confusion
from common.splits import Splits
from tests.toy import ToyRun, ToySettings, toy_fit


def world(seed: int, *, pixels: int, right_when_sure: float) -> tuple[Tensor, Tensor]:
    """Two classes; class 0 keeps its promise, class 1 is right ``right_when_sure`` as often."""
    rng = np.random.default_rng(seed)
    label, confidence = rng.integers(0, 2, pixels), rng.uniform(0.5, 1, pixels)
    odds = np.where(label == 0, confidence, confidence * right_when_sure)
    truth = np.where(rng.random(pixels) < odds, label, 1 - label)
    probs = np.stack([np.where(label == k, confidence, 1 - confidence) for k in (0, 1)])
    return torch.from_numpy(probs), torch.from_numpy(truth)


def held_out(probs: Tensor, truth: Tensor) -> HeldOut:
    return HeldOut(reliability(probs, truth), confusion(probs.argmax(dim=0), truth, len(probs)))


def test_who_keeps_a_promise_is_believed_early_and_who_breaks_it_late() -> None:
    found = reliability(*world(0, pixels=200_000, right_when_sure=0.8))
    kept, broken = class_thresholds(found, 0.85, 0.95, tolerance=0.01)
    assert kept == pytest.approx(0.85)
    assert broken == pytest.approx(0.95)


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_counts_are_what_a_loop_over_pixels_finds_and_add_up(seed: int) -> None:
    probs, truth = world(seed, pixels=60, right_when_sure=0.5)
    truth[:7] = IGNORE
    naive = np.zeros((3, 2, BINS))
    for p, t in zip(probs.T.numpy(), truth.numpy(), strict=True):
        if t != IGNORE:
            label = int(p.argmax())
            step = min(int(np.float64(p.max()) * BINS), BINS - 1)
            naive[:, label, step] += (1, label == t, p.max())
    np.testing.assert_allclose(reliability(probs, truth), naive, rtol=1e-6)
    halves = reliability(probs[:, :30], truth[:30]) + reliability(probs[:, 30:], truth[30:])
    np.testing.assert_allclose(halves, naive, rtol=1e-5)


def naive_threshold(found: np.ndarray, low: int, high: int, tolerance: float) -> float:
    """The rule in words: the first step from which on the class keeps its promise."""
    for step in range(low, high + 1):
        pixels, right, promised = found[:, step:].sum(axis=1)
        if pixels > 0 and right + tolerance * pixels >= promised:
            return step / BINS
    return high / BINS


@given(st.integers(0, 1000), st.integers(50, 90), st.integers(90, 99))
@settings(max_examples=30, deadline=None)
def test_thresholds_follow_the_rule(seed: int, low: int, high: int) -> None:
    found = reliability(*world(seed, pixels=300, right_when_sure=0.97))
    chosen = class_thresholds(found, low / BINS, high / BINS, tolerance=0.005)
    for label in (0, 1):
        said = naive_threshold(found[:, label].double().numpy(), low, high, 0.005)
        assert float(chosen[label]) == pytest.approx(said)


def test_a_class_never_predicted_gets_the_highest_threshold() -> None:
    assert class_thresholds(torch.zeros(3, 4, BINS), 0.8, 0.9, tolerance=0.01).tolist() == (
        pytest.approx([0.9] * 4)
    )


def naive_bound(found: np.ndarray, alpha: float, delta: float, fewest: int) -> float:
    """The rule in words: down from the first step with enough pixels, while the bound holds."""
    least = np.inf
    for step in reversed(range(BINS)):
        pixels, right, _ = found[:, step:].sum(axis=1)
        if pixels < fewest:
            continue
        mistakes = pixels - right
        bound = stats.beta.ppf(1 - delta, mistakes + 1, right) if right else 1.0
        if bound > alpha:
            break
        least = step / BINS
    return least


shares = st.floats(0.005, 0.4)


@given(st.integers(0, 1000), shares, shares, st.integers(1, 100))
@settings(max_examples=50, deadline=None)
def test_bounded_thresholds_follow_the_rule(
    seed: int, alpha: float, delta: float, fewest: int
) -> None:
    found = reliability(*world(seed, pixels=400, right_when_sure=0.97))
    chosen = bounded_thresholds(found, alpha, delta=delta, fewest=fewest)
    for label in (0, 1):
        said = naive_bound(found[:, label].double().numpy(), alpha, delta, fewest)
        assert float(chosen[label]) == pytest.approx(said)


@given(st.integers(0, 1000), st.tuples(shares, shares), st.tuples(shares, shares))
@settings(max_examples=50, deadline=None)
def test_a_smaller_alpha_or_delta_keeps_no_more(
    seed: int, alphas: tuple[float, float], deltas: tuple[float, float]
) -> None:
    found = reliability(*world(seed, pixels=4000, right_when_sure=0.97))
    strict = bounded_thresholds(found, min(alphas), delta=min(deltas), fewest=100)
    lenient = bounded_thresholds(found, max(alphas), delta=max(deltas), fewest=100)
    assert (strict >= lenient).all()


def test_a_class_always_right_is_kept_in_full_and_one_too_rare_or_often_wrong_not_at_all() -> None:
    found = torch.zeros(3, 4, BINS)
    found[0, 0, 50:90] = found[1, 0, 50:90] = 10  # always right
    found[0, 1, 50:90] = found[1, 1, 50:90] = 1  # also, but 40 pixels in all
    found[0, 2, 50:90], found[1, 2, 50:90] = 10, 9  # wrong in one of ten; class 3: never seen
    chosen = bounded_thresholds(found, 0.05, delta=0.1, fewest=50)
    assert chosen.tolist() == [0, torch.inf, torch.inf, torch.inf]


def test_of_pixels_that_err_independently_the_promise_is_broken_as_seldom_as_delta_says() -> None:
    rng, worlds, pixels = np.random.default_rng(0), 2000, 60
    odds = (np.arange(BINS) + 0.5) / BINS
    right = rng.binomial(pixels, odds, (worlds, BINS))  # a world for a class
    found = torch.from_numpy(np.stack([np.full((worlds, BINS), pixels), right, right])).float()
    chosen = bounded_thresholds(found, 0.1, delta=0.2, fewest=300)
    kept = chosen[chosen.isfinite()].double().numpy()
    erring = 1 - (kept + 1) / 2  # the mean over all steps from there on
    assert len(kept) > worlds / 2
    assert (erring > 0.1 + 1e-6).sum() <= 0.2 * worlds


def test_a_bound_that_no_class_could_pass_is_refused_in_words() -> None:
    with pytest.raises(ValidationError) as refused:
        Conformal(alpha=0.01, fewest=100)
    assert (
        "100 pixels without a mistake do not show that at most alpha 0.01 are wrong, at "
        "confidence 1 - delta = 0.9. Raise fewest, alpha or delta." in str(refused.value)
    )


def test_the_bounded_live_filter_trusts_nothing_before_a_class_was_shown_to_err_seldom() -> None:
    live = Conformal(alpha=0.3).start(2)
    probs = torch.tensor([[0.7, 0.3], [0.3, 0.7], [1.0, 0.0]]).T[None, :, None]
    assert live(probs).tolist() == [[[0.0, 0.0, 0.0]]]
    live.calibrate(held_out(*world(0, pixels=100_000, right_when_sure=0.5)))
    assert live(probs).tolist() == [[[1.0, 0.0, 1.0]]]


def test_the_live_filter_asks_of_each_pixel_what_its_class_demands() -> None:
    live = ClassCalibrated(low=0.5, high=0.9).start(2)
    probs = torch.tensor([[0.7, 0.3], [0.3, 0.7], [0.95, 0.05]]).T[None, :, None]
    assert live(probs).tolist() == [[[0.0, 0.0, 1.0]]]
    live.calibrate(held_out(*world(0, pixels=100_000, right_when_sure=0.5)))
    assert live(probs).tolist() == [[[1.0, 0.0, 1.0]]]


RULES = [
    (ClassCalibrated(low=0.5, high=0.9, every=4), [0.5, 0.9]),
    (Conformal(alpha=0.3, every=4), [0, torch.inf]),
]


@pytest.mark.parametrize(("rule", "thresholds"), RULES, ids=["class", "bound"])
def test_a_run_is_calibrated_on_schedule_by_cases_that_do_not_train_and_remembers(
    rule: CalibratedFilter, thresholds: list[float], tmp_path: Path
) -> None:
    method = FixMatch(filter=rule)
    asked = []

    def calibrate(predictor: torch.nn.Module) -> HeldOut:
        assert not predictor.training
        asked.append(1)
        return held_out(*world(0, pixels=100_000, right_when_sure=0.5))

    company = Company(calibrate=calibrate)
    learner, _ = toy_fit(method, tmp_path, FitSettings(steps=9), company=company)
    assert len(asked) == 2
    assert learner.keep.thresholds.tolist() == pytest.approx(thresholds)
    again, _ = toy_fit(method, tmp_path, FitSettings(steps=9), company=Company())
    assert torch.equal(again.keep.thresholds, learner.keep.thresholds)


def a_run(groups: dict[str, str], rule: CalibratedFilter) -> ToyRun:
    return ToyRun(
        domain=ToySettings(splits=Splits(labeled=tuple(groups), unlabeled=("u1", "u2"))),
        method=FixMatch(filter=rule),
        fit=FitSettings(steps=1000),
    )


@given(st.integers(2, 9), st.integers(2, 5), st.integers(0, 50))
@settings(max_examples=30, deadline=None)
def test_each_labeled_case_is_judged_once_by_who_never_saw_its_patient(
    cases: int, folds: int, seed: int
) -> None:
    groups = {f"c{i}": f"p{i // 2}" for i in range(cases)} | {"last": "other"}
    run = a_run(groups, ClassCalibrated(folds=folds, fold_steps=7)).model_copy(
        update={"seed": seed}
    )
    parts = fold_runs(run, groups)
    assert len(parts) == min(folds, len(set(groups.values())))
    judged = [name for part in parts for name in part.domain.splits.validation]
    assert sorted(judged) == sorted(groups)
    for part in parts:
        learned, held = part.domain.splits.labeled, part.domain.splits.validation
        assert {*learned, *held} == set(groups)
        assert not {groups[n] for n in learned} & {groups[n] for n in held}
        assert isinstance(part.method, Supervised)
        assert part.fit.steps == 7
        assert part.domain.splits.unlabeled == ()


@pytest.mark.parametrize("rule", [ClassCalibrated(), Conformal()], ids=lambda each: each.name)
def test_one_labeled_patient_cannot_be_cut_into_folds(rule: CalibratedFilter) -> None:
    groups = {"a": "P1", "b": "P1"}
    said = rf"filter {rule.name} compares.* one patient or block \('P1'\). Label a second one"
    with pytest.raises(ConfigError, match=said):
        fold_runs(a_run(groups, rule), groups)
