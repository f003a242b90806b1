"""What lies around a pixel: against a loop over pixels."""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.neighborhoods import around, steps_within

sides = st.lists(st.sampled_from([0.1, 0.5, 1.0, 2.5]), min_size=2, max_size=3)


@given(sides=sides, reach=st.floats(0.05, 2.0))
@settings(max_examples=60, deadline=None)
def test_steps_lead_to_every_other_pixel_within_reach(sides: list[float], reach: float) -> None:
    steps, far = steps_within(reach, sides), math.ceil(reach / min(sides))
    expected = {
        step
        for step in itertools.product(range(-far, far + 1), repeat=len(sides))
        if any(step) and sum((n * s) ** 2 for n, s in zip(step, sides, strict=True)) <= reach**2
    }
    assert expected <= {*steps}
    assert len({*steps}) == len(steps)
    assert all(
        math.dist(np.multiply(step, sides), [0] * len(sides)) < reach + 1e-6 for step in steps
    )


def test_three_pixels_of_a_tenth_are_three_tenths() -> None:
    assert (0, 3) in steps_within(0.3, (0.1, 0.1))


@given(dims=st.sampled_from([2, 3]), seed=st.integers(0, 1000), reach=st.floats(0.9, 2.5))
@settings(max_examples=25, deadline=None)
def test_pixels_see_their_neighbors_and_nothing_beyond_the_edge(
    dims: int, seed: int, reach: float
) -> None:
    maps = torch.randn(2, 3, *(3, 4, 2)[:dims], generator=torch.Generator().manual_seed(seed))
    steps = steps_within(reach, [1.0] * dims)
    for step, seen in zip(steps, around(maps, steps), strict=True):
        assert seen.shape == maps.shape
        for at in np.ndindex(*maps.shape[2:]):
            there = np.add(at, step)
            inside = (there >= 0).all() and (there < maps.shape[2:]).all()
            expected = maps[(..., *there)] if inside else torch.zeros(2, 3)
            assert torch.equal(seen[(..., *at)], expected)


def test_no_step_no_neighbor() -> None:
    assert [*around(torch.ones(1, 1, 2, 2), steps_within(0.4, (1.0, 1.0)))] == []
