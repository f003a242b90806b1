"""CCT: what is done to features, and who learns from whom."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.fit import Learner
from common.methods import CCT
from common.methods.cct import PERTURBATIONS
from common.perturb import feature_noise, only_where, without_box, without_strongest
from tests.toy import Net, ToyDomain, ToySettings


@pytest.fixture(params=[2, 3], ids=["tiles", "volumes"])
def domain(request: pytest.FixtureRequest) -> ToyDomain:
    return ToyDomain(ToySettings(dims=request.param, side=8))


def maps(dims: int = 2, channels: tuple[int, ...] = (3, 5)) -> tuple[torch.Tensor, ...]:
    return tuple(
        torch.rand(2, count, *[8 // 2**level] * dims) + 0.5 for level, count in enumerate(channels)
    )


def test_the_main_decoder_learns_from_labeled_images_alone_and_the_others_from_it(
    domain: ToyDomain,
) -> None:
    learner = Learner(CCT(perturbations=("noise", "channels", "strongest")), domain)
    outcome = learner(next(domain.batches(seed=0, first_step=0)), 1.0)
    nets = learner.nets
    for name, loss in outcome.losses.items():
        learner.zero_grad()
        loss.backward(retain_graph=True)
        for part in (nets.student.encoder, nets.student.decoder, nets.student.head, *nets.others):
            found = [p.grad for p in part.parameters()]
            reached = any(grad is not None and bool((grad != 0).any()) for grad in found)
            main = part in (nets.student.decoder, nets.student.head)
            assert reached is (part is nets.student.encoder or main is (name == "supervised")), name


def test_the_loss_is_the_mean_square_over_decoders_classes_and_valid_pixels(
    domain: ToyDomain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PERTURBATIONS, "noise", lambda features, objects: features)
    learner = Learner(CCT(perturbations=("noise", "noise")), domain)
    batch = next(domain.batches(seed=0, first_step=0))
    valid = torch.rand(batch.unlabeled.valid.shape) < 0.7
    found = learner(batch._replace(unlabeled=batch.unlabeled._replace(valid=valid)), 1.0)

    nets, both = learner.nets, torch.cat([batch.labeled.image, batch.unlabeled.image])
    features = tuple(each[2:] for each in nets.student.encoder(both))
    target = nets.student(both)[2:].detach().softmax(dim=1).numpy()
    total = 0.0
    for decoder in nets.others:
        said = decoder(features).detach().softmax(dim=1).numpy()
        total += ((said - target) ** 2).mean(axis=1)[valid.numpy()].mean() / 2
    assert found.losses["unlabeled"].item() == pytest.approx(30 * total, rel=1e-4)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", PERTURBATIONS)
def test_each_perturbation_changes_every_map_and_keeps_its_shape(name: str, dims: int) -> None:
    before, objects = maps(dims), torch.zeros(2, *[8] * dims, dtype=torch.bool)
    objects[:, 2:7, 2:7] = True
    copies = [each.clone() for each in before]
    for old, new, copy in zip(before, PERTURBATIONS[name](before, objects), copies, strict=True):
        assert new.shape == old.shape
        assert not torch.equal(new, old)
        assert torch.equal(old, copy)


def test_noise_stays_within_its_limit_and_differs_between_samples() -> None:
    whole = (torch.ones(2, 50, 6, 6),)
    (factor,) = feature_noise(whole, 0.3)
    assert factor.min() >= 0.7
    assert factor.max() <= 1.3
    assert factor.std() == pytest.approx(0.6 / 12**0.5, rel=0.05)
    assert not torch.equal(factor[0], factor[1])


@given(seed=st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_what_is_dropped_is_stronger_than_all_that_stays(seed: int) -> None:
    torch.manual_seed(seed)
    for old, new in zip(maps(), without_strongest(maps(), 0.6, 0.9), strict=True):
        assert old.shape == new.shape
    before = maps()
    for old, new in zip(before, without_strongest(before, 0.6, 0.9), strict=True):
        for activity, kept in zip(old.mean(dim=1), (new != 0).all(dim=1), strict=True):
            strongest = activity.max()
            assert (activity[~kept] >= 0.6 * strongest).all()
            assert (activity[kept] < 0.9 * strongest).all()
            assert not kept[activity == strongest]
            assert activity[kept].numel() == 0 or activity[kept].max() < activity[~kept].min()


def test_features_that_are_nowhere_above_0_lose_nothing() -> None:
    before = (-torch.rand(2, 3, 4, 4),)
    assert torch.equal(without_strongest(before, 0.6, 0.9)[0], before[0])


@given(seed=st.integers(0, 1000), share=st.floats(0.1, 1.0))
@settings(max_examples=50, deadline=None)
def test_the_box_lies_within_the_objects_and_covers_its_share(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    objects = np.zeros((1, 12, 9), dtype=bool)
    y, x = np.sort(rng.integers(0, 12, 2)), np.sort(rng.integers(0, 9, 2))
    objects[0, y[0], x[0]] = objects[0, y[1], x[1]] = True  # two corners of the bounding box
    (kept,) = without_box((torch.ones(1, 1, 12, 9),), torch.from_numpy(objects), share)
    rows, columns = np.nonzero(kept[0, 0].numpy() == 0)
    for found, (low, high) in ((rows, y), (columns, x)):
        assert low <= found.min()
        assert found.max() <= high
        assert len(set(found)) == max(1, round(share * (high - low + 1)))
    assert len(rows) == len(set(rows)) * len(set(columns))


def test_a_sample_without_objects_loses_no_box() -> None:
    before, objects = maps(), torch.zeros(2, 8, 8, dtype=torch.bool)
    objects[1, 2:6, 2:6] = True
    for old, new in zip(before, without_box(before, objects, 0.5), strict=True):
        assert torch.equal(old[0], new[0])
        assert not torch.equal(old[1], new[1])


def test_context_and_objects_part_the_features_at_every_level() -> None:
    before, objects = maps(3), torch.rand(2, 8, 8, 8) < 0.5
    parts = zip(only_where(before, objects), only_where(before, ~objects), strict=True)
    for old, (of_objects, of_context) in zip(before, parts, strict=True):
        assert torch.equal(of_objects + of_context, old)
        assert (of_objects * of_context == 0).all()


def test_each_perturbation_has_a_decoder_and_none_is_shipped() -> None:
    nets = CCT().networks(lambda peer=0: Net(2, 1, 3))
    assert len(nets.others) == len(PERTURBATIONS) == 6
    assert nets.predictor is nets.student
    assert len(CCT(perturbations=("noise",)).networks(lambda peer=0: Net(2, 1, 3)).others) == 1
