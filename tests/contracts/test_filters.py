"""Every filter, in two and in three dimensions, keeps the same promises."""

from __future__ import annotations

import math
import typing

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from common.filters import (
    AnyFilter,
    ClassRatio,
    Confidence,
    ConfidencePower,
    ConfidentShare,
    EmaGlobal,
    Entropy,
    EntropyPercentile,
    Filter,
    Flexible,
    Margin,
    Rank,
    SelfAdaptive,
    Soft,
)
from common.filters.base import normalized_entropy
from common.schedules import value_at

FILTERS: tuple[type[Filter], ...] = typing.get_args(typing.get_args(AnyFilter)[0])
SIDES = {2: (4, 5), 3: (3, 2, 4)}

moments = st.floats(0, 1)

every_filter = pytest.mark.parametrize(
    "filter", [kind() for kind in FILTERS], ids=lambda each: each.name
)


def probabilities(seed: int, *, dims: int, classes: int, sharpness: float) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return (sharpness * torch.randn(2, classes, *SIDES[dims], generator=rng)).softmax(dim=1)


predictions = st.builds(
    probabilities,
    st.integers(0, 10_000),
    dims=st.sampled_from([2, 3]),
    classes=st.integers(2, 6),
    sharpness=st.floats(0.1, 20),
)


def naive(filter: Filter, probs: np.ndarray, progress: float) -> np.ndarray:
    """By how much each pixel passes what the paper asks of it, pixel after pixel; below 0: not."""
    pixels = [probs[(sample, slice(None), *at)] for sample, *at in np.ndindex(probs[:, 0].shape)]
    there = np.array([p.sum() > 0 for p in pixels])
    sure = np.array([float(p.max()) for p in pixels])
    torn = np.array([entropy(p) for p in pixels])
    match filter.name:
        case "all":
            passed = np.ones(len(pixels))
        case "class_calibrated":  # before anything calibrated it
            passed = sure - filter.high
        case "confidence" | "confident_share":
            passed = sure - filter.threshold
        case "margin":
            passed = np.array([np.sort(p)[-1] - np.sort(p)[-2] for p in pixels]) - filter.threshold
        case "self_adaptive":  # as the first batch is judged
            label, start = np.array([int(p.argmax()) for p in pixels]), 1 / probs.shape[1]
            mean, share = start, np.full(probs.shape[1], start)
            if there.any():
                mean = filter.decay * mean + (1 - filter.decay) * sure[there].mean()
                seen = np.array(pixels)[there].mean(axis=0)
                share = filter.decay * share + (1 - filter.decay) * seen
            passed = sure - (mean * share / share.max())[label]
        case "flexible":  # as the first batch is judged
            label = np.array([int(p.argmax()) for p in pixels])
            reached = np.array([
                (there & (label == c) & (sure >= filter.threshold)).sum() / max(there.sum(), 1)
                for c in range(probs.shape[1])
            ]) * (1 - filter.decay)  # fmt: skip
            learned = reached / max(reached.max(), 1 - reached.sum())
            passed = sure - (filter.threshold * learned / (2 - learned))[label]
        case "ema_global":  # as the first batch is judged
            label = np.array([int(p.argmax()) for p in pixels])
            surest = [sure[there & (label == each)].max() for each in set(label[there])]
            seen = np.mean(surest) if surest else filter.start_at
            passed = sure - (filter.decay * filter.start_at + (1 - filter.decay) * seen)
        case "entropy":
            passed = filter.ceiling - torn
        case "entropy_percentile":
            dropped = np.float32(value_at(filter.dropped, progress)) * np.float32(there.sum())
            kept = there.sum() - math.floor(dropped)
            passed = (np.sort(torn[there])[kept - 1] if kept else -1) - torn
        case _:
            raise NotImplementedError(f"write down what {filter.name} says")
    return passed.reshape(probs[:, 0].shape)


def asked(
    filter: Filter, probs: np.ndarray, progress: float, *, rounding: float = 1e-6
) -> tuple[np.ndarray, np.ndarray]:
    """The weight that the paper gives each pixel, and where rounding cannot change it."""
    graded = {"rank": ranked, "confidence_power": powered, "soft": faded}
    if filter.name in graded:
        return graded[filter.name](filter, probs, progress), np.ones(probs[:, 0].shape, dtype=bool)
    if filter.name == "class_ratio":
        return surest_of_class(filter, probs, rounding)
    passed = naive(filter, probs, progress)
    sharp = np.abs(passed) > rounding
    if filter.name == "confident_share":  # all of them alike
        there = probs.max(axis=1) > 0
        share = (passed >= 0)[there].mean() if there.any() else 0.0
        return np.full(passed.shape, share), np.full(passed.shape, sharp[there].all())
    return passed >= 0, sharp


