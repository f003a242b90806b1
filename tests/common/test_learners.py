"""Who predicts and who learns: averages in closed form, votes, one pass for two batches."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from common.learners import (
    Peers,
    SoftVote,
    Solo,
    TeacherStudent,
    decoded,
    encoded,
    follow,
    together,
)
from common.methods import CrossPseudo
from common.schedules import Jump
from tests.toy import Net

decays = st.floats(0, 1)


def changed(network: nn.Module, seed: int) -> None:
    """What an optimizer step and a batch-norm layer would do, in the crudest way."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in [*network.parameters(), *network.buffers()]:
            if value.is_floating_point():
                value.copy_(torch.rand(value.shape, generator=rng))
            else:
                value.copy_(torch.randint(1, 1000, value.shape, generator=rng))


def numbers(network: nn.Module, *, floating: bool) -> dict[str, np.ndarray]:
    return {
        name: value.double().numpy().copy()
        for name, value in network.state_dict().items()
        if value.is_floating_point() is floating
    }


@given(decay=decays, steps=st.integers(1, 8), seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_the_teacher_is_the_average_in_closed_form_with_its_buffers_f1_f7(
    decay: float, steps: int, seed: int
) -> None:
    nets = TeacherStudent(Net(2, 1, 2), decay=decay)
    nets.train()
    history = []
    for step in range(steps):
        changed(nets.student, seed + step)
        history.append(numbers(nets.student, floating=True))
        nets.after_step(step)
    for name, value in numbers(nets.teacher, floating=True).items():
        expected = history[0][name]
        for step in range(1, steps):
            alpha = min(decay, 1 - 1 / (step + 1))
            expected = alpha * expected + (1 - alpha) * history[step][name]
        np.testing.assert_allclose(value, expected, atol=1e-5, err_msg=name)
    whole = numbers(nets.teacher, floating=False)
    counter = "1.num_batches_tracked"
    assert whole.keys() == {f"encoder.fine.{counter}", f"encoder.coarse.{counter}"}
    assert whole == numbers(nets.student, floating=False)


def test_the_closed_form_speaks_of_batch_norm_statistics_too() -> None:
    names = set(numbers(Net(2, 1, 2), floating=True))
    assert {"encoder.fine.1.running_mean", "encoder.fine.1.running_var"} <= names


@given(decay=decays)
@settings(max_examples=20, deadline=None)
def test_the_first_step_copies_and_never_leaves_zeros_f1(decay: float) -> None:
    nets = TeacherStudent(Net(2, 1, 2), decay=decay)
    changed(nets.student, 3)
    nets.after_step(0)
    for held, seen in zip(
        nets.teacher.state_dict().values(), nets.student.state_dict().values(), strict=True
    ):
        assert torch.equal(held, seen)
    assert nets.teacher.head.weight.abs().sum() > 0


@given(step=st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_decay_0_copies_whatever_the_step(step: int) -> None:
    nets = TeacherStudent(Net(3, 1, 2), decay=0.0)
    changed(nets.student, 4)
    nets.after_step(step)
    for held, seen in zip(
        nets.teacher.state_dict().values(), nets.student.state_dict().values(), strict=True
    ):
        assert torch.equal(held, seen)


def test_decay_1_stands_still_but_for_counters() -> None:
    slow, fast = Net(2, 1, 2), Net(2, 1, 2)
    changed(fast, 5)
    before = numbers(slow, floating=True)
    follow(slow, fast, 1.0)
    for name, value in numbers(slow, floating=True).items():
        np.testing.assert_array_equal(value, before[name])
    assert numbers(slow, floating=False) == numbers(fast, floating=False)


def test_following_leaves_the_student_alone() -> None:
    nets = TeacherStudent(Net(2, 1, 2), decay=0.5)
    changed(nets.student, 6)
    before = copy.deepcopy(nets.student.state_dict())
    for step in range(3):
        nets.after_step(step)
    for name, value in nets.student.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(parameter.requires_grad for parameter in nets.student.parameters())


def test_the_teacher_never_trains() -> None:
    nets = TeacherStudent(Net(2, 1, 2), decay=0.5)
    for mode in (True, False, True):
        nets.train(mode)
        assert nets.student.training is mode
        assert not any(part.training for part in nets.teacher.modules())
    nn.Sequential(nets).train()  # as a part of something larger
    assert nets.student.training
    assert not any(part.training for part in nets.teacher.modules())
    assert not any(parameter.requires_grad for parameter in nets.teacher.parameters())


def test_a_prediction_of_the_teacher_leaves_its_statistics_alone_f7() -> None:
    nets = TeacherStudent(Net(2, 1, 2), decay=0.5).train()
    before = copy.deepcopy(nets.teacher.state_dict())
    nets.teacher(5 + torch.randn(4, 1, 8, 8))
    for name, value in nets.teacher.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_who_predicts() -> None:
    net = Net(2, 1, 2)
    solo, pair, peers = Solo(net), TeacherStudent(net, decay=0.5), Peers([net, Net(2, 1, 2)])
    assert solo.predictor is solo.teacher is solo.student is net
    assert pair.predictor is pair.teacher is not net
    assert isinstance(peers.predictor, SoftVote)
    assert [*peers.predictor.parameters()] == [*peers.parameters()]


def test_peers_start_in_different_places() -> None:
    first, second = CrossPseudo().networks(lambda peer=0: Net(2, 1, 2)).peers
    assert not torch.equal(first.head.weight, second.head.weight)


@pytest.mark.parametrize("voters", [1, 2, 3])
@pytest.mark.parametrize("dims", [2, 3])
def test_a_soft_vote_is_the_logarithm_of_the_mean_probability(voters: int, dims: int) -> None:
    peers = nn.ModuleList(Net(dims, 1, 3) for _ in range(voters)).eval()
    image = torch.randn(2, 1, *[5] * dims)
    logits = SoftVote(peers)(image)
    mean = np.mean([peer(image).softmax(dim=1).detach().numpy() for peer in peers], axis=0)
    np.testing.assert_allclose(logits.detach().numpy(), np.log(mean), atol=1e-5)
    np.testing.assert_allclose(logits.softmax(dim=1).detach().numpy(), mean, atol=1e-6)


class Certain(nn.Module):
    """Says class 0, with logits so far apart that class 1 has no probability left."""

    def forward(self, image: Tensor) -> Tensor:
        return torch.cat([image * 0 + 500, image * 0 - 500], dim=1)


def test_a_unanimous_vote_stays_finite() -> None:
    logits = SoftVote(nn.ModuleList([Certain(), Certain()]))(torch.zeros(1, 1, 2, 2))
    assert logits.isfinite().all()
    assert (logits.argmax(dim=1) == 0).all()


def test_together_is_one_pass_with_one_set_of_statistics() -> None:
    net, counts = Net(2, 1, 2).train(), []
    net.register_forward_hook(lambda *_: counts.append(1))
    few, many = torch.randn(2, 1, 6, 6), 3 + torch.randn(3, 1, 6, 6)
    one, other = together(net, few, many)
    assert counts == [1]
    whole = net(torch.cat([few, many]))
    torch.testing.assert_close(torch.cat([one, other]), whole)
    assert one.shape[0] == 2
    assert other.shape[0] == 3


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("mode", ["training", "evaluation"])
def test_encoding_and_decoding_several_batches_is_the_whole_network(dims: int, mode: str) -> None:
    network = Net(dims, 1, 3).train(mode == "training")
    one, other = torch.randn(2, 1, *[8] * dims), torch.randn(3, 1, *[8] * dims)
    parts = decoded(network, *encoded(network, one, other))
    for part, whole in zip(parts, together(network, one, other), strict=True):
        torch.testing.assert_close(part, whole)


def test_following_waits_for_no_device() -> None:
    with torch.device("meta"):  # a value asked of it would raise
        nets = TeacherStudent(Net(2, 1, 2), decay=0.9)
    nets.after_step(7)


def test_a_decay_may_change_while_training() -> None:
    nets = TeacherStudent(Net(2, 1, 2), decay=Jump(start=0.0, end=1.0, until=0.5))
    changed(nets.student, 1)
    nets.after_step(1000, 0.4)  # decay 0 copies
    copied = numbers(nets.student, floating=True)
    changed(nets.student, 2)
    nets.after_step(10**9, 0.5)  # decay 1 stands still
    for name, value in numbers(nets.teacher, floating=True).items():
        np.testing.assert_allclose(value, copied[name], atol=1e-5)
