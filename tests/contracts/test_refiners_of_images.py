"""Refiners that look around: against what their papers say, written naively."""

from __future__ import annotations

import typing

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.filters import rank
from torch import Tensor

from common.batch import Pixel, SoftPseudo, Unlabeled, one_hot
from common.filters import NeighborContext
from common.refiners import DenseCRF, Majority, Opening, RandomWalker, Refiner
from common.schedules import Linear
from tests.contracts.test_refiners import World, drawn, rows, world, worlds
from tests.toy import any_class

radii = st.floats(0.3, 4.0)


def points(given_world: World, sample: int) -> np.ndarray:
    """Where the valid pixels of one image lie in the world."""
    return np.argwhere(given_world.weak.valid[sample].numpy()) * given_world.pixel.size


@given(given_world=worlds, radius=radii)
@settings(max_examples=40, deadline=None)
def test_the_majority_within_the_radius_decides(given_world: World, radius: float) -> None:
    guess, weak, pixel = given_world
    refined = Majority(radius=radius)(guess, weak, pixel)
    assert torch.equal(refined.weight, guess.weight)
    for sample, valid in enumerate(weak.valid):
        place, label = points(given_world, sample), guess.predicted[sample][valid].numpy()
        apart = np.linalg.norm(place[:, None] - place[None], axis=-1)
        if (np.abs(apart - radius) < 1e-6).any():
            return
        for own, found, near in zip(
            label, refined.predicted[sample][valid].numpy(), apart <= radius, strict=True
        ):
            votes = np.bincount(label[near], minlength=guess.probs.shape[1])
            assert found == (own if votes[own] == votes.max() else votes.argmax())


@pytest.mark.parametrize("dims", [2, 3])
def test_the_majority_is_that_of_scikit_image_where_no_classes_tie(dims: int) -> None:
    for seed in range(5):
        guess, weak, _ = world(seed, dims=dims)
        found = Majority(radius=2)(guess, weak, Pixel()).predicted
        ball = np.linalg.norm(np.indices((5,) * dims) - 2, axis=0) <= 2
        for sample, valid in enumerate(weak.valid.numpy()):
            label = guess.predicted[sample].numpy().astype(np.uint8)
            theirs = rank.majority(label, ball, mask=valid.astype(np.uint8))
            votes = [ndimage.convolve((valid & (label == c)) * 1, ball * 1, mode="constant")
                     for c in range(3)]  # fmt: skip
            clear = valid & ((np.stack(votes) == np.max(votes, axis=0)).sum(axis=0) == 1)
            assert (found[sample].numpy()[clear] == theirs[clear]).all()


@given(given_world=worlds, radius=st.sampled_from([0.4, 1.0, 1.5, 2.5]))
@settings(max_examples=40, deadline=None)
def test_what_no_ball_inside_of_a_class_covers_is_not_of_it(
    given_world: World, radius: float
) -> None:
    guess, weak, pixel = given_world
    opened = Opening(radius=radius)(guess, weak, pixel)
    places = np.stack(np.indices(weak.valid.shape[1:]), axis=-1).reshape(-1, weak.valid.ndim - 1)
    points = places * np.array(pixel.along(weak.valid.ndim - 1))
    apart = np.linalg.norm(points[:, None] - points[None], axis=-1) <= radius * (1 + 1e-6)
    for label, valid, lost in zip(
        guess.predicted.flatten(1).numpy(),
        weak.valid.flatten(1).numpy(),
        (opened.probs != guess.probs).any(dim=1).flatten(1).numpy(),
        strict=True,
    ):
        near_other = (apart & valid[None] & (label[:, None] != label[None])).any(axis=1)
        center = valid & ~near_other
        covered = (apart & center[None] & (label[:, None] == label[None])).any(axis=1)
        np.testing.assert_array_equal(lost, valid & ~covered)


def test_a_thread_between_two_pieces_is_cut_and_a_gap_is_closed() -> None:
    label = torch.zeros(1, 13, 20, dtype=torch.long)
    label[0, 3:10, 1:8], label[0, 3:10, 12:19], label[0, 6, 8:12] = 1, 1, 1  # pieces and a thread
    label[0, 3:10, 4] = 0  # a gap
    probs = 0.6 * one_hot(label, 2) + 0.2
    guess = SoftPseudo(probs, torch.ones(1, 13, 20))
    weak = Unlabeled(torch.zeros(1, 1, 13, 20), label >= 0, any_class(2, 2)[None])
    opened = Opening(radius=1.0)(guess, weak, Pixel()).predicted[0]
    assert (opened[6, 9:11] == 0).all()  # but for what a ball of a piece reaches
    assert (opened[4:9, 4] == 1).all()
    assert (opened[4:9, 13:18] == 1).all()


