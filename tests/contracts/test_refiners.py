"""Every refiner, in two and in three dimensions, keeps the same promises."""

from __future__ import annotations

import typing

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from scipy import ndimage
from torch import Tensor

from common.batch import Pixel, SoftPseudo, Unlabeled
from common.refiners import (
    AnyRefiner,
    BoundaryBand,
    FillHoles,
    LargestComponent,
    MinimumComponent,
    Refiner,
    Superpixels,
    chained,
)
from tests.tiny_sam import tiny_sam
from tests.toy import any_class

KINDS: tuple[type[Refiner], ...] = typing.get_args(typing.get_args(AnyRefiner)[0])
WITH = {
    "boundary_band": {"within": 1.5},
    "dense_crf": {"reach": 2.5},
    "majority": {"radius": 2.5},
    "minimum_component": {"smallest": 3.0},
    "opening": {"radius": 1.0},
    "random_walker": {"seed": 0.9},
    "sam": {"checkpoint": tiny_sam(), "agreement": 0.2, "fewest": 3, "largest": 0.9},
}
REFINERS = [kind(**WITH.get(kind.model_fields["name"].default, {})) for kind in KINDS]
SIDES = {2: (9, 7), 3: (5, 6, 4)}
SIZES = {2: (0.5, 2.0), 3: (1.0, 0.5, 3.0)}

every_refiner = pytest.mark.parametrize("refiner", REFINERS, ids=lambda each: each.name)


class World(typing.NamedTuple):
    guess: SoftPseudo
    weak: Unlabeled
    pixel: Pixel


def world(seed: int, *, dims: int, classes: int = 3, batch: int = 2) -> World:
    rng = np.random.default_rng(seed)
    shape = (batch, classes, *SIDES[dims])
    smooth = ndimage.gaussian_filter(rng.standard_normal(shape), (0, 0, *[1.0] * dims))
    probs = torch.from_numpy(12 * smooth).float().softmax(dim=1)
    valid = torch.from_numpy(rng.random(probs[:, 0].shape) < 0.9)
    weight = torch.from_numpy(rng.random(probs[:, 0].shape)).float() * valid
    image = torch.from_numpy(rng.standard_normal((batch, 2, *SIDES[dims]))).float()
    possible = any_class(classes, dims).expand(batch, *[-1] * (1 + dims))
    return World(
        SoftPseudo(probs, weight), Unlabeled(image, valid, possible), Pixel(SIZES[dims], "mm")
    )


worlds = st.builds(
    world, st.integers(0, 10_000), dims=st.sampled_from([2, 3]), classes=st.integers(2, 4)
)


@every_refiner
@given(given_world=worlds)
@settings(max_examples=25, deadline=None)
def test_trust_never_rises_and_probabilities_stay_some(
    refiner: Refiner, given_world: World
) -> None:
    guess, weak, pixel = given_world
    refined = refiner(guess, weak, pixel)
    assert refined.probs.shape == guess.probs.shape
    assert refined.weight.shape == guess.weight.shape
    assert refined.probs.dtype == guess.probs.dtype
    assert (refined.weight <= guess.weight).all()
    assert (refined.probs >= 0).all()
    torch.testing.assert_close(refined.probs.sum(dim=1), torch.ones_like(guess.weight))


