"""ELN: who learns from what, when the further decoders learn, and which pixels teach."""

from __future__ import annotations

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from common.batch import Batch
from common.fit import Learner
from common.localizer import Localizing, evidence
from common.methods import ELN, Outcome
from common.schedules import Jump
from tests.common.methods.watch import (
    CLASSES,
    Seven,
    annotated,
    awkward,
    cross_entropy,
    labels,
    softmax,
    values,
)
from tests.toy import Net, ToySettings

ALWAYS = {"localizer_weight": 1.0, "unlabeled_weight": 1.0}


class Alone(Seven):
    """Seven classes, and networks that see each sample for itself, so that views may be apart."""

    def new_network(self, peer: int = 0) -> nn.Module:
        return Net(self.settings.dims, 1, CLASSES, norm="group")


@pytest.fixture(params=[2, 3], ids=["tiles", "volumes"])
def domain(request: pytest.FixtureRequest) -> Seven:
    return Alone(ToySettings(dims=request.param, side=8))


def learner_of(domain: Seven, method: ELN) -> Learner:
    """A learner whose localizer doubts some pixels and not others."""
    torch.manual_seed(0)
    learner = Learner(method, domain)
    nn.init.normal_(learner.nets.localizer.body.head.weight)
    nn.init.zeros_(learner.nets.localizer.body.head.bias)
    nn.init.normal_(learner.nets.student.head.weight, std=2.0)  # a teacher of other opinion
    return learner


def stepped(learner: Learner, batch: Batch, progress: float = 1.0) -> Outcome:
    kit = learner.kit._replace(strong=lambda image: 0.5 * image)
    return learner.method.losses(learner.nets, batch, kit, progress)


def moved(learner: Learner, loss: Tensor) -> set[str]:
    """The networks, and parts of the student, that ``loss`` moves."""
    learner.zero_grad()
    loss.backward(retain_graph=True)
    found = {name: each.grad for name, each in learner.nets.named_parameters()}
    names = (name for name, grad in found.items() if grad is not None and bool(grad.any()))
    return {".".join(name.split(".")[: 1 if name.startswith("localizer") else 2]) for name in names}


def votes_of(nets: Localizing, batch: Batch) -> list[Tensor]:
    """Logits of the main decoder and the further ones on labeled images."""
    features = nets.student.encoder(batch.labeled.image)
    main = nets.student.head(nets.student.decoder(features))
    return [main, *(decoder(features) for decoder in nets.erring)]


def test_the_localizer_learns_where_prediction_and_truth_are_the_same_from_all_decoders(
    domain: Seven,
) -> None:
    learner = learner_of(domain, ELN(worse_by=(1e6, 1e6), **ALWAYS))
    batch = awkward(next(domain.batches(seed=0, first_step=0)))
    total, target, known = 0.0, labels(batch), annotated(batch)
    for logits in votes_of(learner.nets, batch):
        seen = evidence(batch.labeled.image, logits)
        verdict = learner.nets.localizer.body(seen)[:, 0].detach().double().numpy()
        sound, right = 1 / (1 + np.exp(-verdict)), logits.argmax(dim=1).numpy() == target
        yes, no = -np.log(sound)[right & known], -np.log(1 - sound)[~right & known]
        assert len(yes) > 0
        assert len(no) > 0
        total += (yes.sum() + len(yes) / len(no) * no.sum()) / known.sum()
    found = values(stepped(learner, batch))["supervised_localizer"]
    assert found == pytest.approx(total, rel=1e-3)


def test_no_gradient_of_the_localizer_reaches_any_other_network(domain: Seven) -> None:
    batch = awkward(next(domain.batches(seed=0, first_step=0)))
    learner = learner_of(domain, ELN(worse_by=(1e6, 1e6), **ALWAYS))
    assert moved(learner, stepped(learner, batch).losses["supervised_localizer"]) == {"localizer"}


@pytest.mark.parametrize(
    ("worse_by", "learns"),
    [
        ((1e-6, 1e6), {"erring.0"}),
        ((1e6, 1e-6), {"erring.1"}),
        ((1e-6, 1e-6), {"erring.0", "erring.1"}),
    ],
)
def test_a_further_decoder_learns_only_while_it_is_worse(
    domain: Seven, worse_by: tuple[float, float], learns: set[str]
) -> None:
    batch = awkward(next(domain.batches(seed=0, first_step=0)))
    learner = learner_of(domain, ELN(worse_by=worse_by, **ALWAYS))
    loss = stepped(learner, batch).losses["supervised_localizer"]
    assert moved(learner, loss) == {"localizer"} | learns
    closed = learner_of(domain, ELN(worse_by=(1e6, 1e6), **ALWAYS))
    votes = votes_of(learner.nets, batch)[1:]
    flat = np.ones(labels(batch).shape)
    own = [cross_entropy(each, labels(batch), flat, annotated(batch)) for each in votes]
    expected = sum(cost for cost, by in zip(own, worse_by, strict=True) if by < 1)
    more = loss.item() - stepped(closed, batch).losses["supervised_localizer"].item()
    assert more == pytest.approx(expected, rel=1e-3)