def test_a_radius_counts_in_the_world() -> None:
    guess, weak = drawn("0000", "0100", "0000", classes=2)
    assert rows(Majority(radius=1)(guess, weak, Pixel()).predicted) == ["0000"] * 3
    assert torch.equal(Majority(radius=1)(guess, weak, Pixel((2.0, 3.0), "m")).probs, guess.probs)


def mean_field(crf: DenseCRF, given_world: World, sample: int) -> np.ndarray:
    """Krähenbühl and Koltun, algorithm 1, pixel after pixel; both kernels normalized as ours."""
    guess, weak, _ = given_world
    valid, place = weak.valid[sample], points(given_world, sample)
    image = weak.image[sample][:, valid].numpy().T.astype(float)
    prior = guess.probs[sample][:, valid].numpy().T.astype(float)
    apart = np.linalg.norm(place[:, None] - place[None], axis=-1)
    unlike = np.linalg.norm(image[:, None] - image[None], axis=-1)
    joined = (apart <= crf.reach) & (apart > 0)
    q = prior
    for _ in range(crf.iterations):
        energy = -np.log(prior)
        for weight, sigma, kernel in (
            (crf.appearance_weight, crf.appearance_sigma or crf.reach / 2,
             np.exp(-(unlike**2) / (2 * crf.intensity_sigma**2))),
            (crf.smoothness_weight, crf.smoothness_sigma or crf.reach / 4, np.ones_like(unlike)),
        ):  # fmt: skip
            near = joined * np.exp(-(apart**2) / (2 * sigma**2))
            total = near.sum(axis=1, keepdims=True)
            shares = np.divide(near * kernel, total, out=np.zeros_like(near), where=total > 0)
            for each in range(q.shape[1]):  # Potts: what says another class costs
                energy[:, each] += weight * (shares @ (1 - q[:, each]))
        q = np.exp(-energy + energy.min(axis=1, keepdims=True))
        q /= q.sum(axis=1, keepdims=True)
    return q


