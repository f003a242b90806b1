"""What a diagnosis counts, against the same counted naively."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from common.batch import IGNORE, Pixel, SoftPseudo
from common.calibration import calibration_error, coarser, reliability, threshold_for
from common.diagnosis import Tally, diagnose, hold_out, write_diagnosis
from common.distances import border_distance
from common.errors import DataError
from common.filters import All, Confidence
from common.hidden_truth import Seen, Trust, in_words, judge_pseudo_labels
from common.record import read_diagnosis
from common.refiners import LargestComponent
from common.sources import Plain, Sharpened, Source
from common.validation import calibration
from tests.common.test_evaluate import World, some
from tests.toy import ToyCase, ToyDomain, ToySettings

STEPS = [*range(0, 1000, 10), *range(991, 1000)]


def predicted(seed: int, *, classes: int = 3, side: int = 12, sure: float = 3.0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return (sure * torch.randn(classes, side, side, generator=rng)).softmax(dim=0)


def truth_of(seed: int, *, classes: int = 3, side: int = 12) -> Tensor:
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, classes, (side // 3, side // 3)).repeat(3, 0).repeat(3, 1)
    blocks[rng.random(blocks.shape) < 0.1] = IGNORE
    return torch.from_numpy(blocks)


def seen(seed: int, *, keep: float = 0.0) -> Seen:
    probs = predicted(seed)
    weight = (probs.amax(dim=0) >= keep).float()
    return Seen(probs, SoftPseudo(probs[None], weight[None]), truth_of(seed), Pixel())


class Three(ToyDomain):
    """Discs of three classes, of which nothing is asked but their names."""

    def __init__(self) -> None:
        super().__init__(ToySettings())
        classes, colors = ("rest", "disc", "rim"), ((0, 0, 0), (255, 0, 0), (0, 0, 255))
        self.task = dataclasses.replace(self.task, classes=classes, colors=colors)


def tallied(*cases: Seen, precision: float = 0.5):
    domain = Three()
    tally = Tally(domain, "all")
    for index, each in enumerate(cases):
        tally.add(f"case {index}", each)
    held = hold_out(domain)
    assert held is not None
    return tally.diagnosis(held, precision=precision, seed=0)


def pixels_of(cases: list[Seen]) -> list[tuple[int, float, int]]:
    """Predicted class, confidence and true class of every pixel whose truth is known."""
    rows = []
    for case in cases:
        probs, truth = case.probs.numpy(), case.truth.numpy()
        rows += [
            (int(probs[:, y, x].argmax()), float(probs[:, y, x].max()), int(truth[y, x]))
            for y, x in np.ndindex(truth.shape)
            if truth[y, x] != IGNORE
        ]
    return rows


def test_curves_are_what_each_threshold_keeps() -> None:
    cases = [seen(1), seen(2)]
    found, pixels = tallied(*cases), pixels_of(cases)

    for index, curve in enumerate(found.curves):
        for at, kept, right in zip(found.thresholds, curve.pixels, curve.right, strict=True):
            own = [t for c, confidence, t in pixels if c == index and confidence >= at]
            assert kept == len(own)
            assert right == sum(t == index for t in own)


def test_calibration_errors_are_those_of_twenty_bins_written_naively() -> None:
    cases = [seen(3), seen(4)]
    found, pixels = tallied(*cases), pixels_of(cases)

    def error(chosen: list[tuple[int, float, int]]) -> float:
        total = 0.0
        for low in range(20):
            inside = [(s, c == t) for c, s, t in chosen if min(int(s * 20), 19) == low]
            if inside:
                confidence, right = np.mean(inside, axis=0)
                total += len(inside) / len(chosen) * abs(right - confidence)
        return total

    own = [error([each for each in pixels if each[0] == index]) for index in range(3)]
    assert found.errors == pytest.approx(own, abs=1e-5)
    merged = [(0, s, 0 if c == t else 1) for c, s, t in pixels]
    assert found.error == pytest.approx(error(merged), abs=1e-5)


def test_a_network_too_sure_of_itself_is_found_out() -> None:
    """Of pixels predicted with 0.9, seven in ten are right: off by 0.2."""
    probs = torch.tensor([0.9, 0.1]).view(2, 1, 1).expand(2, 10, 10)
    truth = torch.zeros(100, dtype=torch.int64)
    truth[70:] = 1

    found = reliability(probs, truth.view(10, 10), bins=1000)

    assert calibration_error(coarser(found, 20))[0] == pytest.approx(0.2, abs=1e-4)
    assert math.isnan(calibration_error(found)[1])
    asked = [threshold_for(found, p, steps=STEPS, least_coverage=0.01) for p in (0.7, 0.71)]
    assert asked[0][0] == 0.0
    assert math.isnan(asked[1][0])


def test_the_least_threshold_with_the_precision_is_suggested() -> None:
    confidence = torch.tensor([0.55, 0.65, 0.75, 0.85, 0.95])
    probs = torch.stack([confidence, 1 - confidence]).repeat_interleave(10, dim=1)
    right = torch.tensor([2, 4, 6, 9, 10])  # of ten each
    truth = torch.cat([(torch.arange(10) >= n).long() for n in right])

    found = reliability(probs, truth, bins=1000)

    for precision, least in ((0.62, 0.0), (0.7, 0.56), (0.83, 0.66), (0.95, 0.76), (1.0, 0.86)):
        wanted = threshold_for(found, precision, steps=STEPS, least_coverage=0.01)
        assert wanted[0] == pytest.approx(least)


@given(st.integers(0, 500), st.tuples(st.floats(0.05, 1), st.floats(0.05, 1)).map(sorted))
@settings(max_examples=25, deadline=None)
def test_a_higher_precision_never_lowers_a_threshold(seed: int, asked: list[float]) -> None:
    found = reliability(predicted(seed), truth_of(seed), bins=1000)
    low, high = (threshold_for(found, p, steps=STEPS, least_coverage=0.01) for p in asked)
    assert (high.nan_to_num(2) >= low.nan_to_num(2)).all()


@pytest.mark.parametrize("sides", [(1.0, 1.0), (0.5, 2.0)])
def test_distances_to_a_border_are_those_written_naively(sides: tuple[float, float]) -> None:
    truth = truth_of(7).numpy()
    found = border_distance(torch.from_numpy(truth), reach=6.0, sides=sides).numpy()

    neighbors = ((0, 1), (0, -1), (1, 0), (-1, 0))

    def touches(y: int, x: int) -> bool:
        around = [(y + dy, x + dx) for dy, dx in neighbors]
        inside = [truth[at] for at in around if 0 <= at[0] < 12 and 0 <= at[1] < 12]
        return truth[y, x] != IGNORE and any(o not in (IGNORE, truth[y, x]) for o in inside)

    border = np.array([at for at in np.ndindex(truth.shape) if touches(*at)])
    for y, x in np.ndindex(truth.shape):
        away = np.hypot(*((border - (y, x)) * sides).T).min()
        assert found[y, x] == pytest.approx(away, abs=1e-4) or min(away, found[y, x]) > 6


def test_bins_of_distance_hold_each_kept_pixel_once() -> None:
    """A straight border: two columns touch it, two more on each side lie within two pixels."""
    truth = torch.zeros(6, 24, dtype=torch.int64)
    truth[:, 12:] = 1
    probs = torch.stack([truth == 0, truth == 1, truth == 2]).float()
    weight = torch.ones(1, 6, 24)
    weight[:, :, 10:14] = 0

    found = tallied(Seen(probs, SoftPseudo(probs[None], weight), truth, Pixel()))

    names = ["at a border", "to 2 pixels", "2 to 4 pixels", "4 to 8 pixels", "beyond 8 pixels"]
    assert [each.name for each in found.distances] == names
    assert [each.predicted[0] for each in found.distances] == [6, 12, 12, 24, 18]
    assert [each.kept[0] for each in found.distances] == [0, 6, 12, 24, 18]
    assert all(each.kept == each.right for each in found.distances)


def test_the_confusion_of_the_kept_weighs_pixels_by_their_trust() -> None:
    case = seen(5, keep=0.8)
    found = tallied(case)

    expected = np.zeros((3, 3))
    for c, confidence, t in pixels_of([case]):
        expected[t, c] += confidence >= 0.8
    np.testing.assert_array_equal(found.confusion, expected)


class Bright(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        return torch.cat([2 - 4 * image, 4 * image - 2], dim=1)


def silent(what: str, done: int, total: int) -> None:
    pass


ALL = Trust("all", All())


def test_validation_cases_are_looked_at_first_then_unlabeled_ones_with_a_truth(tmp_path) -> None:
    bare = {"validation": some(2, truth=False)}
    for domain, split in ((World(), "validation"), (World(bare), "unlabeled")):
        found = diagnose(domain, Bright(), ALL, seed=0, watch=silent)
        assert found.split == split
        assert len(found.cases) == 4
        write_diagnosis(found, tmp_path)
        assert read_diagnosis(tmp_path / "diagnosis.json") == found
        rows = (tmp_path / "diagnosis.csv").read_text().splitlines()
        assert rows[0] == "class,threshold,predicted,kept,right,coverage,precision"
        assert len(rows) == 1 + 2 * len(found.thresholds)


def test_without_any_truth_it_says_what_is_missing() -> None:
    domain = World({split: some(2, truth=False) for split in ("validation", "unlabeled")})
    with pytest.raises(DataError, match=r"no validation case, and none of its unlabeled cases has"):
        diagnose(domain, Bright(), ALL, seed=0, watch=silent)


def test_no_more_cases_are_looked_at_than_by_an_evaluation() -> None:
    domain = World({"validation": some(60)})
    found = diagnose(domain, Bright(), ALL, seed=0, watch=silent)
    assert len(found.cases) == 50 == len(set(found.cases))
    assert found.held == 60
    assert found.prior == pytest.approx(_shares(domain), abs=1e-6)


def _shares(domain: ToyDomain) -> list[float]:
    truth = torch.stack([case.truth for case in domain.cases("labeled")])
    return [float((truth == index).double().mean()) for index in (0, 1)]


def test_pseudo_labels_are_judged_as_the_refiners_leave_them() -> None:
    """A disc and a lone bright pixel, which the largest component takes away."""
    image = torch.zeros(1, 16, 16)
    image[:, 4:9, 4:9] = 1
    truth = image[0].long().clone()
    image[:, 14, 14] = 1
    domain = World({"unlabeled": [ToyCase("a", "a", image, truth)]})
    refiners = (LargestComponent(),)
    keep = Confidence(threshold=0.5)

    def judged(*refiners: LargestComponent):
        trust = Trust(in_words(keep, refiners), keep, refiners)
        found = judge_pseudo_labels(domain, Bright(), trust, seed=0, watch=silent)
        assert found is not None
        return found.quality

    assert judged().predicted == (230, 26)
    assert judged().right == (230, 25)
    assert judged(*refiners).predicted == (231, 25)
    assert judged(*refiners).right == (231, 25)
    assert judged(*refiners).name == "confidence, threshold 0.5; then largest_component"


def test_pseudo_labels_are_judged_as_the_source_asks_for_them() -> None:
    domain, keep = World({"unlabeled": [*World({}).cases("test")]}), Confidence(threshold=0.9)

    def kept(*source: Source) -> tuple[str, int]:
        trust = Trust(in_words(keep, (), *source), keep, (), *source)
        found = judge_pseudo_labels(domain, Bright(), trust, seed=0, watch=silent)
        assert found is not None
        return found.quality.name, sum(found.quality.kept)

    names, counts = zip(
        *(kept(*each) for each in [[Sharpened(temperature=4.0)], [Plain()], [], [Sharpened()]]),
        strict=True,
    )
    assert names[0] == "sharpened, temperature 4; then confidence, threshold 0.9"
    assert names[1] == names[2] == "confidence, threshold 0.9"
    assert counts[0] < counts[1] == counts[2] < counts[3]


def test_held_out_cases_are_judged_as_the_source_asks() -> None:
    domain = World({})

    def confidence(source: Source) -> float:
        judge = calibration(domain, source)
        assert judge is not None
        pixels, _, promised = judge(Bright()).reliability
        return float(promised.sum() / pixels.sum())

    unsure, plain, sure = (
        confidence(each) for each in (Sharpened(temperature=4), Plain(), Sharpened())
    )
    assert unsure < plain < sure