def ranked(filter: Rank, probs: np.ndarray, progress: float) -> np.ndarray:
    """2 / (1 + exp(-k r)) - 1, with the quantiles of this batch alone."""
    sure, label = probs.max(axis=1), probs.argmax(axis=1)
    weight, k = np.zeros(sure.shape), value_at(filter.steepness, progress)
    for at in np.ndindex(sure.shape):
        peers = np.sort(sure[(label == label[at]) & (sure > 0)])
        places = np.linspace(0, len(peers) - 1, filter.quantiles + 1).round()[1:].astype(int)
        r = np.mean(sure[at] > peers[places]) if len(peers) else 0
        weight[at] = 2 / (1 + math.exp(-k * r)) - 1
    return weight


def powered(filter: ConfidencePower, probs: np.ndarray, progress: float) -> np.ndarray:
    """The largest probability times itself."""
    return probs.max(axis=1) * probs.max(axis=1)


def faded(filter: Soft, probs: np.ndarray, progress: float) -> np.ndarray:
    """1 above the running mean, a Gaussian below, after this batch alone."""
    pixels = np.moveaxis(probs, 1, -1).reshape(-1, probs.shape[1]).astype(float)
    there, start, m = pixels.sum(axis=1) > 0, 1 / probs.shape[1], filter.decay
    share, mean, variance = np.full(probs.shape[1], start), start, 1.0
    if there.any():
        share = m * share + (1 - m) * pixels[there].mean(axis=0)
    aligned = pixels / share
    sure = (aligned / np.maximum(aligned.sum(axis=1, keepdims=True), 1e-12)).max(axis=1)
    if there.any():
        variance = m * variance + (1 - m) * sure[there].var()
        mean = m * mean + (1 - m) * sure[there].mean()
    weight = np.where(sure < mean, np.exp(-((sure - mean) ** 2) / (2 * variance)), 1.0)
    return (weight * there).reshape(probs[:, 0].shape)


def surest_of_class(
    filter: ClassRatio, probs: np.ndarray, rounding: float
) -> tuple[np.ndarray, np.ndarray]:
    """The surest pixels of each class of each image, and where no other is as sure as the last."""
    sure, label = probs.max(axis=1), probs.argmax(axis=1)
    weight, told = np.zeros(sure.shape), np.ones(sure.shape, dtype=bool)
    for image, named in zip(range(len(sure)), label, strict=True):
        for each in np.unique(named):
            peers = (named == each) & (sure[image] > 0)
            kept = math.ceil(np.float32(filter.kept) * np.float32(peers.sum()))
            if kept:
                last = np.sort(sure[image][peers])[-kept]
                weight[image] += peers & (sure[image] >= last)
                near = np.abs(sure[image] - last) < rounding
                told[image] &= ~(near & peers) | (near & peers).sum() == 1
    return weight, told


def entropy(p: np.ndarray) -> float:
    nats = -sum(float(each) * math.log(max(float(each), 1e-12)) for each in p)
    return nats / math.log(len(p))


@every_filter
@given(probs=predictions)
@settings(max_examples=25, deadline=None)
def test_weights_lie_on_the_grid_and_in_0_1(filter: Filter, probs: Tensor) -> None:
    weight = filter(probs)
    assert weight.shape == probs[:, 0].shape
    assert weight.dtype == probs.dtype
    assert ((weight >= 0) & (weight <= 1)).all()


@every_filter
@given(probs=predictions, progress=moments)
@settings(max_examples=25, deadline=None)
def test_each_pixel_gets_what_the_paper_says(
    filter: Filter, probs: Tensor, progress: float
) -> None:
    weight, told = asked(filter, probs.numpy(), progress)
    np.testing.assert_allclose(filter(probs, progress).numpy()[told], weight[told], atol=1e-6)