@given(given_world=worlds, reach=radii, iterations=st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_a_random_field_is_inferred_as_its_paper_says(
    given_world: World, reach: float, iterations: int
) -> None:
    crf = DenseCRF(reach=reach, iterations=iterations)
    refined = crf(*given_world)
    for sample, valid in enumerate(given_world.weak.valid):
        place = points(given_world, sample)
        apart = np.linalg.norm(place[:, None] - place[None], axis=-1)
        if (np.abs(apart - reach) < 1e-6).any():
            return
        found = refined.probs[sample][:, valid].numpy().T
        np.testing.assert_allclose(found, mean_field(crf, given_world, sample), atol=2e-5)


@given(given_world=worlds, strength=st.floats(0, 3), reach=radii)
@settings(max_examples=25, deadline=None)
def test_a_pixel_surer_than_both_weights_keeps_its_class(
    given_world: World, strength: float, reach: float
) -> None:
    guess, _, _ = given_world
    crf = DenseCRF(reach=reach, appearance_weight=strength, smoothness_weight=strength / 2)
    first, second = guess.probs.log().topk(2, dim=1).values.unbind(dim=1)
    sure = first - second > 1.5 * strength + 1e-4
    assert torch.equal(crf(*given_world).predicted[sure], guess.predicted[sure])


def test_a_random_field_follows_the_border_of_the_image() -> None:
    guess, weak = drawn(*["000111"] * 2, "001111", "000011", *["000111"] * 2, classes=2)
    image = torch.where(torch.arange(6) < 3, -2.0, 2.0).expand(1, 1, 6, 6)
    refined = DenseCRF(reach=2.5)(guess, weak._replace(image=image), Pixel())
    assert rows(refined.predicted) == ["000111"] * 6


def test_a_class_of_no_probability_stays_out() -> None:
    guess, weak, pixel = world(3, dims=2)
    possible = guess.probs * torch.tensor([1, 1, 0]).view(1, 3, 1, 1)
    none = guess._replace(probs=possible / possible.sum(dim=1, keepdim=True))
    assert (DenseCRF(reach=3)(none, weak, pixel).probs[:, 2] == 0).all()


def walked(walker: RandomWalker, given_world: World, sample: int) -> tuple[np.ndarray, np.ndarray]:
    """Grady's Dirichlet problem, solved densely: the class of each valid pixel, and how clearly."""
    guess, weak, pixel = given_world
    valid = weak.valid[sample].numpy()
    order = {tuple(at): index for index, at in enumerate(np.argwhere(valid).tolist())}
    image = weak.image[sample].numpy().astype(float) / weak.image[sample].numpy()[:, valid].std()
    side = np.array(pixel.size) / np.prod(pixel.size) ** (1 / valid.ndim)
    laplacian = np.zeros((len(order),) * 2)
    for at, one in order.items():
        for axis in range(valid.ndim):
            other = order.get(tuple(place + (axis == k) for k, place in enumerate(at)))
            if other is not None:
                beyond = tuple(place + (axis == k) for k, place in enumerate(at))
                step = (image[(slice(None), *at)] - image[(slice(None), *beyond)]) / side[axis]
                weight = np.exp(-walker.beta * np.mean(step**2)) + 1e-10
                laplacian[[one, other], [other, one]] -= weight
                laplacian[[one, other], [one, other]] += weight
    probs = guess.probs[sample].numpy()[:, valid]
    trust = guess.weight[sample].numpy()[valid]
    seeds, own = (probs.max(axis=0) >= walker.seed) & (trust > 0), probs.argmax(axis=0)
    label, clear = own.copy(), np.ones(len(own), dtype=bool)
    pieces, count = ndimage.label(valid)
    for piece in range(1, count + 1):
        inside = pieces[valid] == piece
        free, fixed = np.flatnonzero(inside & ~seeds), np.flatnonzero(inside & seeds)
        if len(free) and len(fixed):
            rhs = -laplacian[np.ix_(free, fixed)] @ np.eye(len(probs))[own[fixed]]
            chance = np.linalg.solve(laplacian[np.ix_(free, free)], rhs)
            label[free] = chance.argmax(axis=1)
            top = np.sort(chance, axis=1)
            clear[free] = top[:, -1] - top[:, -2] > 0.02
    return label, clear


@given(given_world=worlds, seed=st.floats(0.7, 0.99))
@settings(max_examples=25, deadline=None)
def test_walks_end_where_their_equations_say(given_world: World, seed: float) -> None:
    guess, weak, _ = given_world
    smooth = ndimage.gaussian_filter(weak.image.numpy(), (0, 0, *[0.8] * (weak.image.ndim - 2)))
    given_world = given_world._replace(weak=weak._replace(image=torch.from_numpy(smooth)))
    walker = RandomWalker(seed=seed, beta=0.5)
    refined = walker(*given_world)
    assert torch.equal(refined.weight, guess.weight)
    sure = (guess.probs.amax(dim=1) >= seed) & (guess.weight > 0)
    assert torch.equal(refined.predicted[sure], guess.predicted[sure])
    for sample, valid in enumerate(weak.valid):
        label, clear = walked(walker, given_world, sample)
        if len(np.unique(guess.predicted[sample][sure[sample]])) < 2:
            assert torch.equal(refined.predicted[sample], guess.predicted[sample])
            continue
        assert (refined.predicted[sample][valid].numpy() == label)[clear].all()


def unsure(*lines: str) -> tuple[SoftPseudo, Unlabeled]:
    """Digits are sure; a dot is unsure, and of class 0."""
    guess, weak = drawn(*(line.replace(".", "0") for line in lines), classes=2)
    dots = torch.tensor([[each == "." for each in line] for line in lines])[None]
    first = torch.where(dots, 0.6, 1 - guess.predicted.float())
    return guess._replace(probs=torch.stack([first, 1 - first], dim=1)), weak


def test_labels_walk_up_to_the_border_of_the_image() -> None:
    guess, weak = unsure("0.....", "......", ".....1")
    image = torch.where(torch.arange(6) < 2, -2.0, 2.0).expand(1, 1, 3, 6)
    refined = RandomWalker(seed=0.9)(guess, weak._replace(image=image), Pixel())
    assert rows(refined.predicted) == ["001111"] * 3


def test_walks_need_contrast_seeds_of_two_classes_and_a_way() -> None:
    image = torch.where(torch.arange(4) < 2, -2.0, 2.0).expand(1, 1, 2, 4)
    for lines in (("1...", "...."), ("....", "....")):
        guess, weak = unsure(*lines)
        refined = RandomWalker(seed=0.9)(guess, weak._replace(image=image), Pixel())
        assert torch.equal(refined.probs, guess.probs)
    guess, weak = unsure("0..1", "....")
    assert torch.equal(RandomWalker(seed=0.9)(guess, weak, Pixel()).probs, guess.probs)
    walled = weak._replace(image=image, valid=torch.tensor([[[1, 1, 0, 1], [0, 0, 1, 0]]]) > 0)
    assert rows(RandomWalker(seed=0.9)(guess, walled, Pixel()).predicted) == ["0001", "0000"]


@pytest.mark.parametrize("refiner", [DenseCRF(reach=2.5), RandomWalker(seed=0.9)])
@pytest.mark.parametrize("dims", [2, 3])
def test_pixels_of_the_image_outside_of_valid_have_no_say(refiner: Refiner, dims: int) -> None:
    for seed in range(5):
        guess, weak, pixel = world(seed, dims=dims)
        other = torch.where(weak.valid.unsqueeze(1), weak.image, 50.0)
        one, two = (refiner(guess, weak._replace(image=i), pixel) for i in (weak.image, other))
        assert torch.equal(one.predicted[weak.valid], two.predicted[weak.valid])


@pytest.mark.parametrize(
    ("small", "large"),
    [
        (Majority(radius=1.7), Majority(radius=17)),
        (DenseCRF(reach=1.7), DenseCRF(reach=17)),
        (RandomWalker(seed=0.9), RandomWalker(seed=0.9)),
    ],
    ids=lambda each: each.name,
)
@pytest.mark.parametrize("dims", [2, 3])
def test_a_unit_ten_times_smaller_changes_nothing(
    small: Refiner, large: Refiner, dims: int
) -> None:
    for seed in range(5):
        guess, weak, pixel = world(seed, dims=dims)
        finer = Pixel(tuple(10 * side for side in pixel.size), "mm")
        assert torch.equal(small(guess, weak, pixel).predicted, large(guess, weak, finer).predicted)


@pytest.mark.parametrize("refiner", [DenseCRF(reach=1.5), Majority(radius=1.5)])
@pytest.mark.parametrize("dims", [2, 3])
def test_refiners_of_the_device_wait_for_nothing(refiner: Refiner, dims: int) -> None:
    guess, weak, pixel = world(0, dims=dims)
    away = typing.cast(tuple[Tensor, ...], [each.to("meta") for each in (*guess, *weak)])
    refined = refiner(SoftPseudo(*away[:2]), Unlabeled(*away[2:]), pixel)  # a value would raise
    assert refined.probs.shape == guess.probs.shape


def test_neighbors_object() -> None:
    surest = torch.tensor([0.8, 0.8, 0.8, 0.62, 0.1, 0.62]).repeat(3, 1)[None]
    half = NeighborContext(dropped=Linear(start=0.5, end=0.5))
    trust = half(torch.stack([surest, 1 - surest], dim=1))
    assert trust[0, 1].tolist() == [1, 1, 0, 0, 0, 0]  # of the margins, 0.6 would do


def test_neighbors_confirm() -> None:
    surest = torch.full((1, 5, 5), 0.75)
    surest[0, 1:4, 2] = surest[0, 2, 1:4] = 0.95
    surest[0, 2, 2] = 0.6
    fifth = NeighborContext(dropped=Linear(start=0.2, end=0.2))
    trust = fifth(torch.stack([surest, 1 - surest], dim=1))
    assert trust[0, 2, 2] == 1  # a margin of 0.2, where 0.5 is asked for


@given(given_world=worlds, low=st.floats(0, 1), high=st.floats(0, 1))
@settings(max_examples=30, deadline=None)
def test_a_larger_share_keeps_no_more(given_world: World, low: float, high: float) -> None:
    low, high = sorted((low, high))
    probs = given_world.guess.probs
    some, fewer = (NeighborContext(dropped=each)(probs) for each in (low, high))
    assert (fewer <= some).all()
    refined = NeighborContext().refined(probs)
    assert (refined >= 0).all()
    assert (refined <= 1).all()
