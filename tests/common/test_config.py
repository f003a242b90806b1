"""From YAML to a run: every message, word for word."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import get_args

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from common import config
from common.errors import ConfigError
from common.filters import AnyFilter, Confidence, Entropy
from common.fit import FitSettings
from common.methods import AnyMethod, CrossPseudo, FixMatch, MeanTeacher, Supervised
from common.mixing import CutMix
from tests.toy import ToyRun, ToySettings

METHODS, FILTERS = (
    [member.model_fields["name"].default for member in get_args(get_args(family)[0])]
    for family in (AnyMethod, AnyFilter)
)

TEXT = """\
seed: 3
domain:
  side: 8
method:
  name: fixmatch
  filter:
    name: confidence
    threshold: 0.9
fit:
  steps: 10
"""

ONLY_FILTER = "name: confidence\n    threshold: 0.9"


def loaded(text: str, folder: Path, *overrides: str) -> ToyRun:
    path = folder / "a.yaml"
    path.write_text(text, encoding="utf-8")
    return config.load(path, ToyRun, overrides)


def complaint(text: str, folder: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as error:
        loaded(text, folder, *overrides)
    return str(error.value).replace(str(folder / "a.yaml"), "a.yaml")


def test_a_sound_file_is_the_run_it_describes(tmp_path: Path) -> None:
    assert loaded(TEXT, tmp_path) == ToyRun(
        seed=3,
        domain=ToySettings(side=8),
        method=FixMatch(filter=Confidence(threshold=0.9)),
        fit=FitSettings(steps=10),
    )


def test_all_problems_are_named_at_once_each_with_line_and_remedy(tmp_path: Path) -> None:
    text = """\
    domain:
      side: 8
    method:
      name: fixmatch
      unlabelled_weight: 1
      filter:
        name: confidence
        threshold: 95
    fit:
      rate: poli
    """
    assert complaint(textwrap.dedent(text), tmp_path) == (
        "a.yaml: 4 problems\n"
        "  method.filter.threshold (line 8): a fraction runs from 0 to 1, got 95. "
        "Did you mean 0.95?\n"
        "  method.unlabelled_weight (line 5): unknown key. Did you mean 'unlabeled_weight'?\n"
        "  fit.steps (line 10): required, but not given.\n"
        "  fit.rate (line 10): input should be 'poly', 'cosine', 'one_cycle' or 'constant', "
        "got 'poli'."
    )


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            "side: 8",
            "sidee: 8",
            "domain.sidee (line 3): unknown key. Did you mean 'side'?",
        ),
        ("side: 8", "qqqqq: 8", "domain.qqqqq (line 3): unknown key."),
        (
            "name: fixmatch",
            "name: fixmach",
            f"method (line 5): no 'fixmach' here. Choose one of {', '.join(METHODS)}. "
            "Did you mean 'fixmatch'?",
        ),
        (
            "name: confidence",
            "name: zzz",
            f"method.filter (line 7): no 'zzz' here. Choose one of {', '.join(FILTERS)}.",
        ),
        (
            "name: confidence",
            "nmae: confidence",
            "method.filter (line 7): say which one with 'name:'.",
        ),
        (
            "steps: 10",
            "rate: poly",
            "fit.steps (line 10): required, but not given.",
        ),
        (
            "threshold: 0.9",
            "threshold: 250",
            "method.filter.threshold (line 8): a fraction runs from 0 to 1, got 250.",
        ),
        (
            "threshold: 0.9",
            "threshold: -0.1",
            "method.filter.threshold (line 8): input should be greater than or equal to 0, "
            "got -0.1.",
        ),
        (
            ONLY_FILTER,
            "name: product\n    filters: [{name: margin}, {name: confidence, treshold: 0.9}]",
            "method.filter.filters.1.treshold (line 8): unknown key. Did you mean 'threshold'?",
        ),
        (
            ONLY_FILTER,
            "name: product\n    filters: [{name: entropy, threshold: 0.9}, {name: confidence}]",
            "method.filter.filters.0.threshold (line 8): unknown key.",
        ),
        (
            ONLY_FILTER,
            "name: product\n    filters:\n    - name: all\n    - {name: margin, threshold: 95}",
            "method.filter.filters.1.threshold (line 10): a fraction runs from 0 to 1, got 95. "
            "Did you mean 0.95?",
        ),
        (
            ONLY_FILTER,
            "name: product\n    filters: [{name: product}, {name: margin}]",
            "method.filter.filters.0 (line 8): no 'product' here. Choose one of "
            f"{', '.join(each for each in FILTERS if each != 'product')}.",
        ),
        (
            ONLY_FILTER,
            "name: product\n    filters: [{name: class_calibrated}, {name: margin}]",
            "method.filter (line 7): filter class_calibrated is set by held-out cases, and only "
            "by itself. Take it out of product, or name class_calibrated in place of product.",
        ),
        (
            "steps: 10",
            "steps: ten",
            "fit.steps (line 10): input should be a valid integer, unable to parse string as an "
            "integer, got 'ten'.",
        ),
        (
            "steps: 10",
            "steps: 10\n  learning_rate: .nan",
            "fit.learning_rate (line 11): input should be a finite number, got nan.",
        ),
        (
            "side: 8",
            "side: 8\n  batch: {labeled: 2, unlabelled: 3}",
            "domain.batch.unlabelled (line 4): unknown key. Did you mean 'unlabeled'?",
        ),
        (
            "  side: 8",
            "",
            "domain (line 2): input should be a valid dictionary or instance of ToySettings, "
            "got None.",
        ),
        (
            "seed: 3",
            "seed: 3\nseed: 4",
            "seed (line 2): given before, on line 1. Remove one.",
        ),
        (
            "  filter:",
            "  filter: {name: all}\n  filter:",
            "method.filter (line 7): given before, on line 6. Remove one.",
        ),
        (
            "side: 8",
            "side: 8\n  classes:\n  - {name: a}\n  - {name: b, name: c}",
            "domain.classes.1.name (line 6): given before, on line 6. Remove one.",
        ),
    ],
)
def test_each_problem_is_one_sentence_with_its_line(
    old: str, new: str, problem: str, tmp_path: Path
) -> None:
    assert TEXT.count(old) == 1
    assert complaint(TEXT.replace(old, new), tmp_path) == f"a.yaml: 1 problem\n  {problem}"


@pytest.mark.parametrize("text", ["", "# nothing\n", "- 1\n- 2\n", "fixmatch"])
def test_a_file_without_keys_is_refused(text: str, tmp_path: Path) -> None:
    expected = "a.yaml must hold 'key: value' lines with domain, method and fit."
    assert complaint(text, tmp_path) == expected


def test_what_is_not_yaml_is_refused_with_its_place(tmp_path: Path) -> None:
    assert complaint("fit: [1, 2\nb: }", tmp_path) == (
        'a.yaml is not YAML: while parsing a flow sequence in "<unicode string>", line 1, '
        "column 6: fit: [1, 2 ^ expected ',' or ']', but got ':' in \"<unicode string>\", line 2, "
        "column 2: b: } ^."
    )


def test_a_file_that_asks_for_code_is_refused(tmp_path: Path) -> None:
    text = f"{TEXT}notes: !!python/object/apply:os.mkdir ['{tmp_path / 'made'}']\n"
    assert complaint(text, tmp_path).startswith(
        "a.yaml is not YAML: could not determine a constructor for the tag "
        "'tag:yaml.org,2002:python/object/apply:os.mkdir'"
    )
    assert not (tmp_path / "made").exists()


def test_a_missing_file_a_folder_and_a_picture_are_refused(tmp_path: Path) -> None:
    (tmp_path / "picture").write_bytes(b"\x89PNG\r\n\xff\xfe\x00")
    for path, why in [
        (tmp_path / "none.yaml", "No such file or directory"),
        (tmp_path, "Is a directory"),
        (tmp_path / "picture", "'utf-8' codec can't decode byte 0x89"),
    ]:
        with pytest.raises(ConfigError) as error:
            config.load(path, ToyRun)
        assert str(error.value).startswith(f"{path} cannot be read: ")
        assert why in str(error.value)
        assert str(error.value).endswith(". Give the path of a YAML file.")


def test_numbers_in_exponents_are_numbers_though_yaml_thinks_otherwise(tmp_path: Path) -> None:
    assert yaml.safe_load("1e-3") == "1e-3"
    text = TEXT.replace("steps: 10", "steps: 10\n  learning_rate: 1e-3")
    assert loaded(text, tmp_path).fit.learning_rate == 0.001
    assert loaded(TEXT, tmp_path, "fit.learning_rate=2e-4").fit.learning_rate == 0.0002


runs = st.builds(
    ToyRun,
    seed=st.integers(0, 2**31),
    domain=st.builds(ToySettings, side=st.integers(1, 64)),
    method=st.one_of(
        st.just(Supervised()),
        st.builds(MeanTeacher, decay=st.floats(0, 1), mix=st.builds(CutMix)),
        st.builds(
            FixMatch,
            filter=st.builds(Entropy, ceiling=st.floats(0, 1)),
            teacher_decay=st.none() | st.floats(0, 1),
        ),
        st.builds(CrossPseudo, num_peers=st.integers(2, 9)),
    ),
    fit=st.builds(
        FitSettings,
        steps=st.integers(1, 10**6),
        learning_rate=st.floats(1e-12, 1e3),
        accelerator=st.sampled_from(["auto", "cpu", "no", "1e3", "0x10"]),
    ),
)


@given(run=runs)
@settings(max_examples=40, deadline=None)
def test_what_was_saved_is_loaded_to_the_last_bit(
    run: ToyRun, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("run") / "run.yaml"
    config.save(run, path)
    assert config.load(path, ToyRun) == run
    assert config.differences(run, config.load(path, ToyRun)) == []


def test_a_saved_run_spells_every_default_out(tmp_path: Path) -> None:
    text = config.dump(loaded(TEXT, tmp_path))
    assert "warm_up: 0.0" in text
    assert "unlabeled_weight: 1.0" in text
    assert "teacher_decay: null" in text


def test_differences_are_told_key_by_key(tmp_path: Path) -> None:
    old = loaded(TEXT, tmp_path)
    new = loaded(TEXT, tmp_path, "method.filter.name=entropy", "fit.steps=11")
    assert config.differences(old, new) == [
        "fit.steps was 10, is 11",
        "method.filter.ceiling was 'absent', is 0.5",
        "method.filter.name was 'confidence', is 'entropy'",
        "method.filter.threshold was 0.9, is 'absent'",
    ]


def test_a_run_is_frozen(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        loaded(TEXT, tmp_path).seed = 4