@every_filter
@given(probs=predictions, progress=moments, seed=st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_pixels_outside_of_the_image_have_no_say(
    filter: Filter, probs: Tensor, progress: float, seed: int
) -> None:
    outside = torch.rand(probs[:, 0].shape, generator=torch.Generator().manual_seed(seed)) < 0.4
    within = torch.where(outside.unsqueeze(1), 0, probs)
    weight, told = asked(filter, within.numpy(), progress)
    told &= ~outside.numpy()
    np.testing.assert_allclose(filter(within, progress).numpy()[told], weight[told], atol=1e-6)
    alone = torch.cat([within, torch.zeros_like(within)])
    assert torch.equal(filter(alone, progress)[:2][~outside], filter(within, progress)[~outside])


@every_filter
def test_no_gradient_flows_through_trust(filter: Filter) -> None:
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    assert not filter(logits.softmax(dim=1)).requires_grad


@every_filter
@given(probs=predictions, progress=moments, seed=st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_the_order_of_the_classes_does_not_matter(
    filter: Filter, probs: Tensor, progress: float, seed: int
) -> None:
    order = torch.randperm(probs.shape[1], generator=torch.Generator().manual_seed(seed))
    _, told = asked(filter, probs.numpy(), progress, rounding=1e-5)  # sums round elsewhere
    told = torch.from_numpy(told)
    assert torch.equal(filter(probs[:, order], progress)[told], filter(probs, progress)[told])


@every_filter
def test_the_live_filter_says_what_the_settings_say(filter: Filter) -> None:
    probs = probabilities(0, dims=3, classes=4, sharpness=4)
    live = filter.start(4)
    assert torch.equal(live(probs), filter(probs))
    assert not [*live.parameters()]


@every_filter
def test_a_live_filter_learns_in_training_only_and_a_checkpoint_brings_it_back(
    filter: Filter,
) -> None:
    live, other = filter.start(4), filter.start(4)
    for seed in range(5):
        live(probabilities(seed, dims=2, classes=4, sharpness=9), 0.3)
    other.load_state_dict(live.state_dict())
    before = {name: value.clone() for name, value in live.state_dict().items()}
    probs = probabilities(9, dims=2, classes=4, sharpness=9)
    assert torch.equal(live.eval()(probs, 0.3), other.eval()(probs, 0.3))
    assert all(torch.equal(value, before[name]) for name, value in live.state_dict().items())


@every_filter
def test_a_filter_waits_for_no_device(filter: Filter) -> None:
    probs = torch.zeros(2, 3, 4, 4, device="meta")  # a value asked of it would raise
    assert filter(probs).shape == (2, 4, 4)


@every_filter
def test_a_filter_survives_a_yaml_file_and_is_frozen(filter: Filter) -> None:
    known = TypeAdapter(AnyFilter)
    assert known.validate_python(filter.model_dump(mode="json")) == filter
    with pytest.raises(ValidationError):
        known.validate_python(filter.model_dump() | {"treshold": 0.5})
    with pytest.raises(ValidationError, match="frozen"):
        filter.name = "other"


def test_each_filter_has_its_own_name() -> None:
    names = [kind.model_fields["name"].default for kind in FILTERS]
    assert len(set(names)) == len(FILTERS)


@given(probs=predictions, thresholds=st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted))
@settings(max_examples=50, deadline=None)
def test_a_higher_threshold_keeps_no_more(probs: Tensor, thresholds: list[float]) -> None:
    low, high = (Confidence(threshold=each)(probs) for each in thresholds)
    assert (high <= low).all()


@given(probs=predictions, ceilings=st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted))
@settings(max_examples=50, deadline=None)
def test_a_higher_ceiling_keeps_no_less(probs: Tensor, ceilings: list[float]) -> None:
    low, high = (Entropy(ceiling=each)(probs) for each in ceilings)
    assert (high >= low).all()


def test_thresholds_of_0_and_ceilings_of_1_keep_everything() -> None:
    probs = probabilities(1, dims=2, classes=3, sharpness=2)
    assert Confidence(threshold=0)(probs).all()
    assert Entropy(ceiling=1)(probs).all()


@given(predictions)
@settings(max_examples=25, deadline=None)
def test_entropy_runs_from_certainty_to_a_tie(probs: Tensor) -> None:
    share = normalized_entropy(probs)
    assert (share >= 0).all()
    assert (share <= 1).all()


