"""The model card: what is known, what a person says, and what is still to be said."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from common.card import STATEMENTS
from common.errors import RunError
from common.record import beside, read_evaluation
from common.report import write_report
from tests.common import runs

SAID = """
intended_use = "Volumetry of the hippocampus in research, on <T1> images of adults."
license = "CC-BY-SA-4.0"
not_for = "  "
"""


def entries(folder: Path) -> dict[str, str]:
    """Headings of model_card.md and what stands below them."""
    write_report(folder)
    text = (folder / "model_card.md").read_text(encoding="utf-8")
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], (part.strip() for part in parts[2::2]), strict=True))


def test_what_is_known_is_on_the_card(tmp_path: Path) -> None:
    found = runs.medical(tmp_path, 12)
    card = entries(tmp_path)

    assert card["Model"].startswith("network, method mean_teacher, 1,500 steps, seed 0")
    counts = {name: len(cases) for name, cases in found.splits.items()}
    assert f"{counts['labeled']} labeled and {counts['unlabeled']} unlabeled" in card["Trained on"]
    assert "anterior" in card["Trained on"]
    assert "12 cases in" in card["Evaluated on"]
    assert re.match(r"Dice, mean: 0\.\d{3}, 95 % interval 0\.\d+", card["Result"])
    page = (tmp_path / "report.html").read_text()
    first_warning = found.warnings[0] if found.warnings else "was missed altogether"
    assert first_warning in card["Limits"]
    assert "Model card" in page


def test_what_nobody_said_is_asked_for(tmp_path: Path) -> None:
    runs.medical(tmp_path)
    card = entries(tmp_path)
    for key, heading in STATEMENTS.items():
        assert card[heading] == f'Not stated: write {key} = "..." into card.toml.'


def test_what_a_person_said_is_on_the_card_and_escaped_in_the_page(tmp_path: Path) -> None:
    runs.medical(tmp_path)
    (tmp_path / "card.toml").write_text(SAID)
    card = entries(tmp_path)

    assert card["Intended use"].endswith("on <T1> images of adults.")
    assert card["License"] == "CC-BY-SA-4.0"
    assert card["Not for"].startswith("Not stated")  # blanks say nothing
    page = (tmp_path / "report.html").read_text()
    assert "&lt;T1&gt;" in page
    assert "<T1>" not in page


def test_limits_of_the_domain_come_before_the_warnings(tmp_path: Path) -> None:
    found = runs.medical(tmp_path)
    limited = found.model_copy(update={"limits": ("It is no medical device.",)})
    (tmp_path / "evaluation.json").write_text(limited.model_dump_json())
    assert entries(tmp_path)["Limits"].startswith("- It is no medical device.\n- ")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("intended_us = 'x'", "unknown key 'intended_us'.*Did you mean 'intended_use'"),
        ("license = 4", "license must be a text in quotes; got 4"),
        ("for research", r"is not TOML: .*Write lines such as intended_use"),
    ],
)
def test_a_card_that_cannot_be_read_is_refused_by_name(
    tmp_path: Path, text: str, words: str
) -> None:
    runs.medical(tmp_path)
    (tmp_path / "card.toml").write_text(text)
    with pytest.raises(RunError, match=f"card.toml'.*{words}"):
        write_report(tmp_path)


def test_statements_go_where_another_report_is_written(tmp_path: Path) -> None:
    runs.medical(tmp_path / "run")
    (tmp_path / "run" / "card.toml").write_text(SAID)
    beside(tmp_path / "run", tmp_path / "other")
    assert (tmp_path / "other" / "card.toml").read_text() == SAID
    assert read_evaluation(tmp_path / "other" / "evaluation.json") is None
