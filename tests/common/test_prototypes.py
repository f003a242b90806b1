"""Prototypes: where they start, how they follow, what they predict."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.batch import IGNORE, Pseudo
from common.contrast import Sample, lattice
from common.prototypes import Prototypes

SIDES = {2: (5, 3), 3: (2, 4, 3)}
dimensions = pytest.mark.parametrize("dims", [2, 3], ids=["tiles", "volumes"])
seeds = st.integers(0, 10_000)


def some(*, classes: int = 3, each: int = 2, size: int = 4, decay: float = 0.9) -> Prototypes:
    """Prototypes of which the last class has not started."""
    known = Prototypes((classes, each, size), decay=decay, temperature=0.1)
    known.held.copy_(torch.randn(classes, each, size))
    known.started[:-1] = True
    return known


def direction(vector: np.ndarray) -> np.ndarray:
    return vector / max(np.linalg.norm(vector), 1e-4)


@dimensions
@pytest.mark.parametrize("classes", [2, 7])
def test_a_class_is_as_likely_as_the_nearest_of_its_prototypes_is_alike(
    dims: int, classes: int
) -> None:
    torch.manual_seed(classes)
    known = some(classes=classes, each=3)
    pixels = torch.randn(2, 4, *SIDES[dims])
    logits = known(pixels)
    held = known.held.double().numpy()
    for sample, *at in np.ndindex(2, *SIDES[dims]):
        pixel = direction(pixels[(sample, slice(None), *at)].double().numpy())
        for label in range(classes - 1):
            cosines = [direction(each) @ pixel for each in held[label]]
            found = float(logits[(sample, label, *at)])
            assert found == pytest.approx(max(cosines) / 0.1, abs=1e-4)
    assert (logits[:, -1] == -10).all()  # has not started: opposed to everything


@given(seeds, st.integers(2, 5), st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_a_class_starts_once_from_members(seed: int, classes: int, each: int) -> None:
    torch.manual_seed(seed)
    known = Prototypes((classes, each, 1), decay=0.9, temperature=0.1)
    rows, members = torch.arange(1.0, 13)[:, None], torch.rand(classes, 12) < 0.15
    known.start(rows, members)
    assert torch.equal(known.started, members.any(dim=1))
    for label in range(classes):
        own = {float(i + 1) for i in range(12) if members[label, i]}
        assert {*known.held[label, :, 0].tolist()} <= (own or {0.0})
    before, started = known.held.clone(), known.started.clone()
    known.start(-rows, torch.ones(classes, 12, dtype=torch.bool))
    assert torch.equal(known.held[started], before[started])
    assert (known.held[~started] < 0).all()
    known.forget()
    known.start(-rows, torch.ones(classes, 12, dtype=torch.bool))
    assert (known.held < 0).all()


@given(seeds, st.sampled_from([0.0, 0.6, 0.99]))
@settings(max_examples=20, deadline=None)
def test_a_prototype_follows_the_mean_of_the_members_nearest_to_it(seed: int, decay: float) -> None:
    torch.manual_seed(seed)
    known = some(each=3, decay=decay)
    held, updates = known.held.double().numpy().copy(), np.zeros((3, 3))
    for _ in range(4):
        rows, label = torch.randn(8, 4), torch.randint(0, 3, (8,))
        known.follow(rows, label == torch.arange(3)[:, None])
        near = [[[] for _ in range(3)] for _ in range(3)]
        for row, own in zip(rows.double().numpy(), label.tolist(), strict=True):
            cosines = [direction(each) @ direction(row) for each in held[own]]
            near[own][int(np.argmax(cosines))].append(row)
        for own, number in np.ndindex(2, 3):  # the last class has not started
            if near[own][number]:
                kept = min(decay, updates[own, number] / (updates[own, number] + 1))
                mean = np.mean(near[own][number], axis=0)
                held[own, number] = kept * held[own, number] + (1 - kept) * mean
                updates[own, number] += 1
    np.testing.assert_allclose(known.held.numpy(), held, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(known.updates.numpy(), updates)


@dimensions
def test_classes_start_in_labeled_images_and_predict_before_they_follow(dims: int) -> None:
    torch.manual_seed(0)
    known = Prototypes((3, 2, 4), decay=0.5, temperature=0.1)
    pixels = torch.randn(2, 4, *SIDES[dims])  # one labeled image, one unlabeled
    at = lattice(pixels, 1)
    unlabeled = at.rows(pixels).new_zeros(2, pixels[0, 0].numel(), dtype=torch.bool)
    unlabeled[1] = True
    label = torch.where(unlabeled, 2, 0).flatten()
    label[:3] = 1
    seen = Sample(label, label != IGNORE, unlabeled.flatten())
    logits = known.meet(pixels, at, seen)
    assert known.started.tolist() == [True, True, False]
    assert known.updates[:2].any(dim=1).all()
    own = logits[0].flatten(1)
    assert int((own > 10 - 1e-3).sum()) in (2, 3, 4)  # where prototypes come from, not means
    assert not torch.equal(known(pixels), logits)


def test_pixels_get_a_gradient_and_prototypes_none_even_where_a_pixel_is_nothing() -> None:
    known = some()
    pixels = torch.randn(1, 4, 3, 3)
    pixels[0, :, 0] = 0
    pixels.requires_grad_()
    logits = known(pixels)
    logits.softmax(dim=1)[:, 0].sum().backward()
    assert pixels.grad.isfinite().all()
    assert pixels.grad.abs().max() < 1e6
    assert pixels.grad[0, :, 1:].any()
    assert not known.held.requires_grad


def test_half_precision_around_it_changes_nothing() -> None:
    known, pixels = some(), torch.randn(1, 4, 3, 3)
    plain = known(pixels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(known(pixels), plain)


def test_nobody_is_trusted_to_be_of_a_class_without_prototypes() -> None:
    target = torch.tensor([[[0, 1, 2, IGNORE]]])
    weight = torch.tensor([[[1.0, 0.5, 1.0, 0.0]]])
    found = some().known(Pseudo(target, weight))
    assert found.weight.tolist() == [[[1.0, 0.5, 0.0, 0.0]]]
    assert torch.equal(found.target, target)


def test_a_checkpoint_carries_them() -> None:
    known, other = some(), Prototypes((3, 2, 4), decay=0.9, temperature=0.1)
    known.follow(torch.randn(5, 4), torch.ones(3, 5, dtype=torch.bool))
    other.load_state_dict(known.state_dict())
    for a, b in zip(known.buffers(), other.buffers(), strict=True):
        assert torch.equal(a, b)
    assert not [*known.parameters()]
