from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor, nn

from common.errors import RunError
from common.evaluate import evaluate
from common.evidence import yaml_of
from common.filters import Confidence
from common.hidden_truth import Trust
from common.paints import of_class
from common.record import read_evaluation
from common.report import write_report
from tests.common import runs
from tests.toy import ToyDomain, ToySettings

VOID = {"meta", "img", "br", "hr", "input", "link"}


class Page(HTMLParser):
    """Reads a page strictly: every tag is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.open):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def count(self, tag: str) -> int:
        return sum(each == tag for each, _ in self.tags)


def page(folder: Path) -> Page:
    return Page(write_report(folder).read_text(encoding="utf-8"))


def update(folder: Path, **changed: object) -> None:
    path = folder / "evaluation.json"
    found = read_evaluation(path)
    assert found is not None
    path.write_text(found.model_copy(update=changed).model_dump_json())


@pytest.mark.parametrize("make", [runs.medical, runs.scenes])
@pytest.mark.parametrize("count", [1, 2, 24, 200])
def test_a_page_is_whole_whatever_the_number_of_cases(
    tmp_path: Path, make: Callable[..., object], count: int
) -> None:
    make(tmp_path, count)
    found = page(tmp_path)

    table = found.text.split("Worst first")[1].split("Cases as pictures")[0]
    names = re.findall(r"hippocampus_\d+|m_3807708_nw_18_1_\d+", table)
    assert len(names) == len(set(names)) == count
    assert found.count("img") == min(count, 3)


def test_nothing_is_loaded_from_anywhere(tmp_path: Path) -> None:
    runs.scenes(tmp_path)
    found = page(tmp_path)

    for tag, attributes in found.tags:
        assert tag not in {"link", "iframe", "object", "embed", "base"}
        for name in ("src", "href", "xlink:href", "srcset", "action"):
            value = attributes.get(name) or "#"
            assert value.startswith(("#", "data:image/png;base64,")), (tag, value)
    text = (tmp_path / "report.html").read_text()
    assert "@import" not in text
    assert "url(" not in text


def test_a_page_needs_no_other_file(tmp_path: Path) -> None:
    runs.medical(tmp_path / "run")
    before = write_report(tmp_path / "run").read_bytes()
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(tmp_path / "run" / "report.html", tmp_path / "elsewhere")

    assert (tmp_path / "elsewhere" / "report.html").read_bytes() == before
    assert b"figures/worst.png" not in before


def test_the_same_files_give_the_same_page(tmp_path: Path) -> None:
    runs.medical(tmp_path)

    assert write_report(tmp_path).read_bytes() == write_report(tmp_path).read_bytes()


def test_all_that_users_wrote_is_escaped(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    found = runs.medical(tmp_path, names=[evil, "a&b", 'quo"te', "it's"])
    update(
        tmp_path,
        classes=tuple(
            each.model_copy(update={"name": f"<b>{each.name} & co"}) for each in found.classes
        ),
        rules=(evil,),
        warnings=(evil,),
        data=((evil, evil),),
        splits={evil: (evil, "a&b")},
    )
    (tmp_path / "run.yaml").write_text(f"seed: {evil}\nmethod:\n  name: '<img src=x>'\n")
    (tmp_path / "environment.json").write_text('{"device": "<svg onload=x>"}')

    shown = page(tmp_path)

    assert shown.count("script") == 1
    assert shown.count("b") == page_of_plain_run(tmp_path / "plain").count("b")
    assert evil in shown.text
    assert "<img src=x>" in shown.text
    assert "<svg onload=x>" in shown.text
    assert 'quo"te' in shown.text
    text = (tmp_path / "report.html").read_text()
    assert evil not in text
    assert "a&amp;b" in text


def page_of_plain_run(folder: Path) -> Page:
    runs.medical(folder, names=["a", "b", "c", "d"])
    return page(folder)


def test_the_page_opens_with_question_headline_interval_and_count(tmp_path: Path) -> None:
    runs.medical(tmp_path)
    text = page(tmp_path).text

    assert (
        "How well does mean teacher tell 3 classes apart after 1,500 steps on 4 labeled and "
        "208 unlabeled cases? Judged on 44 cases." in text
    )
    assert re.search(r"0\.\d{3} Dice, mean \(higher is better\) 95 % interval 0\.\d{3} . 0", text)
    assert "44 cases in 44 groups, split test" in text


def test_the_worst_case_comes_first_and_numbers_sort_as_numbers(tmp_path: Path) -> None:
    found = runs.medical(tmp_path)
    shown = page(tmp_path)

    keys = [float(a["data-sort"]) for tag, a in shown.tags if tag == "td" and a.get("data-sort")]
    first = [keys[i] for i in range(0, len(keys), len(keys) // 44)]
    assert keys[0] == min(score for score in found.scores.values() if score is not None)
    assert first[0] < 0.6
    assert 'aria-sort="ascending"' in (tmp_path / "report.html").read_text()


def test_a_value_that_is_not_defined_is_a_dash_with_a_reason(tmp_path: Path) -> None:
    runs.medical(tmp_path, 1)
    shown = page(tmp_path)

    titles = {attributes.get("title") for tag, attributes in shown.tags if tag == "abbr"}
    assert "No interval: it takes at least two groups in which the number is defined." in titles
    assert "no interval: see warnings" in shown.text
    assert "There are no intervals: all cases belong to one group" in shown.text
    assert "nan" not in shown.text.lower().replace("dominan", "")


def test_pixel_counts_become_a_confusion_matrix_and_no_metric(tmp_path: Path) -> None:
    runs.scenes(tmp_path, 3)
    text = page(tmp_path).text

    assert "Which class is taken for which" in text
    assert "pixels_as" not in text.replace("pixels_as_<", "").lower()
    assert "Pixels as" not in text
    totals = re.search(r"truth ╲ predicted .*? pixels (.*?) Per class", text).group(1)
    last = re.findall(r"([\d,]+)(?= (?:tree|low|imperv)| *$)", totals)
    assert sum(int(each.replace(",", "")) for each in last) == 3 * 65536


def test_a_run_without_confusion_has_no_matrix(tmp_path: Path) -> None:
    runs.medical(tmp_path)

    assert "Which class is taken for which" not in page(tmp_path).text


def test_a_supervised_run_has_no_coverage_and_says_so(tmp_path: Path) -> None:
    runs.medical(tmp_path)
    update(tmp_path, pseudo_labels=None)
    config = (tmp_path / "run.yaml").read_text().replace("mean_teacher", "supervised")
    (tmp_path / "run.yaml").write_text(config)
    log = (tmp_path / "log.csv").read_text().splitlines()
    kept = [line for line in log if "step" in line or "loss/" in line]
    (tmp_path / "log.csv").write_text("\n".join(kept) + "\n")

    text = page(tmp_path).text

    assert "How well does supervised tell 3 classes apart after 1,500 steps on 4 labeled" in text
    assert "unlabeled cases? Judged" not in text
    assert "Nothing to judge: either this run makes no pseudo-labels" in text
    assert "There was no validation" in text
    assert "Predicted classes" not in text


@pytest.mark.parametrize("name", ["log.csv", "run.yaml", "environment.json", "figures/worst.png"])
def test_what_is_missing_is_said_and_does_not_stop_the_report(tmp_path: Path, name: str) -> None:
    runs.medical(tmp_path)
    (tmp_path / name).unlink()

    text = page(tmp_path).text

    said = {
        "log.csv": "The run folder holds no log.csv",
        "run.yaml": "The run folder holds no run.yaml",
        "environment.json": "evaluation took",
        "figures/worst.png": "The picture figures/worst.png is no longer in the run folder",
    }
    assert said[name] in text
    assert "0.8" in text


def test_other_splits_in_the_table_are_mentioned_and_not_mixed_in(tmp_path: Path) -> None:
    runs.medical(tmp_path, 5)
    with (tmp_path / "cases.csv").open("a") as file:
        file.write("foreign,foreign,validation,dice,mean,0.123456\n")

    text = page(tmp_path).text

    assert "also holds what earlier evaluations measured: validation (1 case)" in text
    assert "foreign" not in text.split("Worst first")[1].split("Cases as pictures")[0]


def test_a_folder_without_evaluation_is_an_error_with_its_remedy(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"holds no evaluation.json: evaluate the run first"):
        write_report(tmp_path)


def test_a_broken_environment_names_its_file(tmp_path: Path) -> None:
    runs.medical(tmp_path)
    (tmp_path / "environment.json").write_text("{")

    with pytest.raises(RunError, match=r"environment.json' is not JSON"):
        write_report(tmp_path)


def test_a_summary_of_another_run_is_an_error(tmp_path: Path) -> None:
    runs.medical(tmp_path)
    update(tmp_path, headline=("kappa", ""))

    with pytest.raises(RunError, match=r"summary.csv' holds no 'kappa'"):
        write_report(tmp_path)


class Threshold(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        return torch.cat([2 - 4 * image, 4 * image - 2], dim=1)


@pytest.mark.parametrize("dims", [2, 3])
def test_an_evaluation_of_a_whole_domain_becomes_a_page(tmp_path: Path, dims: int) -> None:
    domain = ToyDomain(ToySettings(dims=dims))
    trust = Trust("confidence, threshold 0.95", Confidence())
    evaluate(domain, Threshold(), split="test", folder=tmp_path, trust=trust)

    found = page(tmp_path)

    assert "4 cases in 4 groups" in found.text
    assert "Judged on 4 of 4 unlabeled cases." in found.text
    assert "Dice: twice the overlap over the sum of both areas." in found.text
    assert found.count("img") == 3


def test_a_diagnosis_becomes_a_section(tmp_path: Path) -> None:
    runs.diagnose(tmp_path, runs.scenes(tmp_path))

    found = page(tmp_path)

    for words in (
        "On 50 of 208 unlabeled cases, drawn with seed 0.",
        "how precision grew over steps cannot be told",
        "Thresholds for a precision of 95.0 %",
        "none has it",
        "Pixels that the run keeps (confidence, threshold 0.95; then largest_component)",
        "Distance to a border",
        "Drift from the labeled cases",
        "Whether teacher and student agree on everything is not logged",
        "Class 'impervious' is predicted for 25.0 % of the unlabeled pixels at the end",
    ):
        assert words in found.text
    assert "name: class_confidence" in found.text
    assert "1, # tree canopy & forest: none has it" in found.text


def test_without_a_diagnosis_the_section_says_what_it_takes(tmp_path: Path) -> None:
    runs.medical(tmp_path)
    assert "Not diagnosed: this takes validation cases" in page(tmp_path).text


def test_no_name_of_a_class_is_markup_in_the_evidence(tmp_path: Path) -> None:
    found = runs.medical(tmp_path)
    evil = found.classes[1].model_copy(update={"name": "<script>alert(1)</script>\nx: [1]"})
    update(tmp_path, classes=(found.classes[0], evil, found.classes[2]))
    made = runs.diagnose(
        tmp_path, found.model_copy(update={"classes": (found.classes[0], evil, found.classes[2])})
    )
    text = write_report(tmp_path).read_text("utf-8")
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert len(yaml.safe_load(yaml_of(made))["method"]["filter"]["thresholds"]) == 3


def test_classes_are_drawn_in_their_own_colors_where_a_card_does_not_swallow_them() -> None:
    assert of_class((230, 60, 60)).style == "--day:rgb(230 60 60);--night:rgb(230 60 60)"
    black, white = of_class((0, 0, 0)).style, of_class((255, 255, 255)).style
    assert black.startswith("--day:rgb(0 0 0);--night:rgb(")
    assert "--night:rgb(0 0 0)" not in black
    assert white.endswith("--night:rgb(255 255 255)")
    assert "--day:rgb(255 255 255)" not in white
