"""UniMatch V2: its loss is the paper's, and the two views of a sample complete each other."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from common.batch import Batch
from common.errors import ConfigError
from common.filters import All, Confidence
from common.fit import Learner
from common.losses import CrossEntropy
from common.methods import Outcome, UniMatchV2
from common.mixing import CutMix, NoMix
from tests.common.methods.watch import (
    Seven,
    annotated,
    awkward,
    cross_entropy,
    cuts_of,
    labels,
    moved,
    softmax,
    values,
    watched,
)

LABELED, UNLABELED = 2, 4


def begun(domain: Seven, **settings: object) -> tuple[Learner, Batch]:
    torch.manual_seed(0)
    defaults = {"supervised_loss": CrossEntropy(), "filter": Confidence(threshold=0.4)}
    learner = Learner(UniMatchV2(**(defaults | settings)), domain)
    return learner, awkward(next(domain.batches(seed=0, first_step=0)))


def step(learner: Learner, batch: Batch) -> Outcome:
    torch.manual_seed(1)
    return learner(batch, 1.0)


def test_the_loss_is_the_papers_with_each_view_cut_for_itself(
    domain: Seven, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner, batch = begun(domain, mix=CutMix())
    teacher, heads = watched(learner.nets.teacher), watched(learner.nets.student.head)
    cuts = cuts_of(monkeypatch)
    outcome = step(learner, batch)

    (on_weak,), (on_all,) = teacher, heads
    assert torch.equal(on_weak.given, batch.unlabeled.image)
    on_truth, *views = on_all.made.split([LABELED, UNLABELED, UNLABELED])
    probs, valid = softmax(on_weak.made), batch.unlabeled.valid.numpy()
    label, sure = probs.argmax(axis=1), (probs.max(axis=1) >= 0.4) & valid
    assert 0.05 < sure.mean() < 0.95
    assert not torch.equal(cuts[0].where, cuts[1].where)

    one, other = (
        cross_entropy(view, moved(cut, label), moved(cut, sure), moved(cut, valid))
        for view, cut in zip(views, cuts, strict=True)
    )
    known = annotated(batch)
    expected = {
        "supervised": cross_entropy(on_truth, labels(batch), known * 1.0, known) / 2,
        "strong": (one + other) / 2 / 2,
    }
    assert values(outcome) == pytest.approx(expected, rel=1e-4)


def test_the_views_complete_each_other_and_half_of_the_samples_stay_whole(domain: Seven) -> None:
    learner, batch = begun(domain, mix=NoMix())
    network, image = learner.nets.student, batch.unlabeled.image
    kit = learner.kit._replace(strong=lambda view: view)  # two equal views
    encoder, decoder = watched(network.encoder), watched(network.decoder)
    learner.method.losses(learner.nets, batch, kit, 1.0)
    assert torch.equal(encoder[0].given, torch.cat([batch.labeled.image, image, image]))

    whole = []
    for clean, given in zip(encoder[0].made, decoder[0].given, strict=True):
        of_truth, one, other = given.split([LABELED, UNLABELED, UNLABELED])
        same, view, _ = clean.split([LABELED, UNLABELED, UNLABELED])
        assert torch.equal(of_truth, same)
        torch.testing.assert_close(one + other, 2 * view)
        assert zero_one_or_two_times(view, one)
        whole.append((one == view).flatten(1).all(dim=1))
    assert torch.equal(*whole)
    assert whole[0].sum() == UNLABELED // 2


def zero_one_or_two_times(clean: Tensor, dropped: Tensor) -> bool:
    return all(
        any(torch.equal(seen, factor * before) for factor in (0, 1, 2))
        for before, seen in zip(clean.flatten(0, 1), dropped.flatten(0, 1), strict=True)
    )


def test_the_student_alone_learns_and_only_where_there_is_something_to_see_f13(
    domain: Seven, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner, batch = begun(domain, filter=All(), mix=CutMix())
    heads, cuts = watched(learner.nets.student.head), cuts_of(monkeypatch)
    step(learner, batch).losses["strong"].backward()
    on_truth, *views = heads[0].made.grad.split([LABELED, UNLABELED, UNLABELED])
    assert (on_truth == 0).all()
    for gradient, cut in zip(views, cuts, strict=True):
        size, seen = gradient.abs().sum(dim=1), cut.valid(batch.unlabeled.valid)
        assert (size[~seen] == 0).all()
        assert (size[seen] > 0).all()
    assert all(p.grad is None and not p.requires_grad for p in learner.nets.teacher.parameters())


def test_the_teacher_averages_weights_and_statistics_and_is_what_is_shipped_f7_f15(
    domain: Seven,
) -> None:
    learner, batch = begun(domain)
    nets = learner.nets.train()
    assert nets.predictor is nets.teacher
    assert not any(module.training for module in nets.teacher.modules())
    before = {name: each.clone() for name, each in nets.teacher.state_dict().items()}
    step(learner, batch)  # moves the statistics of the student alone
    assert all(torch.equal(each, before[k]) for k, each in nets.teacher.state_dict().items())
    with torch.no_grad():
        for weights in nets.student.parameters():
            weights.add_(torch.randn_like(weights))

    student = nets.student.state_dict()
    for number, decay in ((1, 0.5), (9_999, 0.996)):  # min(1 - 1 / (t + 1), 0.996)
        before = {name: each.clone() for name, each in nets.teacher.state_dict().items()}
        nets.after_step(number)
        for name, each in nets.teacher.state_dict().items():
            if each.is_floating_point():
                expected = decay * before[name] + (1 - decay) * student[name]
                torch.testing.assert_close(each, expected)
            else:
                assert torch.equal(each, student[name])


def test_a_network_in_one_piece_is_refused_in_words() -> None:
    with pytest.raises(ConfigError, match="Conv2d is in one piece"):
        UniMatchV2().networks(lambda peer=0: nn.Conv2d(1, 2, 3))
