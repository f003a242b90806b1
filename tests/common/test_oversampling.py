"""Poor classes: found by a rule, seen more often, through any interruption."""

from __future__ import annotations

import functools
import itertools
import logging
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.fabric import Fabric
from torch import Tensor

from common import oversampling, validation
from common.batch import Batch, Labeled, Unlabeled
from common.calibration import BINS, HeldOut
from common.filters import ClassCalibrated
from common.fit import Company, FitSettings, Learner, fit
from common.methods import FixMatch
from common.oversampling import Poor, extra_times, in_words, poor_classes
from common.sampling import BatchSize, TwoStream, listed
from common.sources import Plain
from tests.toy import StopAfter, ToyDomain, ToyPool, ToySettings

SHOWN = {"a": frozenset({0, 1}), "b": frozenset({0, 1, 2}), "c": frozenset({0})}


def naive(found: np.ndarray, factor: float, background: int | None) -> dict[int, int]:
    """Extra times by class, one class after the other."""
    iou = {}
    for k in range(len(found)):
        if k == background or found[k].sum() == 0:
            continue
        iou[k] = found[k, k] / (found[k].sum() + found[:, k].sum() - found[k, k])
    mean = sum(iou.values()) / max(len(iou), 1)
    extra = {k: math.ceil(round(factor * (mean - value), 9)) for k, value in iou.items()}
    return {k: times for k, times in extra.items() if times > 0}


@given(
    st.integers(0, 10_000),
    st.integers(2, 6),
    st.sampled_from([0.0, 1.0, 10.0]),
    st.sampled_from([None, 0]),
)
@settings(max_examples=100, deadline=None)
def test_who_is_poor_and_how_much_more_is_seen_follow_the_rule(
    seed: int, classes: int, factor: float, background: int | None
) -> None:
    rng = np.random.default_rng(seed)
    found = rng.integers(0, 50, (classes, classes)) * (rng.random((classes, 1)) < 0.8)
    poor = poor_classes(torch.from_numpy(found), factor, background=background)
    assert {each.label: each.extra for each in poor} == naive(found, factor, background)
    assert all(each.iou < each.mean for each in poor)


def of_iou(*percents: int) -> Tensor:
    """Pixels of classes that are never mistaken for each other, only for the last."""
    found = torch.diag(torch.tensor([*percents, 0]))
    found[:-1, -1] = 100 - torch.tensor(percents)
    return found


def test_a_class_thirty_points_below_the_mean_is_seen_three_times_more() -> None:
    assert poor_classes(of_iou(90, 30, 60), 10, background=None) == (
        Poor(label=1, iou=pytest.approx(0.3), mean=pytest.approx(0.6), extra=3),
    )


def test_the_background_is_neither_poor_nor_part_of_the_mean() -> None:
    poor = poor_classes(of_iou(1, 80, 60), 10, background=0)
    assert [(each.label, each.extra) for each in poor] == [(2, 1)]
    assert poor[0].mean == pytest.approx(0.7)


def test_a_class_that_held_out_cases_lack_is_not_called_poor() -> None:
    found = of_iou(80, 60)  # the last class is only predicted: its IoU is 0
    assert [each.label for each in poor_classes(found, 10, background=None)] == [1]


def test_nothing_held_out_and_no_factor_call_nobody_poor() -> None:
    assert poor_classes(torch.zeros(3, 3, dtype=torch.int64), 10, background=None) == ()
    assert poor_classes(of_iou(90, 30), 0, background=None) == ()


def test_a_case_is_seen_more_for_each_poor_class_it_shows() -> None:
    poor = (Poor(1, 0.3, 0.55, 3), Poor(2, 0.5, 0.55, 1))
    assert extra_times(poor, SHOWN) == {"a": 3, "b": 4, "c": 0}


def test_it_is_said_in_words() -> None:
    names = ("field", "building", "road", "water")
    poor = (Poor(1, 0.31, 0.55, 3), Poor(2, 0.5, 0.55, 1), Poor(3, 0.1, 0.55, 5))
    assert in_words(poor, SHOWN, names) == (
        "building (IoU 0.31 below 0.55), its 2 labeled cases are seen 3 times more; "
        "road (IoU 0.50 below 0.55), its 1 labeled case is seen once more; "
        "water (IoU 0.10 below 0.55), which none shows"
    )
    assert in_words((Poor(0, 0.5, 0.6, 1),), SHOWN, names).endswith(
        "its 3 labeled cases are seen once more; all labeled cases alike, so that this "
        "changes nothing"
    )


@given(st.lists(st.integers(0, 12), min_size=1, max_size=9))
@settings(max_examples=60, deadline=None)
def test_items_are_listed_in_proportion_and_no_longer_than_that_takes(extra: list[int]) -> None:
    times = Counter(listed(extra).tolist())
    assert sorted(times) == [*range(len(extra))]
    assert all(times[i] * (1 + extra[0]) == times[0] * (1 + more) for i, more in enumerate(extra))
    assert math.gcd(*times.values()) == 1


class Marked(ToyPool):
    """Discs in images that say by their brightness which item they are."""

    def draw(self, index: int, rng: np.random.Generator) -> Labeled | Unlabeled:
        drawn = super().draw(index, rng)
        return drawn._replace(image=drawn.image + 10 * index)


