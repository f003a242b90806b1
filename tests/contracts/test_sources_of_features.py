"""Sources that look inside a network, against their formulas written naively."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from common.errors import ConfigError
from common.fit import Learner
from common.learners import SoftVote
from common.methods.fixmatch import FixMatch
from common.parts import Parted
from common.sources import Propagation, Prototypes, Source
from common.sources.base import LooksInside
from tests.toy import ToyDomain, ToySettings

SOURCES: list[LooksInside] = [Propagation(), Prototypes()]
SIDES = {2: (8, 6), 3: (4, 6, 8)}

each_source = pytest.mark.parametrize("source", SOURCES, ids=lambda each: each.name)
dimensions = pytest.mark.parametrize("dims", [2, 3], ids=["tiles", "volumes"])


def guessed(dims: int, *, classes: int = 3) -> tuple[Tensor, Tensor]:
    """Class probabilities of two images, and pixel features of them on the same grid."""
    rng = torch.Generator().manual_seed(dims)
    logits = 2 * torch.randn(2, classes, *SIDES[dims], generator=rng)
    return logits.softmax(dim=1), torch.randn(2, 5, *SIDES[dims], generator=rng).relu() + 0.01


def columns(maps: Tensor) -> np.ndarray:
    """``(B, F, *S)`` as ``(B, pixels, F)``."""
    return maps.flatten(2).transpose(1, 2).double().numpy()


@each_source
@dimensions
def test_a_correction_is_a_distribution_over_classes(source: LooksInside, dims: int) -> None:
    probs, pixels = guessed(dims)
    better = source.corrected(probs, pixels)
    assert better.shape == probs.shape
    torch.testing.assert_close(better.sum(dim=1), torch.ones_like(probs[:, 0]))
    assert (better - probs).abs().max() > 0.01


@dimensions
def test_prototypes_multiply_probabilities_by_likeness_to_the_mean_of_a_class(dims: int) -> None:
    probs, pixels = guessed(dims)
    p = columns(probs).reshape(-1, 3)
    f = columns(pixels).reshape(-1, 5)
    f /= np.linalg.norm(f, axis=1, keepdims=True)
    named = p.argmax(axis=1)
    wanted = np.zeros_like(p)
    centers = []
    for k in range(3):
        center = sum(p[i, k] * f[i] for i in range(len(p)) if named[i] == k)
        centers.append(center / np.linalg.norm(center))
    for i in range(len(p)):
        likeness = np.exp([f[i] @ center / 0.1 for center in centers])
        wanted[i] = p[i] * likeness / likeness.sum()
        wanted[i] /= wanted[i].sum()
    found = columns(Prototypes().corrected(probs, pixels)).reshape(-1, 3)
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-6)


def test_a_pixel_computed_like_another_class_changes_over() -> None:
    pixels = torch.tensor([[1.0, 0.0]] * 4 + [[0.0, 1.0]] * 4).T.view(1, 2, 2, 4)
    first = torch.tensor([0.9, 0.9, 0.9, 0.4, 0.1, 0.1, 0.1, 0.1]).view(1, 1, 2, 4)
    probs = torch.cat([first, 1 - first], dim=1)
    better = Prototypes().corrected(probs, pixels)
    assert better[0].argmax(dim=0).flatten().tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


def test_a_class_that_nobody_names_stays_out() -> None:
    probs, pixels = guessed(2)
    probs[:, 2] *= 1e-3
    probs /= probs.sum(dim=1, keepdim=True)
    assert 2 not in probs.argmax(dim=1)
    assert not Prototypes().corrected(probs, pixels)[:, 2].any()


@dimensions
def test_propagation_solves_the_walk_between_cells(dims: int) -> None:
    """With as many cells as pixels, each pixel is the solution for its cell."""
    probs, pixels = guessed(dims)
    found = columns(Propagation(alpha=0.7, places=10_000).corrected(probs, pixels))
    for y, f, mine in zip(columns(probs), columns(pixels), found, strict=True):
        f = f / np.linalg.norm(f, axis=1, keepdims=True)
        w = np.maximum(f @ f.T, 0) ** 3
        np.fill_diagonal(w, 0)
        root = np.diag(w.sum(axis=1) ** -0.5)
        z, walked = y.copy(), 0.3 * y.copy()
        for _ in range(200):  # Z <- alpha W Z + (1 - alpha) Y, until it stands still
            z = 0.7 * root @ w @ root @ z + 0.3 * y
        walked = z / z.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(mine, walked, rtol=2e-3, atol=2e-4)


@dimensions
def test_nothing_flows_without_alpha(dims: int) -> None:
    probs, pixels = guessed(dims)
    torch.testing.assert_close(Propagation(alpha=0.0, places=9).corrected(probs, pixels), probs)


def test_a_doubtful_place_takes_the_class_of_those_like_it() -> None:
    """Cells of 4 pixels; the third looks like the first, and is unsure."""
    kinds = torch.tensor([0, 1, 0, 1])
    pixels = nn.functional.one_hot(kinds, 2).T.float().repeat_interleave(4, dim=1).view(1, 2, 16)
    pixels = pixels.view(1, 2, 16, 1).expand(-1, -1, -1, 4)
    first = torch.tensor([0.95, 0.05, 0.45, 0.05]).repeat_interleave(4).view(1, 1, 16, 1)
    probs = torch.cat([first, 1 - first], dim=1).expand(-1, -1, -1, 4)
    better = Propagation(alpha=0.9, places=4).corrected(probs, pixels)
    assert better[0, 0, 9:11].min() > 0.5
    assert better[0, 1, 4:8].min() > 0.5


def by_hand(source: LooksInside, network: Parted, image: Tensor) -> Tensor:
    pixels = network.decoder(network.encoder(image))
    return source.corrected(network.head(pixels).softmax(dim=1), pixels)


@each_source
@dimensions
def test_networks_that_vote_are_asked_one_by_one(source: LooksInside, dims: int) -> None:
    domain = ToyDomain(ToySettings(dims=dims))
    torch.manual_seed(0)
    voters = nn.ModuleList(domain.new_network() for _ in range(2)).eval()
    image = torch.randn(2, 1, *SIDES[dims])
    answer = source(SoftVote(voters), image, ()).softmax(dim=1)
    mean = torch.stack([by_hand(source, voter, image) for voter in voters]).mean(dim=0)
    torch.testing.assert_close(answer, mean, rtol=1e-4, atol=1e-5)


class InOnePiece(ToyDomain):
    def new_network(self, peer: int = 0) -> nn.Module:
        return nn.Conv2d(1, 2, 1)


@each_source
def test_a_network_in_one_piece_is_refused(source: Source) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"source '{source.name}' looks at features")):
        Learner(FixMatch(source=source), InOnePiece(ToySettings()))
