from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from common.errors import DataError, RunError
from common.evaluate import evaluate, rows, table
from common.filters import All, Confidence
from common.hidden_truth import Trust
from common.record import CASES, SUMMARY, read_cases, read_evaluation, read_summary
from tests.toy import ToyCase, ToyDomain, ToySettings


class Threshold(nn.Module):
    """A network that needs no training: bright is disc, with a softness of its own."""

    def forward(self, image: Tensor) -> Tensor:
        return torch.cat([2 - 4 * image, 4 * image - 2], dim=1)


class World(ToyDomain):
    """Discs whose number, names and hidden truth a test can choose."""

    def __init__(self, cases: dict[str, list[ToyCase]] | None = None) -> None:
        super().__init__(ToySettings())
        self.own = cases or {}
        self.seen: list[str] = []

    def cases(self, split: str) -> Iterator[ToyCase]:
        yield from self.own.get(split, super().cases(split))

    def predict(self, network: nn.Module, case: ToyCase) -> Tensor:
        self.seen.append(case.id)
        return super().predict(network, case)


def some(count: int, *, truth: bool = True) -> list[ToyCase]:
    domain, found = ToyDomain(ToySettings()), []
    while len(found) < count:
        found += [*domain.cases("test")]
    return [
        dataclasses.replace(
            case, id=f"c{i}", group=f"g{i // 2}", truth=case.truth if truth else None
        )
        for i, case in enumerate(found[:count])
    ]


OF_THE_RUN = Trust("confidence, threshold 0.9", Confidence(threshold=0.9))


def run(domain: ToyDomain, folder: Path, **changed: object):
    given = {"split": "test", "folder": folder, "trust": OF_THE_RUN} | changed
    return evaluate(domain, Threshold(), **given)


def test_an_evaluation_leaves_tables_label_maps_pictures_and_a_record(tmp_path: Path) -> None:
    found = run(World(), tmp_path)

    cases, summary = read_cases(tmp_path / "cases.csv"), read_summary(tmp_path / "summary.csv")
    assert tuple(cases.columns) == CASES
    assert tuple(summary.columns) == SUMMARY
    assert cases["case"].tolist() == [f"test-{i}" for i in range(4)]
    assert {path.name for path in (tmp_path / "predictions").iterdir()} == {
        f"test-{i}.npy" for i in range(4)
    }
    assert found == read_evaluation(tmp_path / "evaluation.json")
    assert all((tmp_path / picture.path).is_file() for picture in found.pictures)
    assert not [*tmp_path.glob("*.tmp")]


def test_the_summary_is_what_the_domain_says_with_interval_median_and_count(tmp_path: Path) -> None:
    run(World(), tmp_path)

    values = read_cases(tmp_path / "cases.csv")["value"].to_numpy()
    row = read_summary(tmp_path / "summary.csv").iloc[0]
    assert (row["metric"], row["class"], row["n"]) == ("dice", "disc", 4)
    assert row["value"] == pytest.approx(values.mean())
    assert row["median"] == pytest.approx(np.median(values))
    assert [row["q1"], row["q3"]] == pytest.approx([*np.quantile(values, [0.25, 0.75])])
    assert values.min() <= row["low"] < row["value"] < row["high"] <= values.max()


