"""A first batch that breaks the agreement is refused in words."""

from __future__ import annotations

import re

import pytest
import torch

from common.batch import IGNORE, Batch, Labeled, Unlabeled, check_batch
from common.errors import ShapeError


def batch(**changes: object) -> Batch:
    parts = {
        "image": torch.zeros(2, 3, 4, 4),
        "target": torch.zeros(2, 4, 4, dtype=torch.int64),
        "unlabeled": torch.zeros(5, 3, 4, 4),
        "valid": torch.ones(5, 4, 4, dtype=torch.bool),
        "possible": torch.ones(5, 2, 1, 1, dtype=torch.bool),
    } | changes
    unlabeled = Unlabeled(parts["unlabeled"], parts["valid"], parts["possible"])
    return Batch(Labeled(parts["image"], parts["target"]), unlabeled)


def refused(faulty: Batch, message: str) -> None:
    with pytest.raises(ShapeError, match=f"^{re.escape(message)}$"):
        check_batch(faulty, 3, 2)


def test_a_batch_that_keeps_the_agreement_passes() -> None:
    target = torch.tensor([0, 1, IGNORE, 0]).expand(2, 4, 4)
    check_batch(batch(target=target), 3, 2)


def test_no_unlabeled_images_at_all_pass() -> None:
    none = {
        "unlabeled": torch.zeros(0, 3, 4, 4),
        "valid": torch.ones(0, 4, 4) > 0,
        "possible": torch.ones(0, 2, 1, 1) > 0,
    }
    check_batch(batch(**none), 3, 2)


def test_strange_channels_are_named() -> None:
    refused(
        batch(unlabeled=torch.zeros(5, 4, 4, 4)),
        "unlabeled.image has 4 channels, the task has 3: images of one run must agree in their "
        "channels.",
    )


def test_flags_of_other_classes_are_named() -> None:
    refused(
        batch(possible=torch.ones(5, 3, 4, 4) > 0),
        "unlabeled.possible has shape (5, 3, 4, 4): expected one flag for each of the 2 classes of "
        "each of the 5 images.",
    )


def test_a_pixel_that_can_have_no_class_is_refused_where_it_is_valid() -> None:
    valid, possible = torch.ones(5, 4, 4) > 0, torch.ones(5, 2, 4, 4) > 0
    possible[3, :, 1, 2], valid[3, 1, 2] = False, False
    check_batch(batch(valid=valid, possible=possible), 3, 2)
    refused(
        batch(possible=possible),
        "unlabeled.possible leaves a valid pixel without any class: the weak labels of its image "
        "contradict each other.",
    )


@pytest.mark.parametrize("shape", [(2, 4, 5), (1, 4, 4), (2, 4, 4, 4)])
def test_a_target_of_another_shape_is_named(shape: tuple[int, ...]) -> None:
    refused(
        batch(target=torch.zeros(shape, dtype=torch.int64)),
        f"labeled: image (2, 3, 4, 4) and its grid {shape} must share batch and spatial axes.",
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_no_numbers_are_named(value: float) -> None:
    image = torch.zeros(5, 3, 4, 4)
    image[3, 1, 2, 0] = value
    refused(
        batch(unlabeled=image),
        "unlabeled.image holds NaN or infinite values: the domain must replace them and mark the "
        "pixels as not valid.",
    )


def test_classes_beyond_the_task_are_listed() -> None:
    target = torch.tensor([0, 7, IGNORE, -1]).expand(2, 4, 4)
    refused(
        batch(target=target),
        "labeled.target holds classes [-1, 7]; the task has 0..1 and IGNORE=255. Remap the labels "
        "or list the classes in the config.",
    )
