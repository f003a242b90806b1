"""Schedules in a YAML file: what is wrong with one is one sentence, at its own key."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.schedules import Linear
from tests.common.test_config import TEXT, complaint, loaded


def problem(method: str, folder: Path) -> str:
    """What is said of a run with ``method``, without the first line."""
    text = f"seed: 3\ndomain: {{}}\nmethod:\n  {method}\nfit:\n  steps: 10\n"
    first, _, rest = complaint(text, folder).partition("\n  ")
    assert first == "a.yaml: 1 problem"
    return rest


def test_a_number_may_be_a_schedule(tmp_path: Path) -> None:
    text = TEXT.replace("threshold: 0.9", "threshold: {name: linear, start: 0.6, end: 0.9}")
    assert loaded(text, tmp_path).method.filter.threshold == Linear(start=0.6, end=0.9)
    sets = ["method.unlabeled_weight={name: linear, end: 1, until: 0.3}"]
    assert loaded(TEXT, tmp_path, *sets).method.unlabeled_weight == Linear(end=1, until=0.3)
    sets = ["method.unlabeled_weight.name=linear", "method.unlabeled_weight.end=2"]
    assert loaded(TEXT, tmp_path, *sets).method.unlabeled_weight == Linear(end=2)


@pytest.mark.parametrize(
    ("given", "key", "sentence"),
    [
        ("{name: linear}", ".end", "required, but not given."),
        (
            "{name: lineer, end: 1}",
            "",
            "no 'lineer' here. Choose one of linear, sigmoid, cosine, exponential, jump, or give a "
            "number. "
            "Did you mean 'linear'?",
        ),
        ("abc", "", "give a number, or a schedule such as {name: linear, end: 1}, got 'abc'."),
        ("", "", "give a number, or a schedule such as {name: linear, end: 1}, got None."),
        ("{end: 1}", "", "say which one with 'name:'."),
        ("{name: linear, end: 1, untl: 0.3}", ".untl", "unknown key. Did you mean 'until'?"),
        ("{name: linear, end: -1}", ".end", "input should be greater than or equal to 0, got -1."),
        ("-1", "", "input should be greater than or equal to 0, got -1."),
        (
            "{name: linear, end: 1, until: 30}",
            ".until",
            "a fraction runs from 0 to 1, got 30. Did you mean 0.3?",
        ),
        (
            "{name: linear, end: 1, since: 0.5, until: 0.2}",
            "",
            "starts to change at 0.5 of the run, after it should be done at 0.2. "
            "Set since to 0.2 or less, or until to more.",
        ),
    ],
)
def test_a_bad_weight_is_told_at_its_own_key(
    given: str, key: str, sentence: str, tmp_path: Path
) -> None:
    said = problem(f"name: fixmatch\n  unlabeled_weight: {given}", tmp_path)
    assert said == f"method.unlabeled_weight{key} (line 5): {sentence}"


@pytest.mark.parametrize(
    ("given", "key", "sentence"),
    [
        ("{name: linear, end: 2}", ".end", "got 2. Did you mean 0.02?"),
        ("{name: linear, start: 70, end: 0.95}", ".start", "got 70. Did you mean 0.7?"),
        ("95", "", "got 95. Did you mean 0.95?"),
    ],
)
def test_a_threshold_beyond_1_is_told_at_its_own_key(
    given: str, key: str, sentence: str, tmp_path: Path
) -> None:
    said = problem(
        f"name: fixmatch\n  filter:\n    name: confidence\n    threshold: {given}", tmp_path
    )
    assert said == f"method.filter.threshold{key} (line 7): a fraction runs from 0 to 1, {sentence}"


def test_a_number_that_holds_all_along_takes_no_schedule(tmp_path: Path) -> None:
    said = problem("name: ua_mt\n  noise: {name: linear, end: 1}", tmp_path)
    assert said == (
        "method.noise (line 5): this one takes no schedule. Give a number, which then holds "
        "all along."
    )


def test_an_unknown_key_is_compared_with_those_of_its_own_section(tmp_path: Path) -> None:
    said = problem("name: fixmatch\n  decay: 0.9", tmp_path)
    assert said == "method.decay (line 5): unknown key."
    said = problem("name: fixmatch\n  mix: {name: cutmix, share: 0.1}", tmp_path)
    assert said == "method.mix.share (line 5): unknown key. Did you mean 'share_low'?"
    said = problem("name: fixmatch\n  filter: {name: entropy, threshold: 0.1}", tmp_path)
    assert said == "method.filter.threshold (line 5): unknown key."


def test_what_two_sections_get_wrong_together_is_one_sentence(tmp_path: Path) -> None:
    text = TEXT.replace("side: 8", "side: 8\n  partners: [group]")
    assert complaint(text, tmp_path).splitlines()[1:] == [
        "  domain.partners gives networks to peers, but method 'fixmatch' has no peers of "
        "different kinds. Remove domain.partners, or set method.name to cross_pseudo."
    ]
