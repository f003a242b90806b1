"""What the localizer sees, what it is told, and which networks it can look at."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from common.batch import IGNORE
from common.errors import ConfigError
from common.localizer import (
    EncoderDecoder,
    Localizer,
    evidence,
    image_channels,
    localization,
    while_above,
)
from common.parts import Parted
from tests.contracts.test_networks import built, named  # noqa: F401
from tests.toy import Net

CLASSES = 5


def told(verdict: np.ndarray, predicted: np.ndarray, target: np.ndarray) -> float:
    """The loss as the paper's code has it, pixel after pixel, over annotated pixels."""
    right, wrong = [], []
    for at in np.ndindex(*target.shape):
        if target[at] == IGNORE:
            continue
        sound = 1 / (1 + np.exp(-verdict[at]))
        if predicted[at] == target[at]:
            right.append(-np.log(sound))
        else:
            wrong.append(-np.log(1 - sound))
    factor = len(right) / len(wrong) if wrong else 0
    return (sum(right) + factor * sum(wrong)) / max(len(right) + len(wrong), 1)


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**16),
    ignored=st.sampled_from([0.0, 0.3, 1.0]),
    skill=st.sampled_from([0.0, 0.6, 1.0]),
    sides=st.sampled_from([(4, 3), (2, 3, 2)]),
)
def test_a_pixel_is_right_where_prediction_and_truth_are_the_same(
    seed: int, ignored: float, skill: float, sides: tuple[int, ...]
) -> None:
    rng = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, CLASSES, *sides, generator=rng)
    predicted = logits.argmax(dim=1)
    off = torch.rand(predicted.shape, generator=rng) >= skill
    target = torch.where(off, (predicted + 1) % CLASSES, predicted)
    target[torch.rand(target.shape, generator=rng) < ignored] = IGNORE
    verdict = 3 * torch.randn(predicted.shape, generator=rng)
    expected = told(verdict.double().numpy(), predicted.numpy(), target.numpy())
    assert localization(verdict, logits, target).item() == pytest.approx(expected, rel=1e-4)


def test_right_and_wrong_pull_equally_and_a_pixel_without_annotation_not_at_all() -> None:
    logits = torch.eye(3)[torch.tensor([[0, 0, 0, 0, 1, 2]])].movedim(-1, 1).requires_grad_()
    target = torch.tensor([[0, 0, 0, 0, 2, IGNORE]])
    verdict = torch.zeros(1, 6, requires_grad=True)
    localization(verdict, logits, target).backward()
    pull = verdict.grad[0]
    assert pull[:4].sum() == pytest.approx(-pull[4].item())
    assert pull[4] > 0
    assert pull[5] == 0
    assert logits.grad is None


def test_evidence_is_image_entropy_and_probabilities() -> None:
    image = torch.randn(2, 3, 4, 5)
    logits = torch.randn(2, CLASSES, 4, 5, requires_grad=True)
    seen = evidence(image, logits)
    power = np.exp(logits.detach().double().numpy())
    probs = power / power.sum(axis=1, keepdims=True)
    entropy = -(probs * np.log(probs)).sum(axis=1, keepdims=True)
    expected = np.concatenate([image.numpy(), entropy, probs], axis=1)
    np.testing.assert_allclose(seen.numpy(), expected, atol=1e-5)
    assert not seen.requires_grad


def test_a_loss_below_its_limit_is_zero_and_moves_nothing() -> None:
    for limit, moves in ((1.9, 1.0), (2.0, 1.0), (2.1, 0.0)):
        at = torch.tensor(2.0, requires_grad=True)
        bound = torch.tensor(limit, requires_grad=True)
        loss = while_above(bound, at)
        loss.backward()
        assert loss.item() == 2.0 * moves
        assert at.grad.item() == moves
        assert bound.grad is None


@pytest.mark.parametrize("dims", [2, 3])
def test_a_fresh_localizer_finds_no_error_and_can_learn_all_the_same(dims: int) -> None:
    image = torch.randn(2, 4, *(7, 6, 5)[:dims])
    logits = torch.randn(2, CLASSES, *image.shape[2:])
    localizer = Localizer(Net(dims, 4, CLASSES), width=4)
    verdict = localizer(image, logits)
    assert verdict.shape == (2, *image.shape[2:])
    assert (verdict.sigmoid() > 0.5).all()
    optimizer = torch.optim.SGD(localizer.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        localizer(image, logits).square().sum().backward()
        optimizer.step()
    assert all(bool(weights.grad.any()) for weights in localizer.parameters())


def test_a_sample_is_judged_alike_in_any_company() -> None:
    network = EncoderDecoder(nn.Conv2d, 3, 2, widths=(4, 6, 8))
    images = torch.randn(3, 3, 9, 1)
    torch.testing.assert_close(network(images)[1:2], network(images[1:2]))


def test_every_network_tells_how_many_channels_its_images_have(named: str) -> None:  # noqa: F811
    network, image = built(named)
    assert image_channels(network) == image.shape[1]


def test_an_encoder_without_a_convolution_is_refused_in_words() -> None:
    network = Parted(nn.Flatten(2), nn.Identity(), nn.Conv2d(3, 2, 1))
    with pytest.raises(ConfigError, match=r"first convolution of the encoder, which has none"):
        image_channels(network)