def test_the_limit_of_a_decoder_is_so_many_times_the_cross_entropy_of_the_main_one(
    domain: Seven,
) -> None:
    batch = awkward(next(domain.batches(seed=0, first_step=0)))
    votes = votes_of(learner_of(domain, ELN()).nets, batch)
    flat = np.ones(labels(batch).shape)
    main, first, _ = (cross_entropy(v, labels(batch), flat, annotated(batch)) for v in votes)
    for share, learns in ((0.999, {"erring.0"}), (1.001, set())):
        learner = learner_of(domain, ELN(worse_by=(share * first / main, 1e6), **ALWAYS))
        loss = stepped(learner, batch).losses["supervised_localizer"]
        assert moved(learner, loss) == {"localizer"} | learns


def test_pixels_teach_where_the_localizer_is_surer_than_the_threshold(domain: Seven) -> None:
    batch = awkward(next(domain.batches(seed=0, first_step=0)))
    learner = learner_of(domain, ELN(**ALWAYS))
    outcome, (image, valid, _) = stepped(learner, batch), batch.unlabeled
    belief = learner.nets.teacher(image)
    odds = learner.nets.localizer.body(evidence(image, belief))[:, 0]
    kept = (1 / (1 + np.exp(-odds.detach().double().numpy())) > 0.5) & valid.numpy()
    assert 0 < kept.sum() < valid.sum()
    np.testing.assert_array_equal(outcome.pseudo.weight.numpy(), kept)

    label = softmax(belief).argmax(axis=1)
    np.testing.assert_array_equal(outcome.pseudo.target.numpy()[valid], label[valid])
    views = learner.nets.student(image), learner.nets.student(0.5 * image)
    expected = sum(cross_entropy(view, label, kept, kept) for view in views)
    assert values(outcome)["unlabeled"] == pytest.approx(expected, rel=1e-3)
    parts = {"student.encoder", "student.decoder", "student.head"}
    assert moved(learner, outcome.losses["unlabeled"]) == parts


def test_a_higher_threshold_keeps_no_more(domain: Seven) -> None:
    batch = next(domain.batches(seed=0, first_step=0))
    kept = [
        stepped(learner_of(domain, ELN(threshold=at)), batch).pseudo.weight
        for at in (0.3, 0.5, 0.9)
    ]
    assert all(bool((less <= more).all()) for more, less in pairwise(kept))
    assert kept[0].sum() > kept[-1].sum()


def test_labels_alone_teach_first_then_the_localizer_learns_then_all() -> None:
    domain = Seven(ToySettings(side=8))
    batch = next(domain.batches(seed=0, first_step=0))
    learner, seen = Learner(ELN(), domain), []
    for progress in (0.07, 0.09, 0.17, 0.19):
        losses = values(stepped(learner, batch, progress))
        seen.append({name for name, value in losses.items() if value != 0})
    first = {"supervised"}
    assert seen == [first, first | {"supervised_localizer"}, seen[1], seen[1] | {"unlabeled"}]
    assert isinstance(ELN().unlabeled_weight, Jump)


def test_the_localizer_learns_to_find_errors() -> None:
    domain = Alone(ToySettings(side=8))
    batch = awkward(next(domain.batches(seed=0, first_step=0)))
    learner = learner_of(domain, ELN(worse_by=(1e6, 1e6), **ALWAYS))
    optimizer = torch.optim.Adam(learner.nets.localizer.parameters(), lr=0.01)
    for _ in range(40):
        optimizer.zero_grad()
        stepped(learner, batch).losses["supervised_localizer"].backward()
        optimizer.step()
    votes = votes_of(learner.nets, batch)
    right = torch.stack([logits.argmax(dim=1) == batch.labeled.target for logits in votes])
    found = torch.stack([learner.nets.localizer(batch.labeled.image, each) > 0 for each in votes])
    known = torch.from_numpy(annotated(batch)).expand(right.shape)
    hits = [(found == right)[known & kind].float().mean() for kind in (right, ~right)]
    assert min(hits) > 0.75


def test_the_localizer_and_further_decoders_travel_with_a_checkpoint() -> None:
    domain = Alone(ToySettings(side=8))
    learner, other = learner_of(domain, ELN()), Learner(ELN(), domain)
    names = {name.split(".")[0] for name in learner.nets.state_dict()}
    assert names == {"student", "teacher", "erring", "localizer"}
    other.load_state_dict(copy.deepcopy(learner.state_dict()))
    batch = next(domain.batches(seed=0, first_step=0))
    assert values(stepped(other, batch)) == values(stepped(learner, batch))


def test_the_teacher_predicts_and_classes_may_be_many(domain: Seven) -> None:
    nets = Learner(ELN(), domain).nets
    assert nets.predictor is nets.teacher
    assert nets.teacher.num_classes == CLASSES