class Uneven(ToyDomain):
    """Four labeled cases: two show one class, two the other, as far as anyone is told."""

    def __init__(self, workers: int = 0) -> None:
        size = BatchSize(labeled=2, unlabeled=2, workers=workers)
        super().__init__(ToySettings(side=8, batch=size))
        self.asked: list[Mapping[str, int]] = []

    def batches(
        self, *, seed: int, first_step: int, extra: Mapping[str, int] | None = None
    ) -> Iterator[Batch]:
        self.asked.append(extra or {})
        pools = (Marked(self.settings, kind, 4, classes=2) for kind in (Labeled, Unlabeled))
        more = [(extra or {}).get(f"labeled-{index}", 0) for index in range(4)]
        two = TwoStream(*pools, size=self.settings.batch, seed=seed, extra=more)
        return two.from_step(first_step)

    def shown(self) -> dict[str, frozenset[int]]:
        return {f"labeled-{index}": frozenset({index % 2}) for index in range(4)}


def drawn(batch: Batch) -> list[int]:
    return [round(float(image.min()) / 10) for image in batch.labeled.image]


def epoch(extra: Mapping[str, int] | None, steps: int) -> Counter[int]:
    taken = itertools.islice(Uneven().batches(seed=3, first_step=0, extra=extra), steps)
    return Counter(index for batch in taken for index in drawn(batch))


def test_over_an_epoch_a_case_is_seen_as_many_times_more_as_it_asks() -> None:
    assert epoch({"labeled-1": 3, "labeled-2": 1}, steps=4) == {0: 1, 1: 4, 2: 2, 3: 1}
    assert epoch(None, steps=2) == {0: 1, 1: 1, 2: 1, 3: 1}


@pytest.mark.parametrize("extra", [None, {}, {f"labeled-{i}": 2 for i in range(4)}])
def test_without_a_difference_batches_are_those_of_before(extra: Mapping[str, int] | None) -> None:
    stream = Uneven().batches(seed=3, first_step=0, extra=extra)
    order = [drawn(batch) for batch in itertools.islice(stream, 6)]
    assert order == [[3, 2], [1, 0], [2, 1], [3, 0], [2, 1], [0, 3]]  # before there was any


def trained(
    folder: Path, *, workers: int = 0, oversampling_factor: float = 10, stop_after: int = 99
) -> tuple[Learner, Uneven]:
    """Nine steps, calibrated after each third on the validation discs."""
    domain = Uneven(workers)
    rule = ClassCalibrated(low=0.5, high=0.6, every=3, oversampling=oversampling_factor)
    torch.manual_seed(0)
    learner = Learner(FixMatch(filter=rule), domain)
    folder.mkdir(exist_ok=True)
    fit(
        learner,
        oversampling.batches(domain, learner.keep, seed=0, aloud=True),
        FitSettings(steps=9, learning_rate=0.02),
        Fabric(accelerator="cpu", devices=1),
        seed=0,
        folder=folder,
        company=Company(
            calibrate=validation.calibration(domain, Plain()), should_stop=StopAfter(stop_after)
        ),
    )
    return learner, domain


def state(learner: Learner) -> Tensor:
    return torch.cat([value.double().flatten() for value in learner.state_dict().values()])


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Learner, Uneven]:
    return trained(tmp_path_factory.mktemp("unbroken"))


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("stop_after", [2, 3, 4, 6])
def test_a_run_cut_off_anywhere_near_a_calibration_ends_with_the_same_bits(
    workers: int, stop_after: int, unbroken: tuple[Learner, Uneven], tmp_path: Path
) -> None:
    trained(tmp_path, workers=workers, stop_after=stop_after)
    resumed, domain = trained(tmp_path, workers=workers)
    assert torch.equal(state(resumed), state(unbroken[0]))
    assert domain.asked == unbroken[1].asked[stop_after // 3 :]


def test_a_calibration_changes_what_is_seen_from_the_next_step_on(
    unbroken: tuple[Learner, Uneven], tmp_path: Path
) -> None:
    _, domain = unbroken
    assert len(domain.asked) == 3  # the calibration after the last step asks for nothing
    assert domain.asked[0] == {}
    assert all(
        sorted({*extra.values()})[0] == 0 < max(extra.values()) for extra in domain.asked[1:]
    )
    off, quiet = trained(tmp_path, oversampling_factor=0)
    assert quiet.asked == [{}]
    assert not any("confusion" in name for name in off.state_dict())


def live(confusion: Tensor) -> torch.nn.Module:
    keep = ClassCalibrated(oversampling=10).start(2)
    keep.calibrate(HeldOut(torch.zeros(3, 2, BINS), confusion))
    return keep


def test_the_log_says_who_is_poor_and_warns_of_what_no_labeled_case_shows(
    caplog: pytest.LogCaptureFixture,
) -> None:
    domain, keep = Uneven(), live(torch.tensor([[90, 0], [70, 30]]))
    domain.shown = functools.partial(dict, {"labeled-0": frozenset({0})})
    with caplog.at_level(logging.INFO, logger="seg_ssl"):
        next(oversampling.batches(domain, keep, seed=0, aloud=True)(0))
    told, warned = caplog.records
    assert told.getMessage() == "poor classes: disc (IoU 0.30 below 0.43), which none shows."
    assert warned.levelname == "WARNING"
    assert "no labeled case shows disc" in warned.getMessage()
    caplog.clear()
    oversampling.batches(domain, keep, seed=0, aloud=False)(0)
    assert not caplog.records


def test_a_report_names_the_poor_classes() -> None:
    assert oversampling.facts(Uneven(), live(torch.tensor([[90, 0], [70, 30]]))) == [
        ("poor classes", "disc (IoU 0.30 below 0.43), its 2 labeled cases are seen 2 times more")
    ]
    assert oversampling.facts(Uneven(), ClassCalibrated().start(2)) == []
