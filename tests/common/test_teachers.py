"""Several teachers: averages in closed form, turns as functions of the step."""

from __future__ import annotations

import copy
import functools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from common.learners import SoftVote, TeachersStudent, TeacherStudent, random_turn, regular_turn
from tests.common.test_learners import changed, numbers
from tests.toy import Net

turns = {
    "regular": functools.partial(regular_turn, period_steps=2),
    "three": functools.partial(regular_turn, period_steps=1, teachers=3),
    "random": functools.partial(random_turn, longest_steps=3),
}


@given(decay=st.floats(0, 1), steps=st.integers(1, 9), seed=st.integers(0, 1000))
@pytest.mark.parametrize("name", turns)
@settings(max_examples=20, deadline=None)
def test_each_teacher_is_its_average_in_closed_form_with_its_buffers(
    name: str, decay: float, steps: int, seed: int
) -> None:
    count = 3 if name == "three" else 2
    nets = TeachersStudent(Net(2, 1, 2), decay, turn=turns[name], teachers=count).train()
    held = [numbers(teacher, floating=True) for teacher in nets.teachers]
    whole = [numbers(teacher, floating=False) for teacher in nets.teachers]
    for step in range(steps):
        changed(nets.student, seed + step)
        seen = numbers(nets.student, floating=True)
        young = 1 - 1 / (step + 1)
        for index in range(count):
            if young < decay or turns[name](step) == index:
                alpha = min(decay, young)
                held[index] = {k: alpha * v + (1 - alpha) * seen[k] for k, v in held[index].items()}
                whole[index] = numbers(nets.student, floating=False)
        nets.after_step(step)
    for index, teacher in enumerate(nets.teachers):
        for key, value in numbers(teacher, floating=True).items():
            np.testing.assert_allclose(value, held[index][key], atol=1e-5, err_msg=key)
        assert numbers(teacher, floating=False) == whole[index]


def test_only_the_teacher_whose_turn_it_is_moves() -> None:
    nets = TeachersStudent(Net(2, 1, 2), 0.5, turn=lambda step: step % 2)
    for step in (2, 3):
        before = [numbers(teacher, floating=True) for teacher in nets.teachers]
        changed(nets.student, step)
        nets.after_step(step)
        for index, teacher in enumerate(nets.teachers):
            moved = [
                not np.array_equal(value, before[index][key])
                for key, value in numbers(teacher, floating=True).items()
            ]
            assert all(moved) if step % 2 == index else not any(moved)


def test_young_teachers_are_one_and_the_same_as_a_single_one() -> None:
    student = Net(2, 1, 2)
    single = TeacherStudent(copy.deepcopy(student), decay=0.9)
    several = TeachersStudent(copy.deepcopy(student), 0.9, turn=turns["regular"])
    for step in range(9):
        for nets in (single, several):
            changed(nets.student, step)
            nets.after_step(step)
        for teacher in several.teachers:
            for a, b in zip(
                teacher.state_dict().values(), single.teacher.state_dict().values(), strict=True
            ):
                assert torch.equal(a, b)


def test_a_restored_copy_goes_on_where_the_first_one_does() -> None:
    torch.manual_seed(0)
    first = TeachersStudent(Net(2, 1, 2), 0.5, turn=turns["random"])
    for step in range(5):
        changed(first.student, step)
        first.after_step(step)
    second = TeachersStudent(Net(2, 1, 2), 0.5, turn=turns["random"])
    second.load_state_dict(first.state_dict())
    assert int(second.turn) == turns["random"](5)
    for step in range(5, 12):
        for nets in (first, second):
            changed(nets.student, step)
            nets.after_step(step)
    for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_the_state_says_whose_turn_the_next_step_is() -> None:
    nets = TeachersStudent(Net(2, 1, 2), 0.5, turn=turns["random"])
    assert "turn" in nets.state_dict()
    for step in range(20):
        assert int(nets.turn) == turns["random"](step)
        nets.after_step(step)


def test_teachers_predict_by_their_mean_and_never_train() -> None:
    nets = TeachersStudent(Net(2, 1, 3), 0.5, turn=turns["regular"])
    changed(nets.teachers[1], 3)
    nn.Sequential(nets).train()
    assert nets.student.training
    assert not any(part.training for part in nets.teachers.modules())
    assert not any(p.requires_grad for p in nets.teachers.parameters())
    image = torch.randn(2, 1, 6, 6)
    assert isinstance(nets.predictor, SoftVote)
    mean = sum(teacher(image).softmax(dim=1) for teacher in nets.teachers) / 2
    torch.testing.assert_close(nets.predictor(image).softmax(dim=1), mean)


@given(period=st.integers(1, 50), teachers=st.integers(2, 4))
@settings(max_examples=30, deadline=None)
def test_regular_turns_are_equally_long_and_in_order(period: int, teachers: int) -> None:
    seen = [
        regular_turn(step, period_steps=period, teachers=teachers)
        for step in range(2 * period * teachers)
    ]
    assert seen == [index for index in range(teachers) for _ in range(period)] * 2


@given(longest=st.integers(1, 30))
@settings(max_examples=20, deadline=None)
def test_random_turns_alternate_and_none_is_too_long(longest: int) -> None:
    seen = np.array([random_turn(step, longest_steps=longest) for step in range(40 * longest)])
    starts = np.flatnonzero(np.diff(seen)) + 1
    lengths = np.diff(starts)
    assert seen[0] == 0
    assert lengths.min() >= 1
    assert lengths.max() <= longest


def test_random_turns_take_every_length_equally_often() -> None:
    seen = np.array([random_turn(step, longest_steps=4) for step in range(5 * 2000)])
    lengths = np.diff(np.flatnonzero(np.diff(seen)) + 1)
    shares = np.bincount(lengths, minlength=5)[1:] / len(lengths)
    np.testing.assert_allclose(shares, 0.25, atol=0.03)
    assert seen.mean() == pytest.approx(0.5, abs=0.02)
