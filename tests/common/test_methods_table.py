"""What is said of methods is what their code says, in any width."""

from __future__ import annotations

import io
import re
from itertools import groupby
from typing import Annotated, ClassVar, Literal

import pytest
from pydantic import Field
from rich.console import Console

from common import keys, screens
from common.config import Run
from common.errors import ConfigError
from common.filters import AnyFilter, Confidence
from common.methods import AnyMethod, Card, FixMatch, MeanTeacher, Supervised
from common.methods_table import explained, members, named, row_of, rows, settings_of
from common.schedules import Linear, Share, Sigmoid, Weight
from common.settings import Count, Fraction, Positive, PositiveReal, Settings
from tests.toy import ToyRun

EVERY = pytest.mark.parametrize("method", members(), ids=lambda each: each.__name__)


class Mine(FixMatch):
    """Do e.g. nothing [1, 2], but ``well`` [3]. Or so.

    Networks: 1,
    no more. Divisor: none.
    Detached: all
    of it.

    [1] Nobody, Nothing, 2020.
    """

    card: ClassVar[Card] = Card("ours", 2020, "own", networks="1; 1", forwards="1")
    name: Literal["mine"] = "mine"  # type: ignore[assignment]
    ladder: tuple[Positive, ...] = (1, 2)  # rungs, finest first
    kind: Literal["a", "b"] = "a"


class MyRun(ToyRun):
    method: Annotated[AnyMethod | Mine, Field(discriminator="name")]


def drawn(page: object, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    console.print(page)
    return console.file.getvalue()


@EVERY
def test_every_method_says_what_it_does_in_one_short_sentence(method: type) -> None:
    idea = row_of(method).idea
    assert idea.endswith(".")
    assert 15 <= len(idea) <= 120, idea
    assert not re.search(r"[`\[\]]|\. [A-Z]", idea)


@EVERY
def test_every_method_has_a_whole_card(method: type) -> None:
    row = row_of(method)
    assert row.paper
    assert 1990 < row.year < 2030
    assert re.fullmatch(r"[^;]+; [^;]+", row.networks), "held; of them learning"
    assert row.forwards
    assert row.name in {each.name for each in rows()}


@EVERY
def test_every_setting_of_every_method_is_told_with_default_and_kind(method: type) -> None:
    told = {each.name: each for each in settings_of(method)}
    assert told.keys() == method.model_fields.keys() - {"name"}
    for setting in told.values():
        assert setting.default
        assert setting.takes
        assert "any value" not in setting.takes
        assert "<" not in setting.default, "a Python object, not YAML"


def test_families_stand_together_and_the_older_come_first() -> None:
    families = [row.family for row in rows()]
    assert len([*groupby(families)]) == len(set(families))
    assert families[0] == "baseline"
    of_one = [row.year for row in rows() if row.family == "teacher and student"]
    assert of_one == sorted(of_one)


def test_a_row_is_the_card_and_the_first_sentence() -> None:
    assert row_of(Supervised)[:5] == (
        "baseline",
        "supervised",
        "supervised only",
        2015,
        "Ignore the unlabeled images.",
    )
    assert row_of(Mine).idea == "Do e.g. nothing, but 'well'."


def test_items_of_a_docstring_are_lines_of_their_own() -> None:
    assert explained(Mine) == [
        "Do e.g. nothing [1, 2], but 'well' [3]. Or so.",
        "",
        "Networks: 1, no more. Divisor: none.",
        "Detached: all of it.",
        "",
        "[1] Nobody, Nothing, 2020.",
    ]


def test_settings_are_told_as_yaml_writes_them_with_the_words_beside_them() -> None:
    told = {each.name: each[1:] for each in settings_of(Mine)}
    assert told["ladder"] == ("[1, 2]", "list of whole number from 1", "rungs, finest first")
    assert told["kind"] == ("a", "a | b", "")
    assert told["teacher_decay"][:2] == ("null", "number from 0 to 1 or null or a schedule")
    assert told["unlabeled_weight"] == ("1", "number from 0 or a schedule", "lambda_u")
    assert told["filter"][0] == "{name: confidence, threshold: 0.95}"
    own, inherited = (list(told).index(each) for each in ("ladder", "supervised_loss"))
    assert own < inherited
    weight = {each.name: each for each in settings_of(MeanTeacher)}["unlabeled_weight"]
    assert weight.default == "{name: sigmoid, end: 10, until: 0.2}"


def test_a_method_of_an_adapters_own_is_one_of_the_methods() -> None:
    assert Mine in members(MyRun)
    assert members(MyRun)[:-1] == members(Run)
    assert named("mine", MyRun) is Mine
    assert rows(MyRun)[-1].name == "mine"


def test_no_such_method_is_told_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError) as error:
        named("fixmach")
    known = ", ".join(method.model_fields["name"].default for method in members())
    assert str(error.value) == (
        f"no method 'fixmach' here. Choose one of {known}. Did you mean 'fixmatch'?"
    )


