"""RRN: what discriminators learn, which regions teach, and how much in conflict."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from common.batch import IGNORE, Pseudo
from common.fit import Learner
from common.methods import RRN
from common.mixing import CutMix
from common.regions import disputed, judgement, on_pixels, pull, region_means
from tests.common.methods.peers import Step, step
from tests.common.methods.watch import (
    CLASSES,
    Seven,
    annotated,
    awkward,
    cross_entropy,
    cuts_of,
    labels,
    moved,
    values,
)
from tests.toy import ToySettings

SIDE = 5  # of a region; the images of ``step`` have 10 pixels a side
METHOD = RRN(region_pixels=SIDE, unlabeled_weight=1.0, threshold=0.5)


@pytest.fixture(autouse=True)
def _opinionated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Discriminators that doubt some regions and not others."""
    networks = RRN.networks

    def doubting(self: RRN, new_network: object) -> nn.Module:
        nets = networks(self, new_network)
        for judge in nets.judges:
            nn.init.normal_(judge.body.head.weight)
            nn.init.zeros_(judge.body.head.bias)
        return nets

    monkeypatch.setattr(RRN, "networks", doubting)


def cells(shape: tuple[int, ...], side: int) -> list[tuple[slice, ...]]:
    """The regions of a batch of maps, each sample and cell for itself."""
    cuts = [[slice(at, at + side) for at in range(0, length, side)] for length in shape[1:]]
    samples = [slice(sample, sample + 1) for sample in range(shape[0])]
    return [(sample, *cell) for sample in samples for cell in product(*cuts)]


def odds(judge: nn.Module, image: torch.Tensor, logits: torch.Tensor) -> np.ndarray:
    return judge(image, logits).detach().double().numpy()


def ratings(seen: Step) -> np.ndarray:
    """How likely each pixel's region is right, by judge and by peer, over valid pixels."""
    found = np.zeros((2, 2, *seen.valid.shape))
    for (j, judge), (p, said) in product(enumerate(seen.learner.nets.judges), enumerate(seen.said)):
        verdict = odds(judge, seen.batch.unlabeled.image, said.weak.detach())
        for cell in cells(seen.valid.shape, SIDE):
            counts = seen.valid[cell]
            mean = verdict[cell][counts].mean() if counts.any() else 0.0
            found[(j, p, *cell)] = 1 / (1 + np.exp(-mean))
    return found


def naive_trust(seen: Step, threshold: float = 0.5) -> list[np.ndarray]:
    """What each peer teaches the other one, region after region."""
    rated, (a, b), trust = ratings(seen), seen.labels, []
    for t, k in ((0, 1), (1, 0)):
        weight = np.zeros(seen.valid.shape)
        for cell in cells(seen.valid.shape, SIDE):
            counts = seen.valid[cell]
            if not counts.any() or rated[(t, t, *cell)].flat[0] < threshold:
                continue
            d = (a[cell] != b[cell])[counts].mean()
            mean = rated[(slice(None), slice(None), *cell)].mean(axis=0)
            teacher, learner = mean[t].flat[0], mean[k].flat[0]
            weight[cell] = 1 - d + d * teacher / (teacher + learner)
        trust.append(weight * seen.valid)
    return trust


