"""Every filter, in two and in three dimensions, keeps the same promises."""

from __future__ import annotations

import math
import typing
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from common.filters import AnyFilter, Confidence, Entropy, Filter
from common.filters.entropy import normalized_entropy

FILTERS: tuple[type[Filter], ...] = typing.get_args(typing.get_args(AnyFilter)[0])
SIDES = {2: (4, 5), 3: (3, 2, 4)}

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


def naive(filter: Filter) -> Callable[[np.ndarray], float]:
    """What the paper says of one pixel with class probabilities ``p``."""

    def entropy(p: np.ndarray) -> float:
        return -sum(float(each) * math.log(max(float(each), 1e-12)) for each in p) / math.log(
            len(p)
        )

    match filter.name:
        case "all":
            return lambda p: 1.0
        case "class_calibrated":  # before anything calibrated it
            return lambda p: float(p.max() >= filter.high)
        case "confidence":
            return lambda p: float(p.max() >= filter.threshold)
        case "entropy":
            return lambda p: float(entropy(p) <= filter.ceiling)
    raise NotImplementedError(f"write down what {filter.name} says of one pixel")


@every_filter
@given(probs=predictions)
@settings(max_examples=25, deadline=None)
def test_weights_lie_on_the_grid_and_in_0_1(filter: Filter, probs: Tensor) -> None:
    weight = filter(probs)
    assert weight.shape == probs[:, 0].shape
    assert weight.dtype == probs.dtype
    assert ((weight >= 0) & (weight <= 1)).all()


@every_filter
@given(probs=predictions)
@settings(max_examples=25, deadline=None)
def test_each_pixel_gets_what_the_paper_says(filter: Filter, probs: Tensor) -> None:
    weight, said = filter(probs), naive(filter)
    for sample, *where in np.ndindex(*weight.shape):
        pixel = probs[(sample, slice(None), *where)].numpy()
        if filter.name == "entropy" and abs(said_entropy(pixel) - filter.ceiling) < 1e-6:
            continue  # a tie that rounding decides
        assert float(weight[(sample, *where)]) == said(pixel)


def said_entropy(pixel: np.ndarray) -> float:
    return float(normalized_entropy(torch.from_numpy(pixel)[None, :, None])[0, 0])


@every_filter
def test_no_gradient_flows_through_trust(filter: Filter) -> None:
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    assert not filter(logits.softmax(dim=1)).requires_grad


@every_filter
@given(probs=predictions, seed=st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_the_order_of_the_classes_does_not_matter(filter: Filter, probs: Tensor, seed: int) -> None:
    order = torch.randperm(probs.shape[1], generator=torch.Generator().manual_seed(seed))
    close = (normalized_entropy(probs) - 0.5).abs() < 1e-5  # sums of another order round elsewhere
    assert torch.equal(filter(probs[:, order])[~close], filter(probs)[~close])


@every_filter
def test_the_live_filter_says_what_the_settings_say(filter: Filter) -> None:
    probs = probabilities(0, dims=3, classes=4, sharpness=4)
    live = filter.start(4)
    assert torch.equal(live(probs), filter(probs))
    assert not [*live.parameters()]


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