def test_a_method_without_a_card_is_told_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    class Bare(Supervised):
        name: Literal["bare"] = "bare"  # type: ignore[assignment]

    monkeypatch.delattr(Supervised, "card")
    with pytest.raises(ConfigError, match=r"method 'bare' has no card, .* Give Bare a 'card: "):
        row_of(Bare)


class Box(Settings):
    name: Literal["box"] = "box"
    low: Fraction = 0.25
    high: Fraction = 0.5


class Values(Settings):
    weight: Weight = 1.0
    share: Share = Linear(end=0.5)
    fraction: Fraction | None = None
    count: Count = 3
    above: PositiveReal = 1.0
    flag: bool = True
    pair: tuple[Positive, Fraction] = (1, 0.25)
    word: str = "a"
    filter: AnyFilter = Confidence()


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("weight", "number from 0 or a schedule"),
        ("share", "number from 0 to 1 or a schedule"),
        ("fraction", "number from 0 to 1 or null"),
        ("count", "whole number from 0"),
        ("above", "number above 0"),
        ("flag", "true | false"),
        ("pair", "[whole number from 1, number from 0 to 1]"),
        ("word", "text"),
    ],
)
def test_what_a_key_takes_is_said_in_words(key: str, words: str) -> None:
    shape = Values.model_json_schema()
    assert keys.in_words(shape["properties"][key], shape) == words


def test_a_choice_is_said_by_its_names() -> None:
    shape = Values.model_json_schema()
    words = keys.in_words(shape["properties"]["filter"], shape)
    assert re.fullmatch(r"\{name: \w+( \| \w+)+\}", words)
    assert "confidence" in words


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (0.5, "0.5"),
        (10.0, "10"),
        (1e-5, "1e-05"),
        (3, "3"),
        ("a", "a"),
        ((1, 2), "[1, 2]"),
        ({"a": 1.0}, "{a: 1}"),
        (Sigmoid(end=2.0, until=0.5), "{name: sigmoid, end: 2, until: 0.5}"),
        (Box(), "{name: box, low: 0.25, high: 0.5}"),
        (
            Confidence(threshold=Linear(end=0.9)),
            "{name: confidence, threshold: {name: linear, end: 0.9}}",
        ),
    ],
)
def test_a_default_is_written_as_yaml(value: object, text: str) -> None:
    assert keys.written(value) == text


@pytest.mark.parametrize("width", [60, 80, 100, 119, 120, 121, 200])
def test_the_table_fits_its_terminal_and_names_every_method_whole(width: int) -> None:
    text = drawn(screens.of_methods(Run, width=width).page, width)
    assert max(map(len, text.splitlines())) <= width
    for row in rows():
        assert re.search(rf"^ +{row.name}\b", text, re.MULTILINE)
    assert "…" not in text


@pytest.mark.parametrize("width", [80, 120])
@EVERY
def test_the_page_of_a_method_fits_its_terminal_and_names_every_key_whole(
    method: type, width: int
) -> None:
    name = row_of(method).name
    text = drawn(screens.of_method(name, Run).page, width)
    assert max(map(len, text.splitlines())) <= width
    for setting in settings_of(method):
        assert re.search(rf"^ *{setting.name} ", text, re.MULTILINE)
    assert "…" not in text


def test_a_wide_table_says_every_fact() -> None:
    text = drawn(screens.of_methods(Run, width=500).page, 500)
    squeezed = " ".join(text.split())
    for row in rows():
        for fact in (row.paper, str(row.year), row.idea, row.needs):
            assert fact in squeezed


def test_lines_for_a_pipe_hold_one_method_each_and_no_marks() -> None:
    head, *lines = screens.of_methods(Run, width=80).lines
    assert head.split("\t")[:2] == ["family", "name"]
    assert [line.split("\t")[1] for line in lines] == [row.name for row in rows()]
    assert all(line.count("\t") == head.count("\t") for line in lines)
    page = screens.of_method("fixmatch", Run).lines
    assert "[1] Sohn et al., FixMatch, 2020, arXiv:2001.07685, Algorithm 1." in page
    assert "unlabeled_weight\t1\tnumber from 0 or a schedule\tlambda_u" in page
