"""What one step costs, told before a training."""

from __future__ import annotations

import math
import tempfile

import pytest

from common import pace as pacing
from common.errors import TrainingError
from common.fit import FitSettings, Learner
from common.methods.fixmatch import FixMatch
from common.pace import Pace, pace, told
from tests.toy import ToyDomain, ToySettings

SETTINGS = FitSettings(steps=1000, accelerator="cpu", validate_every=2, save_every=1)


def measured(settings=SETTINGS, measure=pace):
    domain = ToyDomain(ToySettings())
    learner = Learner(FixMatch(), domain)
    return measure(learner, lambda first: domain.batches(seed=0, first_step=first), settings)


def test_a_step_is_measured_and_nothing_is_left_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    found = measured()
    assert 0 < found.seconds < 60
    assert 0 < found.gib < 100
    assert not [*tmp_path.iterdir()]


def test_the_first_step_does_not_count(monkeypatch):
    clock = iter([100.0, 100.5, 101.0, 107.0])

    def told(*args, company, **kwargs):
        for _ in range(4):
            company.watch(None)

    monkeypatch.setattr(pacing.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(pacing, "fit", told)
    assert measured().seconds == 0.5


def test_a_training_that_diverges_at_once_is_told():
    with pytest.raises(TrainingError, match="not finite"):
        measured(SETTINGS.model_copy(update={"learning_rate": 1e30}))


@pytest.mark.parametrize(("half", "warned"), [(0.41, True), (0.1, False)])
def test_half_precision_that_is_slower_is_told(monkeypatch, half, warned):
    seconds = {"bf16-mixed": half, "32-true": 0.19}
    monkeypatch.setattr(
        pacing, "pace", lambda _, __, fit: Pace(seconds[fit.precision], 1.2, "an old CPU")
    )
    words, warnings = measured(SETTINGS.model_copy(update={"precision": "bf16-mixed"}), told)
    assert words.startswith(f"{half:.2g} s on an old CPU")
    slower = (
        "fit.precision bf16-mixed: a step takes 0.41 s on an old CPU, with 32-true it takes "
        "0.19 s. Set 32-true, or train on a GPU."
    )
    assert warnings == ([slower] if warned else [])
    assert measured(SETTINGS, told)[1] == []


@pytest.mark.parametrize(
    ("seconds", "steps", "words"),
    [
        (0.05, 1500, "0.05 s on AMD, at most 1.2 GiB; 1,500 steps are 75 seconds, besides"),
        (0.254, 1500, "0.25 s on AMD, at most 1.2 GiB; 1,500 steps are 6 minutes, besides"),
        (3.0, 30000, "3 s on AMD, at most 1.2 GiB; 30,000 steps are 25.0 hours, besides"),
    ],
)
def test_what_a_step_costs_in_words(seconds, steps, words):
    assert Pace(seconds, 1.2, "AMD").in_words(steps) == f"{words} validation"
    assert "GiB" not in Pace(seconds, math.nan, "AMD").in_words(steps)
