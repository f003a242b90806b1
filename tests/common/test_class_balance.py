"""Filters that look at how much there is of each class: priors, rarity, certainty."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from common.errors import ConfigError
from common.filters import ClassPrior, ClassReweight, Confidence, Equalized, Product
from common.fit import Learner
from common.methods import FixMatch
from tests.contracts.test_filters import predictions, probabilities
from tests.toy import ToyDomain, ToySettings

PRIOR = (0.5, 0.3, 0.2)


def test_what_a_class_prior_keeps_has_its_histogram_to_the_pixel() -> None:
    """DARS: the prior times the ratio within one pixel, whatever the network prefers."""
    probs = probabilities(5, dims=2, classes=3, sharpness=1)
    probs = probs.repeat(6, 1, 3, 3)  # each confidence 54 times: chance decides among equals
    label = probs.argmax(dim=1)
    kept = ClassPrior(kept=0.4, prior=PRIOR)(probs) > 0
    for index, share in enumerate(PRIOR):
        wanted = math.floor(0.4 * share * label.numel() + 1e-6)
        assert int((label == index).sum()) > wanted
        assert int((kept & (label == index)).sum()) == wanted


def test_chance_decides_among_equally_sure_pixels_and_the_seed_decides_chance() -> None:
    probs = torch.tensor([0.7, 0.3]).view(1, 2, 1, 1).repeat(1, 1, 20, 20)
    keep = ClassPrior(kept=0.5, prior=(1.0, 0.0))
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(keep(probs))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert [int(each.sum()) for each in drawn] == [200, 200, 200]


@given(probs=predictions, ratios=st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted))
@settings(max_examples=50, deadline=None)
def test_a_larger_ratio_of_a_class_prior_keeps_no_less(probs: Tensor, ratios: list[float]) -> None:
    kept = []
    for ratio in ratios:
        torch.manual_seed(0)  # chance decides alike among equals
        kept.append(ClassPrior(kept=ratio)(probs))
    assert (kept[1] >= kept[0]).all()


def test_without_a_prior_the_labels_of_the_run_say_it() -> None:
    domain = ToyDomain(ToySettings(side=8))
    torch.manual_seed(0)
    learner = Learner(FixMatch(filter=ClassPrior(kept=1.0)), domain)
    batches, seen = domain.batches(seed=0, first_step=0), torch.zeros(2, dtype=torch.long)
    for _ in range(3):
        batch = next(batches)
        learner(batch, 0.5)
        seen += torch.bincount(batch.labeled.target.flatten(), minlength=2)
    assert learner.keep.pixels.tolist() == seen.tolist()
    learner.eval()(batch, 0.5)
    assert learner.keep.pixels.tolist() == seen.tolist()

    probs = probabilities(1, dims=2, classes=2, sharpness=2)
    shown = ClassPrior(kept=1.0, prior=tuple((seen / seen.sum()).tolist()))
    assert torch.equal(learner.keep(probs), shown(probs))


def test_a_member_of_a_product_is_shown_labels_too() -> None:
    domain = ToyDomain(ToySettings(side=8))
    rule = Product(filters=(Confidence(threshold=0.5), ClassPrior()))
    learner = Learner(FixMatch(filter=rule), domain)
    learner(next(domain.batches(seed=0, first_step=0)), 0.5)
    assert learner.keep[1].pixels.sum() == 2 * 8 * 8


@pytest.mark.parametrize(
    ("prior", "words"),
    [((0.5, 0.5), "holds 2 shares, but there are 3 classes"), ((0.0,) * 3, "0 for every class")],
)
def test_a_prior_of_other_classes_is_refused(prior: tuple[float, ...], words: str) -> None:
    assert words in ClassPrior(prior=prior).unfit(3)
    with pytest.raises(ConfigError, match=words):
        ClassPrior(prior=prior).start(3)


def test_the_rarest_class_weighs_1_and_the_most_frequent_next_to_nothing() -> None:
    probs = torch.full((1, 3, 10, 10), 0.1)
    probs[:, 0], probs[:, 1, :2], probs[:, 2, 0, :1] = 0.5, 0.7, 0.9
    weight = ClassReweight(decay=0.0)(probs)
    assert weight[0, 0, 0] == 1
    assert weight[0, 1, 1] == pytest.approx(math.log(81 / 19) / math.log(81), abs=1e-5)
    assert weight[0, 5, 5] == pytest.approx(math.log(81 / 80) / math.log(81), abs=1e-5)


def test_the_surer_a_class_the_less_it_weighs() -> None:
    probs = torch.tensor([[0.9, 0.05, 0.05], [0.2, 0.6, 0.2]]).T.reshape(1, 3, 1, 2)
    weight = Equalized(decay=0.0)(probs)
    need = [0.1, 0.4, 1 - 1 / 3]  # nothing was seen of the third
    np.testing.assert_allclose(weight[0, 0], [need[0] / need[2], need[1] / need[2]], rtol=1e-5)
    steeper = Equalized(decay=0.0, power=2.0)(probs)
    np.testing.assert_allclose(steeper, weight**2, rtol=1e-5)
