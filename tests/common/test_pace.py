"""What one step costs, told before a training."""

from __future__ import annotations

import math
import tempfile

import pytest

from common import pace as pacing
from common.errors import TrainingError
from common.fit import FitSettings, Learner
from common.methods.fixmatch import FixMatch
from common.pace import Pace, pace
from tests.toy import ToyDomain, ToySettings

SETTINGS = FitSettings(steps=1000, accelerator="cpu", validate_every=2, save_every=1)


def measured(settings=SETTINGS):
    domain = ToyDomain(ToySettings())
    learner = Learner(FixMatch(), domain)
    return pace(learner, lambda first: domain.batches(seed=0, first_step=first), settings)


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
