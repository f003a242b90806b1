"""``--set KEY=VALUE``: applied before checking, and never silently."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from common.filters import Confidence, Entropy
from common.methods import CrossPseudo, FixMatch, MeanTeacher
from common.mixing import CutMix
from tests.common.test_config import TEXT, complaint, loaded


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("fit.steps=100", lambda run: run.fit.steps == 100),
        (" fit.steps = 100", lambda run: run.fit.steps == 100),
        ("method.filter.threshold=0.5", lambda run: run.method.filter.threshold == 0.5),
        ("domain.batch.unlabeled=7", lambda run: run.domain.batch.unlabeled == 7),
        ("domain.batch={labeled: 1}", lambda run: run.domain.batch.labeled == 1),
        ("fit.precision=bf16-mixed", lambda run: run.fit.precision == "bf16-mixed"),
        ("method.mix.name=cutmix", lambda run: run.method.mix == CutMix()),
        ("method.teacher_decay=null", lambda run: run.method.teacher_decay is None),
    ],
)
def test_an_override_changes_one_value(override: str, read: object, tmp_path: Path) -> None:
    assert read(loaded(TEXT, tmp_path, override))


@pytest.mark.parametrize("override", ["fit.steps", "=3", "fit..steps=3", ".=3", ""])
def test_an_override_of_another_form_is_refused(override: str, tmp_path: Path) -> None:
    assert complaint(TEXT, tmp_path, override) == (
        f"--set {override}: expected KEY=VALUE, such as --set fit.steps=100."
    )


def test_an_override_whose_value_is_not_yaml_is_refused(tmp_path: Path) -> None:
    assert complaint(TEXT, tmp_path, "fit.steps=[1") == (
        "--set fit.steps=[1: '[1' is not a YAML value. Quote it."
    )


def test_an_override_is_checked_like_the_file(tmp_path: Path) -> None:
    assert complaint(TEXT, tmp_path, "fit.stepps=3", "method.filter.threshold=95") == (
        "a.yaml: 2 problems\n"
        "  method.filter.threshold (line 8): a fraction runs from 0 to 1, got 95. "
        "Did you mean 0.95?\n"
        "  fit.stepps (line 10): unknown key. Did you mean 'steps'?"
    )


@pytest.mark.parametrize(
    ("override", "method", "warning"),
    [
        (
            "method.name=cross_pseudo",
            CrossPseudo(),
            "--set method.name=cross_pseudo starts 'method' from its defaults; dropped: filter.",
        ),
        (
            "method.filter.name=entropy",
            FixMatch(filter=Entropy()),
            "--set method.filter.name=entropy starts 'method.filter' from its defaults; "
            "dropped: threshold.",
        ),
    ],
)
def test_another_member_of_a_family_starts_afresh_and_says_so(
    override: str,
    method: CrossPseudo,
    warning: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, logger="seg_ssl"):
        assert loaded(TEXT, tmp_path, override).method == method
    assert caplog.messages == [warning]


@pytest.mark.parametrize("override", ["method.name=fixmatch", "method.mix.name=cutmix"])
def test_nothing_is_dropped_where_nothing_changes_or_nothing_was(
    override: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="seg_ssl"):
        assert loaded(TEXT, tmp_path, override).method.filter == Confidence(threshold=0.9)
    assert not caplog.messages


def test_overrides_apply_in_order(tmp_path: Path) -> None:
    run = loaded(TEXT, tmp_path, "method.name=mean_teacher", "method.decay=0.5", "fit.steps=7")
    assert run.method == MeanTeacher(decay=0.5)
    assert run.fit.steps == 7
