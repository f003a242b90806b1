"""Every filter, in two and in three dimensions, keeps the same promises."""

from __future__ import annotations

import typing

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from common.filters import AnyFilter, CalibratedFilter, Filter, SeesLabels
from tests.contracts.filter_oracles import asked

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
    inside = ~outside & torch.from_numpy(told)  # chance may decide among equals
    assert torch.equal(filter(alone, progress)[:2][inside], filter(within, progress)[inside])


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
def test_a_filter_that_says_so_learns_and_no_other(filter: Filter) -> None:
    live = filter.start(4)
    before = {name: value.clone() for name, value in live.state_dict().items()}
    for seed in range(3):
        live(probabilities(seed, dims=2, classes=4, sharpness=9), 0.3)
        for part in live.modules():
            if isinstance(part, SeesLabels):
                part.see(torch.arange(16).view(1, 4, 4) % 4)
    changed = any(not torch.equal(value, before[name]) for name, value in live.state_dict().items())
    assert changed == (filter.learns and not isinstance(filter, CalibratedFilter))


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
