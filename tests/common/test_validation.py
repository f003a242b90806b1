"""Validation cases: what is said of a predictor there, and of its pseudo-labels."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from common.caveats import alarms
from common.curves import curves, read_curves
from common.filters import Confidence, Conformal
from common.fit import Company, FitSettings, Learner, Validation
from common.methods import CrossPseudo, FixMatch, MeanTeacher, Method, Supervised
from common.refiners import LargestComponent
from common.schedules import Linear
from common.sources import Mirrored
from common.validation import validation
from tests.common.test_evaluate import Threshold, World, run
from tests.toy import toy_fit


def judged(domain: World, method: Method, *, progress: float = 1.0) -> Validation:
    validate = validation(domain, Learner(method, domain).eval())
    assert validate is not None
    return validate(Threshold(), progress)


def test_validation_scores_by_the_headline() -> None:
    found = validation(World())(Threshold(), 1.0)
    assert found.values == {"validation/dice/disc": found.score}
    assert 0.5 < found.score <= 1


def test_without_validation_cases_nothing_is_validated() -> None:
    assert validation(World({"validation": []})) is None


def test_a_method_without_pseudo_labels_is_judged_by_the_headline_alone() -> None:
    assert [*judged(World(), Supervised()).values] == ["validation/dice/disc"]


def test_pseudo_labels_are_held_against_the_truth_of_validation_cases() -> None:
    domain = World()
    found = judged(domain, FixMatch(filter=Confidence(threshold=0.9))).values

    cases = [*domain.cases("validation")]
    with torch.no_grad():
        probs = torch.stack([domain.predict(Threshold(), case) for case in cases]).numpy()
    truth = np.stack([case.truth.numpy() for case in cases])
    sure, label = probs.max(axis=1), probs.argmax(axis=1)
    for index in (0, 1):
        mine, kept = label == index, (label == index) & (sure >= 0.9)
        assert found[f"held_out_kept/{index}"] == pytest.approx(kept.sum() / mine.sum())
        assert found[f"held_out_right/{index}"] == pytest.approx((truth == index)[kept].mean())
        error = 0.0
        for step in range(100):
            inside = mine & (np.minimum((sure * 100).astype(int), 99) == step)
            error += abs((truth == index)[inside].sum() - sure[inside].sum())
        assert found[f"held_out_ece/{index}"] == pytest.approx(error / mine.sum(), abs=1e-4)


def test_a_schedule_of_the_filter_stands_where_the_training_stands() -> None:
    method = FixMatch(filter=Confidence(threshold=Linear(start=0.0, end=0.99)))
    early, late = (judged(World(), method, progress=each).values for each in (0.0, 1.0))
    assert early["held_out_kept/1"] == 1 > late["held_out_kept/1"]


def test_source_and_refiners_have_their_part() -> None:
    plain = judged(World(), FixMatch()).values
    mirrored = judged(World(), FixMatch(source=Mirrored(combine="vote"))).values
    refined = judged(World(), FixMatch(refiners=(LargestComponent(),))).values
    assert plain != mirrored
    assert plain["held_out_right/1"] != refined["held_out_right/1"]


def test_what_is_never_predicted_or_never_kept_is_not_written() -> None:
    bright = [dataclasses.replace(case, image=case.image + 5) for case in World().cases("test")]
    found = judged(World({"validation": bright}), FixMatch()).values
    assert "held_out_kept/0" not in found
    assert "held_out_kept/1" in found
    none = judged(World(), FixMatch(filter=Conformal())).values  # until it is set
    assert none["held_out_kept/1"] == 0
    assert "held_out_right/1" not in none


def test_a_run_writes_them_down_and_its_report_draws_them(tmp_path: Path) -> None:
    domain = World()
    method = FixMatch(filter=Confidence(threshold=0.6))
    torch.manual_seed(0)
    company = Company(validate=validation(domain, Learner(method, domain).eval()))
    toy_fit(method, tmp_path, FitSettings(steps=6, validate_every=2), company=company)

    log = read_curves(tmp_path / "log.csv")
    assert [step for step, _ in log["held_out_kept/0"]] == [2, 4, 6]
    found = run(domain, tmp_path)
    titles = {chart.title: chart for chart in curves(found, log)}
    shown = titles["Pseudo-labels on validation cases, kept"]
    assert [line.name for line in shown.lines] == ["rest", "disc"]


def test_a_copy_agrees_with_its_student_and_different_peers_do_not() -> None:
    domain = World()
    learner = Learner(MeanTeacher(), domain).eval()
    values = validation(domain, learner)(learner.nets.predictor, 1.0).values
    assert values["held_out_agreement"] == 1.0  # the teacher starts as a copy

    torch.manual_seed(1)
    learner = Learner(CrossPseudo(), domain).eval()
    found = validation(domain, learner)(learner.nets.predictor, 1.0).values["held_out_agreement"]
    first, second = learner.nets.peers
    with torch.no_grad():
        pairs = [
            (domain.predict(first, case).argmax(0), domain.predict(second, case).argmax(0))
            for case in domain.cases("validation")
        ]
    alike = torch.stack([one == other for one, other in pairs]).double().mean()
    assert found == pytest.approx(float(alike))
    assert found < 1


def test_who_teaches_itself_has_nobody_to_agree_with() -> None:
    assert "held_out_agreement" not in judged(World(), FixMatch()).values


@pytest.mark.parametrize(("last", "warned"), [(1.0, True), (0.9997, True), (0.99, False)])
def test_agreement_on_everything_is_an_alarm(last: float, warned: bool) -> None:
    said = alarms((), {"held_out_agreement": [(100, 0.5), (2000, last)]}, None)
    assert [each for each in said if "At step 2,000 teacher and student" in each] == (
        said if warned else []
    )
    assert bool(said) == warned
