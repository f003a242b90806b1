"""UniMatch: its loss is the paper's, and nothing flows where it must not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from common.batch import Batch
from common.errors import ConfigError
from common.filters import All, Confidence
from common.fit import Learner
from common.losses import CrossEntropy
from common.methods import Outcome, UniMatch
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
    defaults = {"supervised_loss": CrossEntropy(), "filter": Confidence(threshold=0.6)}
    learner = Learner(UniMatch(**(defaults | settings)), domain)
    return learner, awkward(next(domain.batches(seed=0, first_step=0)))


def step(learner: Learner, batch: Batch) -> Outcome:
    torch.manual_seed(1)
    return learner(batch, 1.0)


def test_the_loss_is_the_papers_with_each_view_cut_for_itself(
    domain: Seven, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner, batch = begun(domain, mix=CutMix())
    heads, cuts = watched(learner.nets.student.head), cuts_of(monkeypatch)
    outcome = step(learner, batch)

    first, second = heads
    on_truth, on_weak, on_dropped = first.made.split([LABELED, UNLABELED, UNLABELED])
    views = second.made.split([UNLABELED, UNLABELED])
    probs, valid = softmax(on_weak), batch.unlabeled.valid.numpy()
    label, sure = probs.argmax(axis=1), (probs.max(axis=1) >= 0.6) & valid
    assert 0.05 < sure.mean() < 0.95
    assert len(cuts) == 2
    assert not torch.equal(cuts[0].where, cuts[1].where)

    on_views = [
        cross_entropy(view, moved(cut, label), moved(cut, sure), moved(cut, valid))
        for view, cut in zip(views, cuts, strict=True)
    ]
    known = annotated(batch)
    expected = {
        "supervised": 0.5 * cross_entropy(on_truth, labels(batch), known * 1.0, known),
        "strong": 0.5 * (0.25 * on_views[0] + 0.25 * on_views[1]),
        "feature": 0.5 * 0.5 * cross_entropy(on_dropped, label, sure, valid),
    }
    assert values(outcome) == pytest.approx(expected, rel=1e-4)


def test_two_passes_of_the_encoder_and_two_of_the_decoder(domain: Seven) -> None:
    learner, batch = begun(domain, mix=NoMix())
    network = learner.nets.student
    encoder, decoder = watched(network.encoder), watched(network.decoder)
    step(learner, batch)
    assert [len(call.given) for call in encoder] == [LABELED + UNLABELED, 2 * UNLABELED]
    assert [len(call.made) for call in decoder] == [LABELED + 2 * UNLABELED, 2 * UNLABELED]
    assert torch.equal(encoder[0].given[LABELED:], batch.unlabeled.image)


def test_the_strong_views_differ_and_neither_is_the_weak_one(domain: Seven) -> None:
    learner, batch = begun(domain, mix=NoMix())
    encoder = watched(learner.nets.student.encoder)
    step(learner, batch)
    one, other = encoder[1].given.split(UNLABELED)
    assert not torch.equal(one, other)
    assert not torch.equal(one, batch.unlabeled.image)


def test_whole_channels_of_every_map_of_the_weak_view_are_dropped(domain: Seven) -> None:
    learner, batch = begun(domain)
    decoder = watched(learner.nets.student.decoder)
    step(learner, batch)
    for level in decoder[0].given:
        _, clean, dropped = level.split([LABELED, UNLABELED, UNLABELED])
        gone = dropped.flatten(2).abs().amax(dim=2) == 0
        assert 0.2 < gone.float().mean() < 0.8
        torch.testing.assert_close(dropped[~gone], 2 * clean[~gone])


def test_a_weak_view_that_loses_no_channel_is_predicted_the_same(domain: Seven) -> None:
    learner, batch = begun(domain, dropout=0.0)
    heads = watched(learner.nets.student.head)
    step(learner, batch)
    _, clean, dropped = heads[0].made.split([LABELED, UNLABELED, UNLABELED])
    torch.testing.assert_close(clean, dropped)


def test_no_gradient_where_the_pseudo_label_is_made_or_nothing_is_to_be_seen_f13(
    domain: Seven, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner, batch = begun(domain, filter=All(), mix=CutMix())
    heads, cuts = watched(learner.nets.student.head), cuts_of(monkeypatch)
    losses = step(learner, batch).losses
    (losses["strong"] + losses["feature"]).backward(retain_graph=True)

    on_truth, on_weak, on_dropped = heads[0].made.grad.split([LABELED, UNLABELED, UNLABELED])
    assert (on_truth == 0).all()
    assert (on_weak == 0).all()
    valid = batch.unlabeled.valid
    found = [on_dropped, *heads[1].made.grad.split(UNLABELED)]
    for gradient, seen in zip(found, [valid, *(cut.valid(valid) for cut in cuts)], strict=True):
        size = gradient.abs().sum(dim=1)
        assert (size[~seen] == 0).all()
        assert (size[seen] > 0).all()

    for call in heads:
        call.made.grad = None
    losses["supervised"].backward()
    assert (heads[0].made.grad[LABELED:] == 0).all()
    assert heads[1].made.grad is None


def test_where_nothing_is_sure_only_labeled_images_teach(domain: Seven) -> None:
    learner, batch = begun(domain, filter=Confidence(threshold=1.0))
    with torch.no_grad():
        learner.nets.student.head.weight.mul_(1e-3)
    losses = step(learner, batch).losses
    assert losses["strong"] == losses["feature"] == 0
    assert losses["supervised"] > 0


def test_running_statistics_are_those_of_both_passes(domain: Seven) -> None:
    learner, batch = begun(domain)
    norm = learner.nets.student.encoder.fine[1]
    assert isinstance(norm, nn.BatchNorm2d | nn.BatchNorm3d)
    calls = watched(norm)
    step(learner, batch)
    expected = np.zeros(norm.num_features)
    for call in calls:
        axes = (0, *range(2, call.given.ndim))
        mean = call.given.detach().double().numpy().mean(axis=axes)
        expected = (1 - norm.momentum) * expected + norm.momentum * mean
    assert len(calls) == 2
    np.testing.assert_allclose(norm.running_mean, expected, atol=1e-5)


def test_a_network_in_one_piece_is_refused_in_words() -> None:
    with pytest.raises(ConfigError, match="Conv2d is in one piece"):
        UniMatch().networks(lambda peer=0: nn.Conv2d(1, 2, 3))
