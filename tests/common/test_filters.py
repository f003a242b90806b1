"""What single filters promise, and their values by hand."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from common.errors import ConfigError
from common.filters import (
    ClassCalibrated,
    ClassConfidence,
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
    Product,
    Rank,
    SelfAdaptive,
    Soft,
)
from common.filters.base import normalized_entropy
from common.hidden_truth import in_words
from tests.contracts.test_filters import predictions, probabilities


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


@given(predictions, st.integers(0, 1000))
@settings(max_examples=50, deadline=None)
def test_each_class_has_a_threshold_of_its_own(probs: Tensor, seed: int) -> None:
    """Pixel by pixel; and a higher threshold of one class changes nothing of the others."""
    rng = np.random.default_rng(seed)
    thresholds = rng.random(probs.shape[1])
    sure, label = probs.max(dim=1)
    own = torch.tensor(thresholds, dtype=torch.float32)
    kept = ClassConfidence(thresholds=tuple(thresholds))(probs)
    for at in np.ndindex(*label.shape):
        assert kept[at] == float(sure[at] >= own[label[at]])

    thresholds[0] += (1 - thresholds[0]) / 2
    fewer = ClassConfidence(thresholds=tuple(thresholds))(probs)
    assert torch.equal(fewer[label != 0], kept[label != 0])
    assert (fewer <= kept).all()


def test_one_threshold_for_all_classes_is_the_filter_confidence() -> None:
    probs = probabilities(0, dims=2, classes=4, sharpness=5)
    both = ClassConfidence(thresholds=(0.7,)), Confidence(threshold=0.7)
    assert torch.equal(*(each(probs) for each in both))


def test_thresholds_that_are_not_one_for_each_class_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"thresholds holds 2 values, but there are 3 classes"):
        ClassConfidence(thresholds=(0.5, 0.6)).start(3)


MEMBERS = (Confidence(threshold=0.6), ConfidencePower(), ClassRatio(kept=0.7), Rank(), Soft())
some_members = st.lists(st.sampled_from(MEMBERS), min_size=2, max_size=4).map(tuple)


@given(probs=predictions, members=some_members, another=st.sampled_from(MEMBERS))
@settings(max_examples=25, deadline=None)
def test_another_member_lets_no_pixel_teach_more_and_order_is_of_no_matter(
    probs: Tensor, members: tuple[Filter, ...], another: Filter
) -> None:
    weight = Product(filters=members)(probs)
    assert (Product(filters=(*members, another))(probs) <= weight + 1e-6).all()
    assert torch.allclose(Product(filters=members[::-1])(probs), weight, atol=1e-6)


def test_a_product_weighs_by_hand() -> None:
    probs = torch.tensor([[0.9, 0.1], [0.7, 0.3], [0.5, 0.5]]).T[None, :, None]
    product = Product(filters=(Confidence(threshold=0.6), ConfidencePower(power=2)))
    assert product(probs).flatten().tolist() == pytest.approx([0.81, 0.49, 0])


def test_a_report_calls_a_product_by_what_it_multiplies() -> None:
    assert in_words(Product(filters=(Confidence(threshold=0.9), Margin()))) == (
        "product, filters [{name: confidence, threshold: 0.9}, {name: margin, threshold: 0.7}]"
    )


def test_members_of_a_product_learn_as_if_alone() -> None:
    members = EmaGlobal(decay=0.9), Rank(memory_batches=2), Margin(threshold=0.1)
    product, *alone = (each.start(4) for each in (Product(filters=members), *members))
    for seed in range(4):
        probs = probabilities(seed, dims=2, classes=4, sharpness=3)
        expected = torch.stack([each(probs, 0.3) for each in alone]).prod(dim=0)
        assert torch.equal(product(probs, 0.3), expected)
        assert expected.any()


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ((), "multiplies two filters or more, got 0. Add one"),
        ((Margin(),), "got 1. Add one, or name the only one in place of product."),
        (
            (Margin(), ClassCalibrated()),
            "filter class_calibrated is set by held-out cases, and only by itself. Take it out of "
            "product, or name class_calibrated in place of product.",
        ),
        ((Margin(), Product()), "Input tag 'product' found"),
    ],
)
def test_what_multiplies_nothing_is_refused_in_words(
    members: tuple[Filter, ...], said: str
) -> None:
    with pytest.raises(ValidationError, match=re.escape(said)):
        Product(filters=members)