@pytest.mark.parametrize("dims", [2, 3])
def test_a_region_teaches_if_judged_right_and_in_conflict_by_how_reliable_its_teacher_is(
    dims: int,
) -> None:
    sure = np.unique(ratings(step(METHOD, dims=dims))[0, 0])
    threshold = float(sure[len(sure) // 2 - 1 :][:2].mean())  # about half of the regions pass
    seen = step(METHOD.model_copy(update={"threshold": threshold}), dims=dims)
    trust = naive_trust(seen, threshold)
    assert any(0 < (each > 0).sum() < seen.valid.sum() for each in trust)
    assert len(np.unique(trust[0].round(4))) > 2
    np.testing.assert_allclose(seen.outcome.pseudo.weight, trust[0], atol=1e-5)
    assert torch.equal(seen.outcome.pseudo.target == IGNORE, ~seen.batch.unlabeled.valid)
    expected = sum(
        cross_entropy(seen.said[1 - t].strong, seen.labels[t], trust[t], seen.valid)
        for t in range(2)
    )
    assert values(seen.outcome)["unlabeled"] == pytest.approx(expected, rel=1e-3)


def test_with_mix_the_trust_moves_along(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = cuts_of(monkeypatch)
    seen = step(METHOD.model_copy(update={"mix": CutMix()}))
    trust, valid = naive_trust(seen), moved(drawn[0], seen.valid)
    expected = sum(
        cross_entropy(
            seen.said[1 - t].strong,
            moved(drawn[0], seen.labels[t]),
            moved(drawn[0], trust[t]),
            valid,
        )
        for t in range(2)
    )
    assert values(seen.outcome)["unlabeled"] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("dims", [2, 3])
def test_a_discriminator_learns_the_share_of_a_region_that_its_peer_has_right(dims: int) -> None:
    seen = step(METHOD, dims=dims)
    known, target, total = annotated(seen.batch), labels(seen.batch), 0.0
    for judge, said in zip(seen.learner.nets.judges, seen.said, strict=True):
        verdict = odds(judge, seen.batch.labeled.image, said.truth.detach())
        right = said.truth.argmax(dim=1).numpy() == target
        for cell in cells(known.shape, SIDE):
            if known[cell].any():
                p = 1 / (1 + np.exp(-verdict[cell][known[cell]].mean()))
                share = right[cell][known[cell]].mean()
                missed = -share * np.log(p) - (1 - share) * np.log(1 - p)
                total += missed * known[cell].sum() / known.sum()
    assert values(seen.outcome)["supervised_discriminators"] == pytest.approx(total, rel=1e-3)


def test_who_learns_from_what() -> None:
    seen = step(METHOD.model_copy(update={"threshold": 0.0}))
    nets = seen.learner.nets
    for term, peers, judges in (
        ("supervised", [True, True], False),
        ("unlabeled", [True, True], False),
        ("supervised_discriminators", [False, False], True),
    ):
        assert seen.moves(term) == peers
        grads = [each.grad for each in nets.judges.parameters()]
        assert any(each is not None and bool(each.any()) for each in grads) == judges


def test_fresh_discriminators_find_no_error_so_that_it_starts_as_cps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.undo()
    seen = step(RRN(region_pixels=SIDE))
    assert torch.equal(seen.outcome.pseudo.weight > 0, seen.batch.unlabeled.valid)
    (a, b), valid = seen.labels, seen.valid
    cell = (slice(0, 1), slice(0, SIDE), slice(0, SIDE))
    d = (a[cell] != b[cell])[valid[cell]].mean()  # both are rated alike
    np.testing.assert_allclose(seen.outcome.pseudo.weight[cell], 1 - d / 2, atol=1e-5)


def test_a_higher_threshold_keeps_no_more() -> None:
    kept = [
        step(METHOD.model_copy(update={"threshold": at})).outcome.pseudo.weight
        for at in (0.0, 0.4, 0.5, 0.6, 1.0)
    ]
    assert all(bool((less <= more).all()) for more, less in pairwise(kept))
    assert kept[0].sum() > kept[-1].sum() == 0


shares = st.floats(0, 1)


@given(shares, shares, shares)
@settings(max_examples=60, deadline=None)
def test_both_pulls_share_a_dispute_and_the_more_reliable_pulls_harder(
    one: float, other: float, dispute: float
) -> None:
    first, second, d = (torch.full((1, 1), each) for each in (one, other, dispute))
    to_second, to_first = pull(first, second, d).item(), pull(second, first, d).item()
    assert 0 <= min(to_first, to_second) <= max(to_first, to_second) <= 1
    if one + other > 1e-3:
        assert to_first + to_second == pytest.approx(2 - dispute, abs=1e-5)
    if one > other:
        assert to_second >= to_first
    assert pull(first, second, torch.zeros(1, 1)).item() == 1


@given(st.integers(0, 999), st.integers(1, 7), st.sampled_from([(6, 4), (5, 7), (4, 3, 6)]))
@settings(max_examples=40, deadline=None)
def test_regions_cover_every_pixel_and_means_stay_between_extremes(
    seed: int, side: int, shape: tuple[int, ...]
) -> None:
    rng = torch.Generator().manual_seed(seed)
    maps, where = torch.rand(2, *shape, generator=rng), torch.ones(2, *shape, dtype=torch.bool)
    means = region_means(maps, where, pixels=side)
    assert means.shape[1:] == tuple(-(-length // side) for length in shape)
    assert on_pixels(means, maps).shape == maps.shape
    assert maps.min() - 1e-5 <= means.min() <= means.max() <= maps.max() + 1e-5
    if side == 1:
        torch.testing.assert_close(on_pixels(means, maps), maps)
    assert not region_means(maps, ~where, pixels=side).any()


def test_pixels_that_nobody_labels_have_no_say_in_a_region() -> None:
    a = Pseudo(torch.tensor([[[0, 1], [IGNORE, IGNORE]]]), torch.ones(1, 2, 2))
    b = Pseudo(torch.tensor([[[0, 2], [IGNORE, IGNORE]]]), torch.ones(1, 2, 2))
    assert disputed(a, b, pixels=2).item() == pytest.approx(0.5, abs=1e-4)


def test_a_discriminator_learns_to_tell_right_regions_from_wrong_ones() -> None:
    torch.manual_seed(0)
    domain = Seven(ToySettings(side=8))
    batch = awkward(next(domain.batches(seed=0, first_step=0)))
    nets = Learner(RRN(region_pixels=4), domain).nets
    image, target = batch.labeled
    said = nets.peers[0](image).detach()
    right = torch.nn.functional.one_hot(target.where(target != IGNORE, 0), CLASSES)
    said[..., :4] = 9.0 * right.movedim(-1, 1)[..., :4]  # what it says of the left half is right
    optimizer = torch.optim.Adam(nets.judges[0].parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        judgement(nets.judges[0], image, said, target, pixels=4).backward()
        optimizer.step()
    verdict = nets.judges[0](image, said).sigmoid()
    assert verdict[..., :4].mean() > 0.8
    hits = (said.argmax(dim=1) == target)[..., 4:].float().mean()
    assert verdict[..., 4:].mean().item() == pytest.approx(hits.item(), abs=0.25)