@pytest.mark.parametrize("classes", [2, 3, 6, 7, 14, 21])
def test_a_tie_is_1_and_certainty_is_0_for_any_number_of_classes_f10(classes: int) -> None:
    tie = torch.full((1, classes, 2, 2), 1 / classes)
    sure = torch.zeros(1, classes, 2, 2)
    sure[:, -1] = 1
    assert normalized_entropy(tie) == pytest.approx(1, abs=1e-6)
    assert normalized_entropy(sure) == pytest.approx(0, abs=1e-6)
    assert Entropy(ceiling=1)(tie).all()  # though rounding makes some ties larger than ln K


def test_confidence_by_hand() -> None:
    probs = torch.tensor([[0.95, 0.05], [0.94, 0.06], [0.02, 0.98]]).T[None, :, None]
    assert Confidence(threshold=0.95)(probs).tolist() == [[[1.0, 0.0, 1.0]]]


def test_the_confident_share_by_hand_with_a_pixel_outside_of_the_image() -> None:
    probs = torch.tensor([[0.97, 0.03], [0.96, 0.04], [0.0, 0.0], [0.5, 0.5]]).T[None, :, None]
    weight = ConfidentShare(threshold=0.968)(probs)
    assert weight.tolist() == [[[pytest.approx(1 / 3)] * 4]]


@given(probs=predictions, share=st.floats(0, 1), valid=st.integers(0, 40))
@settings(max_examples=100, deadline=None)
def test_the_share_dropped_is_the_share_asked_for_up_to_ties(
    probs: Tensor, share: float, valid: int
) -> None:
    there = torch.arange(probs[:, 0].numel()).view_as(probs[:, 0]) < valid
    weight = EntropyPercentile(dropped=share)(probs * there.unsqueeze(1))
    entropies = normalized_entropy(probs)[there].numpy()
    count = len(entropies)
    dropped = count - int(weight[there].sum())
    ties = count - len(np.unique(entropies))
    assert share * count - 1 - ties <= dropped <= share * count + 1e-4


@given(probs=predictions, shares=st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted))
@settings(max_examples=50, deadline=None)
def test_a_larger_share_dropped_keeps_no_more(probs: Tensor, shares: list[float]) -> None:
    small, large = (EntropyPercentile(dropped=each)(probs) for each in shares)
    assert (large <= small).all()
    assert EntropyPercentile(dropped=0)(probs).all()
    assert not EntropyPercentile(dropped=1)(probs).any()


def test_a_fifth_is_dropped_at_first_and_nothing_at_last() -> None:
    probs = probabilities(1, dims=2, classes=3, sharpness=2)
    kept = [EntropyPercentile()(probs, progress).mean() for progress in (0.0, 0.5, 1.0)]
    assert kept == pytest.approx([0.8, 0.9, 1.0])


@given(st.lists(predictions, min_size=1, max_size=4), st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=25, deadline=None)
def test_the_global_bound_is_the_average_in_closed_form_for_any_number_of_classes_f10(
    batches: list[Tensor], start_at: float, decay: float
) -> None:
    live = EmaGlobal(start_at=start_at, decay=decay).start(6)
    bound = start_at
    for probs in batches:
        live(probs)
        confidence, label = probs.double().max(dim=1)
        surest = [float(confidence[label == each].max()) for each in label.unique()]
        bound = decay * bound + (1 - decay) * np.mean(surest)
    assert float(live.bound) == pytest.approx(bound, abs=1e-5)
    live(torch.zeros_like(probs))  # a batch without a valid pixel
    assert float(live.bound) == pytest.approx(bound, abs=1e-5)


@given(probs=predictions, steepness=st.tuples(st.floats(0, 40), st.floats(0, 40)).map(sorted))
@settings(max_examples=50, deadline=None)
def test_a_steeper_rank_trusts_no_pixel_less(probs: Tensor, steepness: list[float]) -> None:
    flat, steep = (Rank(steepness=each)(probs) for each in steepness)
    assert (steep >= flat - 1e-6).all()


def test_a_class_that_is_never_sure_teaches_as_much_as_one_that_always_is() -> None:
    rng = torch.Generator().manual_seed(0)
    sure = torch.cat(
        [0.9 + 0.1 * torch.rand(64, generator=rng), 0.5 + 0.1 * torch.rand(64, generator=rng)]
    )
    first = torch.where(torch.arange(128) < 64, sure, 1 - sure)
    weight = Rank(steepness=2.0)(torch.stack([first, 1 - first]).view(1, 2, 8, 16)).flatten()
    assert weight[:64].sum() == pytest.approx(weight[64:].sum())
    assert weight.max() == pytest.approx(2 / (1 + math.exp(-2 * 0.95)) - 1)


