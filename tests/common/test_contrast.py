"""Pixels against pixels: what is drawn, what is remembered, what is pulled and pushed."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from common.batch import IGNORE, Labeled, Pseudo
from common.contrast import (
    ClassMemory,
    Contrast,
    Describing,
    Lattice,
    Others,
    Sample,
    class_means,
    draw,
    lattice,
    misses,
    sample,
)
from tests.toy import Net

SIDES = {2: (7, 5), 3: (3, 6, 4)}
dimensions = pytest.mark.parametrize("dims", [2, 3], ids=["tiles", "volumes"])
seeds = st.integers(0, 10_000)


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def some_sample(seed: int, *, classes: int, count: int) -> Sample:
    label = torch.randint(0, classes, (count,), generator=rng(seed))
    label[torch.rand(count, generator=rng(seed + 1)) < 0.2] = IGNORE
    unlabeled = torch.arange(count) >= count // 3
    trusted = (torch.rand(count, generator=rng(seed + 2)) < 0.6) | ~unlabeled
    return Sample(label, trusted & (label != IGNORE), unlabeled)


@dimensions
@pytest.mark.parametrize("stride", [1, 2, 4])
def test_a_lattice_is_every_so_manieth_pixel_in_order(dims: int, stride: int) -> None:
    image = torch.randn(2, 3, *SIDES[dims])
    at = lattice(image, stride)
    cut = (..., *(slice(first, None, stride) for first in at.first))
    assert torch.equal(at.of(image), image[cut])
    assert torch.equal(at.rows(image), image[cut].movedim(1, -1).reshape(-1, 3))
    label = torch.randint(0, 9, (2, *SIDES[dims]))
    assert torch.equal(at.rows(label), label[cut].flatten())


def test_coarser_maps_are_read_where_the_pixel_lies() -> None:
    coarse = torch.arange(4.0)[None, None, :, None].expand(1, 1, 4, 2)
    at = Lattice(sides=(8, 8), first=(0, 0), stride=1)
    assert at.of(coarse)[0, 0, :, 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_every_pixel_has_its_turn() -> None:
    seen = torch.zeros(6, 5)
    for seed in range(60):
        torch.manual_seed(seed)
        place = torch.arange(30.0).view(1, 1, 6, 5)
        seen.view(-1)[lattice(place, 3).rows(place).long().flatten()] += 1
    assert (seen > 0).all()


@dimensions
def test_a_sample_has_the_labeled_pixels_first_and_trusts_annotations(dims: int) -> None:
    sides = SIDES[dims]
    target = torch.randint(0, 3, (2, *sides))
    target[0, 0] = IGNORE
    pseudo = Pseudo(torch.randint(0, 3, (3, *sides)), (torch.rand(3, *sides) < 0.5).float())
    at = lattice(target.unsqueeze(1).float(), 1)
    seen = sample(at, Labeled(torch.zeros(2, 1, *sides), target), pseudo)
    count = math.prod(sides)
    assert torch.equal(seen.label, torch.cat([target, pseudo.target]).flatten())
    assert seen.unlabeled.tolist() == [False] * 2 * count + [True] * 3 * count
    known = torch.cat([target != IGNORE, pseudo.weight > 0]).flatten()
    assert torch.equal(seen.trusted, known)


@given(seeds, st.integers(2, 5), st.integers(1, 30))
@settings(max_examples=50, deadline=None)
def test_only_members_are_drawn(seed: int, classes: int, count: int) -> None:
    members = torch.rand(classes, count, generator=rng(seed)) < 0.3
    torch.manual_seed(seed)
    drawn = draw(members, 40)
    assert drawn.shape == (classes, 40)
    assert ((drawn >= 0) & (drawn < count)).all()
    assert members.gather(1, drawn)[members.any(dim=1)].all()


def test_columns_are_drawn_as_often_as_their_weight_says() -> None:
    torch.manual_seed(0)
    drawn = draw(torch.tensor([[1.0, 0.0, 3.0, 4.0]]), 20_000)
    found = torch.bincount(drawn[0], minlength=4) / 20_000
    assert found.tolist() == pytest.approx([1 / 8, 0, 3 / 8, 4 / 8], abs=0.02)


@given(seeds, st.integers(2, 6))
@settings(max_examples=30, deadline=None)
def test_class_means_are_means_over_trusted_members(seed: int, classes: int) -> None:
    seen = some_sample(seed, classes=classes, count=20)
    rows = torch.randn(20, 4, generator=rng(seed))
    means = class_means(rows, seen.members(classes))
    for label in range(classes):
        own = [i for i in range(20) if seen.label[i] == label and seen.trusted[i]]
        expected = rows[own].mean(dim=0) if own else torch.zeros(4)
        torch.testing.assert_close(means[label], expected)


def naive_misses(anchors: Tensor, positives: Tensor, others: Others, tau: float) -> np.ndarray:
    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))

    found = np.zeros(anchors.shape[:2])
    for label, number in np.ndindex(*found.shape):
        anchor = anchors[label, number].double().numpy()
        held = others.held[label % len(others.held)].double().numpy()
        near = math.exp(cosine(anchor, positives[label].double().numpy()) / tau)
        chosen = others.chosen[label, number].tolist()
        far = sum(math.exp(cosine(anchor, held[place]) / tau) for place in chosen)
        found[label, number] = -math.log(near / (near + far))
    return found


@given(seeds, st.integers(2, 4), st.booleans(), st.sampled_from([0.1, 0.5, 2.0]))
@settings(max_examples=30, deadline=None)
def test_an_anchor_misses_by_the_formula_of_the_paper(
    seed: int, classes: int, shared: bool, tau: float
) -> None:
    anchors = torch.randn(classes, 3, 5, generator=rng(seed))
    positives = torch.randn(classes, 5, generator=rng(seed + 1))
    held = torch.randn(1 if shared else classes, 7, 5, generator=rng(seed + 2))
    chosen = torch.randint(0, 7, (classes, 3, 4), generator=rng(seed + 3))
    others = Others(held, chosen, torch.ones(classes, dtype=torch.bool))
    found = misses(anchors, positives, others, temperature=tau)
    expected = naive_misses(anchors, positives, others, tau)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_half_precision_around_it_changes_nothing() -> None:
    anchors, positives = torch.randn(2, 8, 16), torch.randn(2, 16)
    chosen = torch.randint(0, 9, (2, 8, 5))
    others = Others(torch.randn(2, 9, 16), chosen, torch.ones(2, dtype=torch.bool))
    members = torch.rand(2, 30) < 0.5
    rows = torch.randn(30, 16)
    plain = misses(anchors, positives, others, temperature=0.5), class_means(rows, members)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = misses(anchors, positives, others, temperature=0.5), class_means(rows, members)
    for a, b in zip(plain, half, strict=True):
        assert torch.equal(a, b)
        assert b.dtype == torch.float32


def naive_unlike(seen: Sample, probs: Tensor, low: int, high: int) -> Tensor:
    found = torch.zeros(probs.shape, dtype=torch.bool)
    for pixel in range(probs.shape[1]):
        ranks = torch.argsort(probs[:, pixel], descending=True).tolist()
        for rank, label in enumerate(ranks):
            if seen.label[pixel] == IGNORE:
                continue
            if not seen.unlabeled[pixel]:
                found[label, pixel] = rank < low and label != int(seen.label[pixel])
            elif not seen.trusted[pixel]:
                found[label, pixel] = low <= rank < high
    return found


@pytest.mark.parametrize(
    ("classes", "low", "high"), [(21, 3, 20), (19, 3, 18), (6, 1, 6), (3, 1, 3), (2, 1, 2)]
)
def test_unreliable_pixels_are_negatives_of_unlikely_classes_f10(
    classes: int, low: int, high: int
) -> None:
    seen = some_sample(classes, classes=classes, count=40)
    probs = torch.randn(classes, 40, generator=rng(classes)).softmax(dim=0)
    expected = naive_unlike(seen, probs, low, high)
    assert torch.equal(seen.unlike(probs, 3 / 21, 20 / 21), expected)
    assert expected[:, seen.unlabeled].any()
    assert expected[:, ~seen.unlabeled].any()
    assert not expected[:, seen.label == IGNORE].any()
    assert not (expected & seen.members(classes)).any()


def test_a_memory_holds_the_latest_members_and_survives_a_checkpoint() -> None:
    memory = ClassMemory(num_classes=3, capacity=4, size=2)
    for step in range(6):
        rows = torch.full((5, 2), float(step + 1))
        members = torch.zeros(3, 5, dtype=torch.bool)
        members[0, :3] = True  # three a step: 18 in all
        members[1, 0] = step == 2
        memory.remember(rows, members)
    assert memory.seen.tolist() == [18, 1, 0]
    assert sorted(memory.held[0, :, 0].tolist()) == [5, 6, 6, 6]
    assert memory.held[1, :, 0].tolist() == [3, 0, 0, 0]
    assert not memory.held[2].any()
    other = ClassMemory(3, 4, 2)
    other.load_state_dict(memory.state_dict())
    assert torch.equal(other.held, memory.held)
    assert torch.equal(other.seen, memory.seen)


def test_more_members_than_room_are_a_random_choice_of_them() -> None:
    memory = ClassMemory(num_classes=2, capacity=4, size=1)
    found = set()
    for seed in range(30):
        torch.manual_seed(seed)
        memory.remember(torch.arange(10.0)[:, None], torch.ones(2, 10, dtype=torch.bool))
        held = memory.held[0, :, 0].tolist()
        assert len(set(held)) == 4
        found |= set(held)
    assert found == set(range(10))


@given(seeds, st.integers(0, 9))
@settings(max_examples=30, deadline=None)
def test_negatives_come_from_what_is_remembered_only(seed: int, count: int) -> None:
    torch.manual_seed(seed)
    memory = ClassMemory(num_classes=2, capacity=6, size=1)
    memory.remember(torch.arange(9.0)[:, None] + 1, torch.arange(9).expand(2, 9) < count)
    others = memory.others(anchors=5, negatives=7)
    assert others.chosen.shape == (2, 5, 7)
    assert others.exist.tolist() == [count > 0] * 2
    if count:
        drawn = others.held[0, :, 0][others.chosen[0]]
        assert ((drawn >= 1) & (drawn <= count)).all()


def test_anchors_alone_get_a_gradient_and_only_in_classes_that_can_take_part() -> None:
    torch.manual_seed(0)
    seen = some_sample(3, classes=3, count=30)
    pixels, keys = (torch.randn(30, 4, requires_grad=True) for _ in range(2))
    held = torch.randn(3, 6, 4, requires_grad=True)
    exist = torch.tensor([True, False, True])
    candidates = seen.members(3) & (torch.arange(30) % 2 == 0)
    candidates[2] = False
    contrast = Contrast(anchors=200, negatives=5)
    others = Others(held.detach(), torch.randint(0, 6, (3, 200, 5)), exist)
    parts = contrast(pixels, keys, seen, candidates, others=others)
    sum(parts).backward()
    assert keys.grad is None
    moved = pixels.grad.abs().sum(dim=1) > 0
    assert torch.equal(moved, candidates[0])


def test_the_parts_are_the_mean_over_anchors_and_classes_present_by_where_an_anchor_lies() -> None:
    label = torch.tensor([0, 1, 1, 0, IGNORE])
    seen = Sample(label, label != IGNORE, torch.tensor([False, False, True, True, True]))
    pixels = torch.randn(5, 4)
    candidates = torch.zeros(3, 5, dtype=torch.bool)  # of three classes the last is absent
    candidates[0, 0] = candidates[1, 2] = True  # one anchor each: labeled, unlabeled
    others = Others(torch.randn(1, 6, 4), torch.randint(0, 6, (3, 8, 5)), torch.ones(3).bool())
    found = Contrast(anchors=8, negatives=5)(pixels, pixels, seen, candidates, others=others)
    means = torch.stack([pixels[[0, 3]].mean(0), pixels[[1, 2]].mean(0), torch.ones(4)])
    anchors = pixels[[0, 2, 0]][:, None].expand(3, 8, 4)
    expected = naive_misses(anchors, means, others, 0.5).mean(axis=1) / 2
    assert float(found[0]) == pytest.approx(expected[0], abs=1e-5)
    assert float(found[1]) == pytest.approx(expected[1], abs=1e-5)


@dimensions
def test_a_network_that_describes_pixels_predicts_as_before(dims: int) -> None:
    network = Net(dims, 1, 5, norm="group")
    describing = Describing(network, 6)
    image = torch.randn(2, 1, *(8,) * dims)
    at = lattice(image, 4)
    logits, rows = describing.describe(image, at)
    torch.testing.assert_close(logits, network(image))
    torch.testing.assert_close(describing(image), logits)
    assert rows.shape == (2 * 2**dims, 6)
