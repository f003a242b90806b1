"""Places of an image: how alike they are, how predictions flow, how regions spread a label."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from common.batch import IGNORE, Pseudo
from common.cells import cells
from common.correlation import Correlating, Correlation, propagated
from tests.toy import Net

SIDES = {2: (6, 4), 3: (4, 2, 6)}
dimensions = pytest.mark.parametrize("dims", [2, 3], ids=["tiles", "volumes"])


@given(st.lists(st.integers(1, 40), min_size=2, max_size=3), st.integers(1, 600))
@settings(max_examples=100, deadline=None)
def test_cells_are_few_and_no_finer_grid_of_cells_would_do(sides: list[int], most: int) -> None:
    grid = cells(tuple(sides), most)
    assert math.prod(grid) <= most
    lengths = [n for n in range(1, max(sides) + 1) if tuple(-(-s // n) for s in sides) == grid]
    assert lengths
    finer = tuple(-(-side // (lengths[0] - 1)) for side in sides) if lengths[0] > 1 else None
    assert finer is None or math.prod(finer) > most


@dimensions
def test_shares_are_a_scaled_softmax_over_the_places_that_take(dims: int) -> None:
    network = Correlating(Net(dims, 1, 5, norm="group"), places=1000, size=3)
    pixels = torch.randn(2, 8, *SIDES[dims])
    shares, grid = network.correlation(pixels)
    assert grid == SIDES[dims]
    described = network.describe(pixels).flatten(2).double().detach().numpy()
    giving, taking = described[:, :3], described[:, 3:]
    alike = np.einsum("bfi,bfj->bij", giving, taking) / math.sqrt(3)
    expected = np.exp(alike) / np.exp(alike).sum(axis=2, keepdims=True)
    np.testing.assert_allclose(shares.detach().numpy(), expected, rtol=1e-4, atol=1e-6)


@dimensions
def test_logits_flow_by_the_shares_and_get_no_gradient(dims: int) -> None:
    count = math.prod(SIDES[dims])
    shares = torch.randn(2, count, count).softmax(dim=2).requires_grad_()
    logits = torch.randn(2, 5, *SIDES[dims], requires_grad=True)
    found = Correlation(shares, SIDES[dims]).spread(logits)
    expected = np.zeros((2, 5, count))
    flat = logits.detach().flatten(2).numpy()
    for sample, label, place in np.ndindex(*expected.shape):
        given_by = shares[sample, :, place].detach().numpy()
        expected[sample, label, place] = (flat[sample, label] * given_by).sum()
    np.testing.assert_allclose(found.detach().flatten(2).numpy(), expected, rtol=1e-4, atol=1e-5)
    found.square().sum().backward()
    assert logits.grad is None
    assert shares.grad.abs().sum() > 0


@dimensions
def test_a_place_that_gives_to_itself_alone_changes_nothing(dims: int) -> None:
    shares = torch.eye(math.prod(SIDES[dims])).expand(2, -1, -1)
    logits = torch.randn(2, 3, *SIDES[dims])
    torch.testing.assert_close(Correlation(shares, SIDES[dims]).spread(logits), logits)


@dimensions
def test_coarse_cells_keep_the_cost_small_and_the_grid_of_the_image(dims: int) -> None:
    network = Correlating(Net(dims, 1, 5, norm="group"), places=9, size=3)
    image = torch.randn(2, 1, *(8,) * dims)
    pixels = network.decoder(network.encoder(image))
    found = network.correlation(pixels)
    assert found.shares.shape[1] == math.prod(found.grid) <= 9
    assert found.spread(network(image)).shape == (2, 5, *(8,) * dims)
    assert found.regions(4, image).shape == (2, 4, *(8,) * dims)


def test_a_region_is_where_a_place_gives_more_than_halfway_to_its_most() -> None:
    shares = torch.tensor([[0.1, 0.2, 0.35, 0.36]]).expand(1, 4, 4)
    regions = Correlation(shares, (2, 2)).regions(3, torch.zeros(1, 1, 2, 2))
    assert regions[0, 0].flatten().tolist() == [False, False, True, True]


def naive(pseudo: Pseudo, regions: Tensor, classes: int, agreement: float) -> Pseudo:
    """Region after region, pixel after pixel."""
    target, weight = pseudo.target.clone(), pseudo.weight.clone()
    for sample in range(len(target)):
        votes: dict[tuple[int, ...], list[int]] = {}
        for region in regions[sample]:
            inside = [tuple(at) for at in region.nonzero().tolist()]
            valid = [at for at in inside if pseudo.target[(sample, *at)] != IGNORE]
            sure = [at for at in valid if pseudo.weight[(sample, *at)] > 0]
            labels = [int(pseudo.target[(sample, *at)]) for at in sure]
            if not sure or len(sure) < agreement * len(valid):
                continue
            counts = [labels.count(label) for label in range(classes)]
            if max(counts) > agreement * len(sure):
                for at in valid:
                    votes.setdefault(at, []).append(counts.index(max(counts)))
        for at, labels in votes.items():
            target[(sample, *at)] = max(range(classes), key=lambda k, v=labels: (v.count(k), -k))
            weight[(sample, *at)] = 1
    return Pseudo(target, weight)


@dimensions
@given(st.integers(0, 10_000), st.integers(2, 5), st.sampled_from([0.0, 0.4, 0.6, 0.85]))
@settings(max_examples=40, deadline=None)
def test_regions_spread_a_label_as_the_paper_says(
    dims: int, seed: int, classes: int, agreement: float
) -> None:
    rng = torch.Generator().manual_seed(seed)
    shape = (2, *SIDES[dims])
    target = (torch.rand(shape, generator=rng) ** 3 * classes).long()  # mostly of one class
    target[torch.rand(shape, generator=rng) < 0.2] = IGNORE
    weight = (torch.rand(shape, generator=rng) < 0.8) * (target != IGNORE).float()
    regions = torch.rand((2, 6, *SIDES[dims]), generator=rng) < 0.3
    pseudo = Pseudo(target, weight)
    found = propagated(pseudo, regions, classes, agreement=agreement)
    expected = naive(pseudo, regions, classes, agreement)
    assert torch.equal(found.target, expected.target)
    assert torch.equal(found.weight, expected.weight)


def test_a_region_spreads_over_doubtful_pixels_but_not_over_the_edge_of_the_image() -> None:
    target = torch.tensor([[[1, 1, 1, 0, IGNORE, 2]]])
    weight = torch.tensor([[[1.0, 1.0, 1.0, 0.0, 0.0, 0.0]]])
    region = torch.tensor([[[[True, True, True, True, True, False]]]])
    spread = propagated(Pseudo(target, weight), region, 3, agreement=0.7)  # 3 of 4 are sure
    assert spread.target.tolist() == [[[1, 1, 1, 1, IGNORE, 2]]]
    assert spread.weight.tolist() == [[[1, 1, 1, 1, 0, 0]]]
    timid = propagated(Pseudo(target, weight), region, 3, agreement=0.8)
    assert torch.equal(timid.target, target)
    assert torch.equal(timid.weight, weight)
