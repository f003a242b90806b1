"""Memories of which classes need more, against the same in NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.balance import Difficulty, Rarity, TrueConfidence, classes_in_need
from common.batch import IGNORE

CLASSES = 4
seeds = st.integers(0, 10_000)


def labels(rng: np.random.Generator, classes: int = CLASSES) -> np.ndarray:
    target = rng.choice(classes, size=(2, 5, 5), p=np.array([6, 3, 1, 0][:classes]) / 10)
    return np.where(rng.random(target.shape) < 0.1, IGNORE, target)


@given(seed=seeds)
def test_rarity_is_the_averaged_logarithm_of_inverse_frequency(seed):
    rng, memory, expected = np.random.default_rng(seed), Rarity(decay=0.9), np.ones(CLASSES)
    for _ in range(3):
        target = labels(rng)
        counts = [(target == c).sum() for c in range(CLASSES)]
        times = [math.log((max(counts) + 1) / max(count, 1)) for count in counts]
        expected = 0.9 * expected + 0.1 * np.array(times) / max(times)
        seen = memory(torch.from_numpy(target), CLASSES)
    np.testing.assert_allclose(seen.numpy(), expected, rtol=1e-5)
    assert seen.argmax() == CLASSES - 1  # the class that never appears is the rarest
    assert (seen >= 0).all()
    assert (seen <= 1).all()


def test_classes_of_equal_size_count_alike():
    seen = Rarity(decay=0.0)(torch.arange(3).repeat(1, 4), 3)
    assert torch.equal(seen, torch.ones(3))


def test_nothing_to_look_at_changes_no_memory():
    memory = Rarity(decay=0.0)
    memory(torch.tensor([[0, 0, 0, 1]]), 2)
    before = memory.average.clone()
    memory(torch.full((1, 4), IGNORE), 2)
    assert torch.equal(memory.average, before)

    difficulty = Difficulty(decay=0.5, power=0.2)
    difficulty(torch.tensor([[0, 1]]), torch.tensor([[0, 0]]), 2)
    before = {name: value.clone() for name, value in difficulty.state_dict().items()}
    difficulty(torch.tensor([[0, 1]]), torch.full((1, 2), IGNORE), 2)
    assert all(torch.equal(before[name], value) for name, value in difficulty.state_dict().items())


def naive_difficulty(looks, decay, power):
    dice, risen, fallen = np.zeros(CLASSES), np.zeros(CLASSES), np.zeros(CLASSES)
    missed = np.ones(CLASSES)
    for predicted, truth in looks:
        known = truth != IGNORE
        for c in range(CLASSES):
            if not (truth == c).any():
                continue
            both = (known & (predicted == c) & (truth == c)).sum()
            now = 2 * both / ((known & (predicted == c)).sum() + (truth == c).sum())
            change = now - dice[c]
            ratio = math.log((now + 1e-8) / (dice[c] + 1e-8))
            risen[c] = decay * risen[c] + (1 - decay) * max(change, 0) * ratio
            fallen[c] = decay * fallen[c] + (1 - decay) * min(change, 0) * ratio
            missed[c] = decay * missed[c] + (1 - decay) * (1 - now)
            dice[c] = now
    weights = ((fallen + 1e-8) / (risen + 1e-8)) ** power * missed
    return weights / weights.max()


@given(seed=seeds, power=st.sampled_from([0.0, 0.2, 1.0]))
def test_difficulty_is_the_naive_one(seed, power):
    rng, memory = np.random.default_rng(seed), Difficulty(decay=0.9, power=power)
    looks = []
    for _ in range(4):
        truth = labels(rng)
        wrong = (rng.random(truth.shape) < 0.4) | (truth == IGNORE)
        predicted = np.where(wrong, rng.integers(0, CLASSES, truth.shape), truth)
        looks.append((predicted, truth))
        seen = memory(*(torch.from_numpy(each) for each in looks[-1]), CLASSES)
    np.testing.assert_allclose(seen.numpy(), naive_difficulty(looks, 0.9, power), rtol=2e-3)


def test_a_class_that_gets_worse_counts_more_than_one_that_gets_better():
    truth = torch.tensor([[0] * 4 + [1] * 4])
    better = torch.tensor([[0] * 4 + [1] * 2 + [2] * 2])
    worse = torch.tensor([[0, 0, 2, 2] + [1] * 4])
    memory = Difficulty(decay=0.5, power=0.2)
    memory(better, truth, 3)
    hard = memory(worse, truth, 3)  # class 0 fell to where class 1 rose from
    assert hard[0] > hard[1]


@given(seed=seeds)
def test_confidence_is_the_mean_probability_of_the_true_class(seed):
    rng, memory = np.random.default_rng(seed), TrueConfidence(decay=0.8)
    truth, logits = labels(rng), rng.standard_normal((2, CLASSES, 5, 5)).astype(np.float32)
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    seen = memory(torch.from_numpy(logits), torch.from_numpy(truth))
    for c in range(CLASSES):
        mine = probs[:, c][truth == c]
        assert seen[c] == pytest.approx(0.2 * mine.mean() if len(mine) else 0.0, rel=1e-4)


@given(seed=seeds, count=st.integers(1, 5))
def test_as_many_classes_are_drawn_as_are_there_and_asked_for(seed, count):
    torch.manual_seed(seed)
    truth = torch.from_numpy(labels(np.random.default_rng(seed)))
    where = classes_in_need(truth, torch.ones(CLASSES), count)
    for one, chosen in zip(truth, where, strict=True):
        there = set(one.flatten().tolist()) - {IGNORE}
        drawn = set(one[chosen].tolist())
        assert drawn <= there
        assert len(drawn) == min(count, len(there))
        assert all(chosen[one == c].all() for c in drawn)  # each with all of its pixels


def test_classes_are_drawn_in_proportion_to_their_need():
    torch.manual_seed(0)
    truth = torch.arange(3).repeat(6000, 1)
    where = classes_in_need(truth, torch.tensor([0.1, 0.3, 0.6]), 1)
    shares = where.float().mean(dim=0)
    assert torch.allclose(shares, torch.tensor([0.1, 0.3, 0.6]), atol=0.03)


def test_a_label_map_without_labels_gives_nothing():
    assert not classes_in_need(torch.full((2, 3), IGNORE), torch.ones(4), 2).any()


@pytest.mark.parametrize("memory", [Rarity(0.9), Difficulty(0.9, 0.2), TrueConfidence(0.9)])
def test_memories_travel_in_checkpoints_and_are_not_learned(memory):
    assert [*memory.parameters()] == []
    assert memory.state_dict() != {}