@pytest.mark.parametrize(
    ("count", "ranks"),
    [(1, ["only"]), (2, ["worst", "best"]), (3, ["worst", "median", "best"]), (7, None)],
)
def test_no_case_is_drawn_twice(tmp_path: Path, count: int, ranks: list[str] | None) -> None:
    found = run(World({"test": some(count)}), tmp_path)

    pictures = found.pictures
    assert [picture.rank for picture in pictures] == (ranks or ["worst", "median", "best"])
    assert len({picture.case for picture in pictures}) == len(pictures)
    scores = sorted((score, case) for case, score in found.scores.items())
    assert pictures[0].case == scores[0][1]
    assert pictures[-1].case == scores[-1][1]
    if len(pictures) == 3:
        assert pictures[1].case == scores[(count - 1) // 2][1]


def test_a_new_evaluation_takes_the_pictures_of_the_old_one_away(tmp_path: Path) -> None:
    run(World({"test": some(5)}), tmp_path)
    found = run(World({"test": some(1)}), tmp_path)

    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["c0.png"]
    assert found.pictures[0].path == "figures/c0.png"


def test_another_split_keeps_the_rows_of_the_first_and_the_same_split_replaces_its_own(
    tmp_path: Path,
) -> None:
    run(World(), tmp_path)
    run(World(), tmp_path, split="validation")
    run(World(), tmp_path)

    cases = read_cases(tmp_path / "cases.csv")
    assert cases.groupby("split")["case"].count().to_dict() == {"test": 4, "validation": 4}


def test_names_that_look_like_numbers_or_like_nothing_stay_names(tmp_path: Path) -> None:
    named = [
        dataclasses.replace(case, id=name, group=name)
        for case, name in zip(some(4), ["007", "NA", "nan", "1e5"], strict=True)
    ]
    run(World({"test": named}), tmp_path)
    run(World(), tmp_path, split="validation")

    assert read_cases(tmp_path / "cases.csv")["case"].tolist()[:4] == ["007", "NA", "nan", "1e5"]


def test_cases_without_truth_are_predicted_and_named_and_not_measured(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mixed = [*some(3), dataclasses.replace(some(1, truth=False)[0], id="bare")]
    found = run(World({"test": mixed}), tmp_path)

    assert found.unmeasured == ("bare",)
    assert "bare" not in found.scores
    assert (tmp_path / "predictions" / "bare.npy").is_file()
    assert "1 of 4 cases of split 'test' have no label: predicted, not measured: bare." in (
        caplog.text
    )


def test_an_empty_split_is_an_error_before_anything_is_predicted(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="split 'test' holds no case"):
        run(World({"test": []}), tmp_path)


def test_a_split_without_any_truth_is_an_error_before_anything_is_predicted(
    tmp_path: Path,
) -> None:
    domain = World({"test": some(2, truth=False)})

    with pytest.raises(DataError, match="none of the 2 cases of split 'test' has a label"):
        run(domain, tmp_path)
    assert domain.seen == []


def test_pseudo_labels_are_judged_by_the_filter_of_the_run(tmp_path: Path) -> None:
    domain = World()
    found = run(domain, tmp_path).pseudo_labels

    probs = [domain.predict(Threshold(), case) for case in domain.cases("unlabeled")]
    label = torch.stack([each.argmax(0) for each in probs])
    kept = torch.stack([each.amax(0) for each in probs]) >= 0.9
    truth = torch.stack([case.truth for case in domain.cases("unlabeled")])
    for index in (0, 1):
        assert found.quality.predicted[index] == int((label == index).sum())
        assert found.quality.kept[index] == int((kept & (label == index)).sum())
        assert found.quality.right[index] == int((kept & (label == index) & (truth == index)).sum())
    assert found.quality.name == "confidence, threshold 0.9"
    assert sorted(found.cases) == [f"unlabeled-{i}" for i in range(4)]


def test_a_higher_threshold_keeps_no_more(tmp_path: Path) -> None:
    found = run(World(), tmp_path, trust=Trust("all", All())).pseudo_labels

    kept = np.array([each.kept for each in found.thresholds])
    assert (np.diff(kept, axis=0) <= 0).all()
    np.testing.assert_array_equal(kept[0], found.quality.kept)


def test_at_most_fifty_unlabeled_cases_are_judged_and_the_seed_chooses(tmp_path: Path) -> None:
    domain = World({"unlabeled": [*some(60), *some(5, truth=False)]})

    first, again, other = (run(domain, tmp_path, seed=seed).pseudo_labels for seed in (0, 0, 1))

    assert len(first.cases) == 50
    assert first.unlabeled == 65
    assert first.cases == again.cases != other.cases


def test_without_hidden_truth_or_filter_there_is_no_word_on_pseudo_labels(tmp_path: Path) -> None:
    bare = World({"unlabeled": some(3, truth=False)})

    assert run(bare, tmp_path).pseudo_labels is None
    assert run(World(), tmp_path, trust=None).pseudo_labels is None


class Pooled(World):
    """A domain whose headline is known of the whole set only, not of a case."""

    headline = ("share", "")

    def summarize(self, table: pd.DataFrame) -> pd.Series:
        found = table.mean()
        found["share", ""] = float(table["dice", "disc"].sum() / len(table))
        return found


def test_a_headline_that_no_case_has_ranks_cases_as_if_each_were_the_whole_set(
    tmp_path: Path,
) -> None:
    found = run(Pooled(), tmp_path)

    cases = read_cases(tmp_path / "cases.csv").set_index("case")["value"]
    assert found.scores == pytest.approx(cases.to_dict())
    summary = read_summary(tmp_path / "summary.csv").set_index(["metric", "class"])
    assert summary.loc[("share", ""), "n"] == 4
    assert np.isnan(summary.loc[("share", ""), "median"])
    assert summary.loc[("share", ""), "low"] < summary.loc[("share", ""), "high"]


class Silent(World):
    """A domain where one case has no value."""

    def measure(self, predicted: Tensor, case: ToyCase):
        found = super().measure(predicted, case)
        return [each._replace(value=float("nan")) for each in found] if case.id == "c0" else found


def test_a_case_without_a_value_is_counted_out_and_never_ranked(tmp_path: Path) -> None:
    found = run(Silent({"test": some(5)}), tmp_path)

    assert found.scores["c0"] is None
    assert "c0" not in {picture.case for picture in found.pictures}
    assert read_summary(tmp_path / "summary.csv")["n"].tolist() == [4]
    assert json.loads((tmp_path / "evaluation.json").read_text())["scores"]["c0"] is None


def test_a_single_case_without_a_value_is_still_shown(tmp_path: Path) -> None:
    found = run(Silent({"test": some(1)}), tmp_path)

    assert [picture.rank for picture in found.pictures] == ["not ranked"]


def test_progress_is_told_case_by_case(tmp_path: Path) -> None:
    heard: list[tuple[str, int, int]] = []
    run(World(), tmp_path, watch=lambda *news: heard.append(news))

    assert [news for news in heard if news[0] == "test"] == [("test", i, 4) for i in (1, 2, 3, 4)]
    assert ("pseudo-labels", 4, 4) in heard
    assert ("figures", 3, 3) in heard


def test_the_table_keeps_the_order_in_which_things_were_measured() -> None:
    cases = pd.DataFrame(
        [("b", "g", "test", "z", "", 1.0), ("b", "g", "test", "a", "y", 2.0),
         ("a", "g", "test", "z", "", 3.0)],
        columns=list(CASES),
    )  # fmt: skip
    found = table(cases)

    assert [*found.index] == ["b", "a"]
    assert [*found.columns] == [("z", ""), ("a", "y")]
    assert np.isnan(found.loc["a", ("a", "y")])


def test_rows_name_case_group_and_split() -> None:
    domain = World()
    case = next(iter(domain.cases("test")))
    found = rows(domain, case, domain.predict(Threshold(), case), "test")

    assert found.iloc[0].tolist()[:5] == ["test-0", "test-0", "test", "dice", "disc"]


def test_a_broken_table_or_record_names_its_file(tmp_path: Path) -> None:
    (tmp_path / "cases.csv").write_text("a,b\n1,2\n")
    with pytest.raises(RunError, match=r"cases.csv' has the columns a, b; expected case, group"):
        read_cases(tmp_path / "cases.csv")
    (tmp_path / "evaluation.json").write_text("{}")
    with pytest.raises(RunError, match=r"evaluation.json' is not what an evaluation writes"):
        read_evaluation(tmp_path / "evaluation.json")


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(World(), tmp_path)
    before = (tmp_path / "cases.csv").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(RunError, match="No space left on device"):
        run(World(), tmp_path, split="validation")
    assert (tmp_path / "cases.csv").read_bytes() == before
    assert not [*tmp_path.glob("*.tmp")]
