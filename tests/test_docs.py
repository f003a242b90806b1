"""The pages made from the code are what the code says; the code on pages runs."""

from __future__ import annotations

import importlib
import itertools
import json
import re
import runpy
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import get_args

import pytest
import torch
import yaml
from pydantic import TypeAdapter

from common import methods_table, verbs
from common.adapter import Wish
from common.filters import AnyFilter
from common.fit import Learner
from common.methods import AnyMethod
from common.mixing import AnyMix
from common.parts import parted
from common.sources import AnySource
from medseg_ssl.adapter import medseg
from medseg_ssl.networks import AnyNetwork, CustomVolume
from medseg_ssl.synthetic import Phantom, make_volumes
from tests.contracts import test_methods as contract
from tests.toy import ToyDomain, ToySettings

DOCS = Path(__file__).parents[1] / "docs"
SHORT = ("fit.steps=2", "domain.network.features=[4, 8]", "domain.patch=[16, 16, 16]")
FILES = {"class Sharpened": "sharpened", "class MyRun": "my_ssl", "class Encoder": "my_network"}

ONE_BY_ONE = """
import json, runpy, sys
sys.path.insert(0, ".")
for sys.argv in json.loads(sys.argv[1]):
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        assert not end.code, (sys.argv, end.code)
"""


def blocks(language: str, page: str = "own_method.md") -> list[str]:
    """The code of one language on a page, in its order."""
    text = (DOCS / page).read_text(encoding="utf-8")
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [code for spoken, code in fenced if spoken == language]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files of own_method.md, where a user might work."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for sign, name in FILES.items():
        (block,) = (each for each in blocks("python") if sign in each)
        (tmp_path / f"{name}.py").write_text(block, encoding="utf-8")
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def module(name: str) -> ModuleType:
    return importlib.import_module(name)


def short_config(home: Path) -> Path:
    """``mri.yaml``, of phantoms, as ``init`` writes it."""
    data = make_volumes(home / "data", cases=6, labeled=5, seed=0, phantom=Phantom(side=24))
    (home / "mri.yaml").write_text(medseg.draft(data, Wish(labeled=2)), encoding="utf-8")
    return home / "mri.yaml"


def test_the_page_of_methods_is_what_the_code_says_now() -> None:
    made = runpy.run_path(str(DOCS / "methods.py"))["page"]()
    kept = (DOCS / "methods.md").read_text(encoding="utf-8")
    assert kept == made, "docs/methods.md is not what the code says now. Run: make docs"


def test_the_page_of_methods_recommends_what_there_is() -> None:
    text = (DOCS / "methods.md").read_text(encoding="utf-8").partition("## How to choose")[2]
    known = {row.name for row in methods_table.rows()} | {"init", "domain.partners"}
    assert set(re.findall(r"`([^`]+)`", text)) <= known


def test_the_page_of_methods_tells_of_every_filter_and_mix() -> None:
    text = (DOCS / "methods.md").read_text(encoding="utf-8")
    for family in (AnyFilter, AnyMix, AnySource):
        for member in get_args(get_args(family)[0]):
            assert f"\n| `{methods_table.name_of(member)}` | " in text, "run: make docs"


def test_the_sections_of_configuration_md_are_sound() -> None:
    sections = [yaml.safe_load(each) for each in blocks("yaml", "configuration.md")]
    partnered = [each for each in sections if "partners" in each.get("domain", {})]
    assert len(sections) >= 3
    assert len(partnered) == 1
    for section in sections:
        TypeAdapter(AnyMethod).validate_python(section["method"])
    for section in partnered:
        TypeAdapter(tuple[AnyNetwork, ...]).validate_python(section["domain"]["partners"])


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert (DOCS / link).exists(), link


def test_a_method_of_ones_own_is_as_short_as_the_page_says(home: Path) -> None:
    lines = (home / "sharpened.py").read_text().partition("class Sharpened")[2].splitlines()
    assert sum(1 for line in lines if line.strip()) <= 30


@pytest.mark.parametrize("dims", [2, 3])
def test_a_method_of_ones_own_keeps_the_promises_of_all_methods(home: Path, dims: int) -> None:
    domain, method = ToyDomain(ToySettings(dims=dims, side=12)), module("sharpened").Sharpened()
    contract.test_it_learns_discs(dims, "batch", method, home)
    for promise in (
        contract.test_no_gradient_reaches_the_pseudo_label,
        contract.test_every_loss_term_teaches,
        contract.test_the_unlabeled_loss_looks_at_the_strong_view_f2,
        contract.test_every_weight_that_learns_gets_a_gradient_in_every_step,
        contract.test_any_number_of_classes_will_do_f10,
        contract.test_a_step_waits_for_no_device,
        contract.test_what_is_taught_is_recorded_before_mixing,
        contract.test_nothing_valid_means_nothing_taught,
    ):
        promise(domain, method)


def test_every_command_knows_a_method_of_ones_own(home: Path) -> None:
    short_config(home)
    (commands,) = (each for each in blocks("") if "my_ssl.py" in each)
    calls = []
    for line in commands.splitlines():
        python, *call = line.split()
        assert python == "python"
        sets = SHORT if call[1] in ("check", "train") else ()
        calls.append([*call, *itertools.chain(*(("--set", each) for each in sets))])
    done = subprocess.run(  # one interpreter for all calls: each would import for seconds
        [sys.executable, "-c", ONE_BY_ONE, json.dumps(calls)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "Draw the strong view towards what the weak view says" in done.stdout
    assert "temperature\t0.5\tnumber above 0\tT; below 1 sharpens" in done.stdout
    assert "temperature: 0.4" in (home / "runs" / "mri" / "run.yaml").read_text()
    assert (home / "runs" / "mri" / "report.html").exists()


def test_from_python_a_method_of_ones_own_trains_like_any_other(home: Path) -> None:
    (lines,) = (each for each in blocks("python") if "verbs.evaluate" in each)
    short_config(home)
    sets = ", ".join(f'"{each}"' for each in ("method.name=sharpened", *SHORT))
    shorter = lines.replace('"method.name=sharpened"', sets)
    told: dict = {}
    exec(shorter, told)
    assert told["fitted"].finished
    assert told["report"].exists()


def test_in_a_loop_of_ones_own_a_method_needs_no_name(home: Path) -> None:
    (lines,) = (each for each in blocks("python") if "itertools.islice" in each)
    told: dict = {}
    exec(lines, told)
    run = verbs.load(short_config(home), medseg, SHORT)
    torch.manual_seed(0)
    predictor = told["train"](run, medseg, 2)
    with torch.no_grad():
        logits = predictor.eval()(torch.zeros(1, 1, 16, 16, 16))
    assert logits.shape == (1, 3, 16, 16, 16)
    assert logits.isfinite().all()


def test_a_network_in_three_parts_serves_a_method_that_looks_inside(home: Path) -> None:
    network = CustomVolume(target="my_network:tiny", arguments={"channels": 1, "classes": 3})
    assert parted(network.build(1, 3)).pixel_channels == 8

    class Own(ToyDomain):
        def new_network(self, peer: int = 0) -> torch.nn.Module:
            return module("my_network").tiny(1, 2)

    domain = Own(ToySettings(dims=3, side=8))
    learner = Learner(methods_table.named("unimatch")(), domain)
    outcome = learner(next(domain.batches(seed=0, first_step=0)), 1.0)
    assert all(loss.isfinite() for loss in outcome.losses.values())
