"""DHC: hard classes count more to the first peer, rare ones to the second."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from common.batch import IGNORE
from common.losses import CrossEntropy
from common.methods import DHC
from tests.common.methods.peers import step
from tests.common.methods.watch import CLASSES, values


@pytest.mark.parametrize("dims", [2, 3])
def test_each_loss_is_a_cross_entropy_with_its_own_class_weights(dims: int) -> None:
    method = DHC(supervised_loss=CrossEntropy(), unlabeled_weight=0.3, rarity_decay=0.5)
    seen = step(method, dims=dims)
    nets, truth = seen.learner.nets, seen.batch.labeled.target
    fresh = DHC(rarity_decay=0.5).networks(lambda peer=0: torch.nn.Identity())
    hard = fresh.difficulty(seen.said[0].truth.argmax(dim=1), truth, CLASSES)
    labels = [
        torch.where(seen.batch.unlabeled.valid, torch.from_numpy(each), IGNORE)
        for each in seen.labels
    ]
    rare = fresh.rarity(labels[1], CLASSES)
    assert torch.equal(nets.rarity.average, fresh.rarity.average)
    assert torch.equal(nets.difficulty.missed, fresh.difficulty.missed)

    def weighted(logits: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> float:
        return float(F.cross_entropy(logits.detach(), target, weight, ignore_index=IGNORE))

    first, second = seen.said
    found = values(seen.outcome)
    on_truth = weighted(first.truth, truth, hard) + weighted(second.truth, truth, rare)
    crossed = weighted(first.strong, labels[1], hard) + weighted(second.strong, labels[0], rare)
    assert found["supervised"] == pytest.approx(on_truth, rel=1e-4)
    assert found["unlabeled"] == pytest.approx(0.3 * crossed, rel=1e-4)


def test_memories_are_saved_and_move_with_every_step() -> None:
    seen = step(DHC())
    saved = {name: value.clone() for name, value in seen.learner.state_dict().items()}
    assert {"nets.rarity.average", "nets.difficulty.dice", "nets.difficulty.fallen"} <= {*saved}
    seen.learner(seen.batch, 1.0)
    assert not torch.equal(saved["nets.rarity.average"], seen.learner.nets.rarity.average)


def test_class_weights_carry_no_gradient() -> None:
    nets = step(DHC()).learner.nets
    assert not any(buffer.requires_grad for buffer in nets.buffers())
