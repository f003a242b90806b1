"""UCC: one encoder and two heads, trust by agreement, and pasted classes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from common.batch import IGNORE, Batch
from common.fit import Learner
from common.methods import UCC, Outcome
from tests.common.methods.watch import Seen, Seven, awkward, softmax, values, watched
from tests.toy import ToySettings


class Heard:
    """One step, with what both heads said of the weak view and of labeled and strong together."""

    def __init__(self, method: UCC, *, dims: int = 2) -> None:
        torch.manual_seed(0)
        domain = Seven(ToySettings(dims=dims, side=10))
        self.learner = Learner(method, domain)
        nets = self.learner.nets
        self.encoded: list[Seen] = watched(nets.student.encoder)
        heads = watched(nets.student.head), watched(nets.others[0])
        self.batch: Batch = awkward(next(domain.batches(seed=0, first_step=0)))
        self.shown: list[torch.Tensor] = []
        kit = self.learner.kit._replace(strong=self._strong)
        self.outcome: Outcome = method.losses(nets, self.batch, kit, 1.0)
        count = len(self.batch.labeled.image)
        self.weak = [calls[0].made for calls in heads]
        self.strong = [calls[1].made[count:] for calls in heads]

    def _strong(self, image: torch.Tensor) -> torch.Tensor:
        self.shown.append(image)
        return image * 1.5


@pytest.mark.parametrize("dims", [2, 3])
def test_it_is_cross_entropy_weighted_by_agreement_with_the_truth_where_pasted(dims: int) -> None:
    heard = Heard(UCC(unlabeled_weight=1.0, pasted_classes=1), dims=dims)
    valid = heard.batch.unlabeled.valid.numpy()
    pasted = (heard.shown[0] != heard.batch.unlabeled.image)[:, 0].numpy()
    truth = truth_under(heard)
    assert 0.02 < pasted.mean() < 0.9
    total = 0.0
    for teacher, learner in ((0, 1), (1, 0)):
        p, q = softmax(heard.weak[teacher]), softmax(heard.weak[learner])
        trust = np.exp(-(p * np.log(p / q)).sum(axis=1))
        label = np.where(pasted, truth, p.argmax(axis=1))
        weight = np.where(pasted, 1.0, trust)
        log = np.log(softmax(heard.strong[learner]))
        picked = np.take_along_axis(log, label[:, None], axis=1)[:, 0]
        total -= (picked * weight)[valid].sum() / valid.sum()
    assert values(heard.outcome)["unlabeled"] == pytest.approx(total, rel=1e-4)


def truth_under(heard: Heard) -> np.ndarray:
    """The label of what was pasted, told from its pixels, which are those of a labeled image."""
    image, target = heard.batch.labeled
    truth = np.zeros(heard.shown[0][:, 0].shape, dtype=int)
    for source, labels in zip(image, target, strict=True):
        same = (heard.shown[0][:, 0] == source[0]).numpy()
        truth = np.where(same, labels.numpy()[None], truth)
    return truth


def test_only_valid_pixels_are_pasted_over_and_only_annotated_ones_are_pasted() -> None:
    heard = Heard(UCC(pasted_classes=7))
    pasted = (heard.shown[0] != heard.batch.unlabeled.image)[:, 0]
    assert not pasted[~heard.batch.unlabeled.valid].any()
    assert (truth_under(heard)[pasted.numpy()] != IGNORE).all()


def test_heads_share_one_encoder_and_differ_in_the_rest() -> None:
    heard = Heard(UCC())
    assert len(heard.encoded) == 2  # weak; labeled and strong together
    nets = heard.learner.nets
    own = [*nets.student.decoder.parameters(), *nets.student.head.parameters()]
    other = [*nets.others.parameters()]
    assert [p.shape for p in own] == [p.shape for p in other]
    assert not any(torch.equal(a, b) for a, b in zip(own, other, strict=True) if a.ndim > 1)
    names = {name.split(".")[0] for name, _ in nets.named_parameters()}
    assert names == {"student", "others"}


def test_each_head_learns_from_the_other_alone() -> None:
    heard = Heard(UCC())
    assert all(not logits.requires_grad for logits in heard.weak)
    assert not any(part.requires_grad for part in heard.outcome.pseudo)
    first = torch.autograd.grad(
        heard.outcome.losses["unlabeled"],
        [heard.learner.nets.student.head.weight, heard.learner.nets.others[0][1].weight],
    )
    assert all((grad != 0).any() for grad in first)


def test_confidence_of_each_class_is_remembered_in_the_checkpoint() -> None:
    heard = Heard(UCC(confidence_decay=0.5))
    memory = heard.learner.state_dict()["nets.confidence.average"]
    assert (memory[:2] > 0).all()  # discs on noise hold classes 0 and 1
    assert (memory[2:] == 0).all()