@given(batches=st.lists(predictions, min_size=1, max_size=6), pixels=st.integers(1, 50))
@settings(max_examples=25, deadline=None)
def test_the_ranks_are_those_of_the_last_batches_evenly_spaced(
    batches: list[Tensor], pixels: int
) -> None:
    live, remembered = Rank(memory_batches=3, memory_pixels=pixels, quantiles=4).start(6), []
    for probs in batches:
        weight = live(probs, 0.0)
        sure, label = (each.flatten().numpy() for each in probs.max(dim=1))
        count = len(sure)
        kept = np.arange(min(count, pixels)) * max(count, pixels) // pixels
        remembered = [*remembered, (sure[kept], label[kept])][-3:]
    old_sure, old_label = (np.concatenate(each) for each in zip(*remembered, strict=True))
    for each, s, c in zip(weight.flatten(), sure, label, strict=True):
        peers = np.sort(old_sure[old_label == c])
        places = (np.arange(1, 5) / 4 * (len(peers) - 1)).round().astype(int)
        r = np.mean(s > peers[places]) if len(peers) else 0.0
        assert float(each) == pytest.approx(math.tanh(r), abs=1e-6)


@given(probs=predictions, thresholds=st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted))
@settings(max_examples=50, deadline=None)
def test_a_wider_margin_keeps_no_more(probs: Tensor, thresholds: list[float]) -> None:
    low, high = (Margin(threshold=each)(probs) for each in thresholds)
    assert (high <= low).all()
    assert Margin(threshold=0)(probs).all()


@given(probs=predictions, powers=st.tuples(st.floats(0, 9), st.floats(0, 9)).map(sorted))
@settings(max_examples=50, deadline=None)
def test_a_larger_power_trusts_no_pixel_more(probs: Tensor, powers: list[float]) -> None:
    low, high = (ConfidencePower(power=each)(probs) for each in powers)
    assert (high <= low).all()
    assert ConfidencePower(power=0)(probs).all()


@given(probs=predictions, shares=st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted))
@settings(max_examples=50, deadline=None)
def test_a_larger_ratio_keeps_no_less_and_of_each_class_exactly_its_share(
    probs: Tensor, shares: list[float]
) -> None:
    small, large = (ClassRatio(kept=each)(probs) for each in shares)
    assert (large >= small).all()
    assert ClassRatio(kept=1)(probs).all()
    assert not ClassRatio(kept=0)(probs).any()
    for weight, label in zip(large, probs.argmax(dim=1), strict=True):
        for each in label.unique():
            asked_for = np.float32(shares[1]) * np.float32((label == each).sum())
            assert weight[label == each].sum() == math.ceil(asked_for)


def learned(filter: Filter, probs: Tensor, steps: int = 60) -> torch.nn.Module:
    """A live filter that has seen ``probs`` many times."""
    live = filter.start(probs.shape[1])
    for _ in range(steps):
        live(probs)
    return live


@pytest.mark.parametrize("filter", [SelfAdaptive(decay=0.5), Flexible(threshold=0.7, decay=0.5)])
def test_a_class_that_is_learned_less_is_asked_for_less(filter: Filter) -> None:
    often, rarely = torch.tensor([0.9, 0.1]), torch.tensor([0.28, 0.72])
    probs = torch.stack([often] * 9 + [rarely], dim=1).view(1, 2, 2, 5)
    live = learned(filter, probs)
    unsure = torch.tensor([[0.6, 0.4], [0.4, 0.6]]).T.view(1, 2, 1, 2)
    assert live.eval()(unsure).tolist() == [[[0.0, 1.0]]]


def test_trust_is_full_at_the_mean_and_fades_below_it() -> None:
    sure, unsure = torch.tensor([0.95, 0.05]), torch.tensor([0.6, 0.4])
    probs = torch.stack([sure, sure.flip(0), unsure, unsure.flip(0)], dim=1).view(1, 2, 1, 4)
    weight = learned(Soft(decay=0.5), probs).eval()(probs)[0, 0]
    assert weight[:2].tolist() == [1.0, 1.0]
    assert weight[2:].tolist() == pytest.approx([math.exp(-0.5)] * 2)  # one deviation below