@every_refiner
@given(given_world=worlds, seed=st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_what_lies_outside_of_the_image_has_no_say(
    refiner: Refiner, given_world: World, seed: int
) -> None:
    guess, weak, pixel = given_world
    other = world(seed, dims=weak.valid.ndim - 1, classes=guess.probs.shape[1]).guess.probs
    outside = torch.where(weak.valid.unsqueeze(1), guess.probs, other)
    one, two = (refiner(guess._replace(probs=p), weak, pixel) for p in (guess.probs, outside))
    assert torch.equal(one.predicted[weak.valid], two.predicted[weak.valid])
    assert torch.equal(one.weight[weak.valid], two.weight[weak.valid])


@every_refiner
@pytest.mark.parametrize("dims", [2, 3])
def test_a_class_that_is_not_possible_is_not_brought_in(refiner: Refiner, dims: int) -> None:
    for seed in range(10):
        guess, weak, pixel = world(seed, dims=dims)
        possible = weak.possible.expand_as(guess.probs).clone()
        drawn = torch.rand(guess.weight.shape) < 0.3
        scribbled = torch.nn.functional.one_hot(guess.predicted, 3).movedim(-1, 1).bool()
        possible = torch.where(drawn.unsqueeze(1), scribbled, possible)
        refined = chained([refiner], lambda p=pixel: p)(guess, weak._replace(possible=possible))
        assert torch.equal(refined.predicted[drawn], guess.predicted[drawn])


@every_refiner
def test_nothing_to_refine_stays_nothing(refiner: Refiner) -> None:
    guess, weak, pixel = world(0, dims=2)
    none = SoftPseudo(*(each[:0] for each in guess)), Unlabeled(*(each[:0] for each in weak))
    assert refiner(*none, pixel).probs.shape == guess.probs[:0].shape


@every_refiner
def test_a_refiner_survives_a_yaml_file(refiner: Refiner) -> None:
    assert TypeAdapter(AnyRefiner).validate_python(refiner.model_dump(mode="json")) == refiner


@pytest.mark.parametrize("refiner", [LargestComponent(), FillHoles(), BoundaryBand(within=1.2)])
@given(given_world=worlds)
@settings(max_examples=15, deadline=None)
def test_once_is_enough(refiner: Refiner, given_world: World) -> None:
    guess, weak, pixel = given_world
    once = refiner(guess, weak, pixel)
    twice = refiner(once, weak, pixel)
    assert torch.equal(twice.predicted, once.predicted)
    assert torch.equal(twice.weight, once.weight)


def drawn(*rows: str, classes: int = 3) -> tuple[SoftPseudo, Unlabeled]:
    """A map of digits, all trusted; the runner-up is the class after, of the last the first."""
    label = torch.tensor([[int(each) for each in row] for row in rows])[None]
    hot, runner_up = (torch.nn.functional.one_hot((label + k) % classes, classes) for k in (0, 1))
    probs = (0.7 * hot + 0.2 * runner_up + 0.1 / classes).movedim(-1, 1)
    ones = torch.ones(label.shape)
    weak = Unlabeled(torch.zeros(1, 1, *label.shape[1:]), ones > 0, any_class(classes, 2)[None])
    return SoftPseudo(probs / probs.sum(dim=1, keepdim=True), ones), weak


def rows(label: Tensor) -> list[str]:
    return ["".join(map(str, row)) for row in label[0].tolist()]


def test_specks_get_their_next_class_by_their_size_in_the_world() -> None:
    guess, weak = drawn("0000022", "0100022", "0000022", "1110000")
    small = MinimumComponent(smallest=2.5)
    assert rows(small(guess, weak, Pixel()).predicted) == rows(
        drawn("0000022", "0200022", "0000022", "1110000")[0].predicted
    )
    assert torch.equal(small(guess, weak, Pixel((1.0, 4.0), "m")).probs, guess.probs)
    both = MinimumComponent(smallest=6.5)(guess, weak, Pixel((0.5, 2.0), "m")).predicted
    assert rows(both) == ["0000000", "0200000", "0000000", "2220000"]


def test_pieces_that_touch_at_a_corner_are_one() -> None:
    guess, weak = drawn("0010", "0100", "0000")
    assert rows(MinimumComponent(smallest=2.0)(guess, weak, Pixel()).predicted) == rows(
        guess.predicted
    )


def test_the_largest_piece_of_each_class_stays() -> None:
    guess, weak = drawn("110001", "110200", "000202")
    refined = LargestComponent()(guess, weak, Pixel())
    assert rows(refined.predicted) == ["110000", "110200", "000200"]


def test_holes_take_the_class_around_them_and_large_or_open_ones_stay() -> None:
    guess, weak = drawn("1111110", "1021010", "1111010", "0000010", "2222222", "2020002", "2222222")
    filled = FillHoles(largest=2)(guess, weak, Pixel())
    assert rows(filled.predicted) == [
        "1111110", "1111010", "1111010", "0000010", "2222222", "2220002", "2222222",
    ]  # fmt: skip
    assert rows(FillHoles()(guess, weak, Pixel()).predicted)[5] == "2222222"
    assert torch.equal(FillHoles(largest=2)(guess, weak, Pixel((2.0, 2.0))).probs, guess.probs)


@given(given_world=worlds, within=st.floats(0.3, 4.0))
@settings(max_examples=40, deadline=None)
def test_trust_ends_nearer_than_that_to_another_class(given_world: World, within: float) -> None:
    guess, weak, pixel = given_world
    refined = BoundaryBand(within=within)(guess, weak, pixel)
    for label, valid, before, after in zip(
        guess.predicted, weak.valid, guess.weight, refined.weight, strict=True
    ):
        points = np.argwhere(valid.numpy()) * pixel.size
        named = label[valid].numpy()
        apart = np.linalg.norm(points[:, None] - points[None], axis=-1)
        apart[named[:, None] == named[None]] = np.inf
        nearest = apart.min(axis=1)
        clear = np.abs(nearest - within) > 1e-4
        expected = np.where(nearest >= within, before[valid].numpy(), 0)
        np.testing.assert_allclose(after[valid].numpy()[clear], expected[clear])


def test_superpixels_take_the_class_that_most_of_their_trust_is_in() -> None:
    guess, weak = drawn(*["00001111"] * 3, "01001101", *["00001111"] * 4, classes=2)
    image = torch.where(torch.arange(8) < 4, -2.0, 2.0).expand(1, 1, 8, 8)
    refined = Superpixels(count=2)(guess, weak._replace(image=image), Pixel())
    assert rows(refined.predicted) == ["00001111"] * 8


def test_a_divided_superpixel_stays_as_it_is() -> None:
    guess, weak = drawn(*["01010101"] * 8, classes=2)
    flat = weak._replace(image=torch.zeros(1, 1, 8, 8))
    assert torch.equal(Superpixels(count=1, majority=0.6)(guess, flat, Pixel()).probs, guess.probs)


def test_refiners_follow_each_other_and_ask_for_pixels_once() -> None:
    guess, weak = drawn("110001", "110200", "000202")
    asked = []
    refine = chained(
        [LargestComponent(), BoundaryBand(within=1.1)], lambda: asked.append(1) or Pixel()
    )
    for _ in range(2):
        refined = refine(guess, weak)
    alone = BoundaryBand(within=1.1)(LargestComponent()(guess, weak, Pixel()), weak, Pixel())
    assert torch.equal(refined.weight, alone.weight)
    assert torch.equal(refined.probs, alone.probs)
    assert asked == [1]
