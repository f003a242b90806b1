"""The rules of the house, checked: who may import whom, and how large anything may grow."""

from __future__ import annotations

import ast
import logging
import subprocess
import sys
import time
import tomllib
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from jaxtyping import TypeCheckError

import common
from common.batch import one_hot
from common.filters import AnyFilter
from common.labeling import among
from common.losses import AnyLoss
from common.methods import AnyMethod
from common.mixing import AnyMix
from common.sampling import generator

ROOT = Path(__file__).parents[1]
PACKAGES = ("common", "medseg_ssl", "rsseg_ssl")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
VERBS = (
    "inspect",
    "init",
    "check",
    "train",
    "predict",
    "label",
    "evaluate",
    "compare",
    "diagnose",
    "export",
    "methods",
)
METHODS = sorted((ROOT / "common" / "methods").glob("[!_]*.py"))  # the list of them grows

FOREIGN = {"medseg_ssl", "rsseg_ssl", "monai", "torchgeo", "rasterio", "nibabel"}
VAGUE = {"utils", "util", "helpers", "helper", "misc", "registry", "factory", "core", "engine"}

each_source = pytest.mark.parametrize(
    "path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix()
)


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(path: Path) -> set[str]:
    """Every module that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found |= {f"{node.module}.{name.name}" for name in node.names} | {node.module or ""}
    return found


def importers_of(module: str) -> set[str]:
    return {
        path.relative_to(ROOT).as_posix()
        for path in SOURCES
        if any(name == module or name.startswith(f"{module}.") for name in imported(path))
    }


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def in_python(*lines: str) -> str:
    """What a fresh interpreter prints."""
    found = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    return found.stdout


def test_common_is_the_one_of_this_repository() -> None:
    assert Path(common.__file__).resolve() == ROOT / "common" / "__init__.py"


def test_annotations_and_shapes_are_checked_while_tests_run() -> None:
    logits, target = torch.zeros(2, 3, 4, 4), torch.zeros(2, 4, 4, dtype=torch.int64)
    with pytest.raises(TypeCheckError):
        one_hot(target.float(), 3)
    with pytest.raises(TypeCheckError):
        among(logits, torch.ones(2, 4, 1, 1, dtype=torch.bool))
    with pytest.raises(TypeCheckError):
        generator("seed")


def test_the_import_contracts_are_kept() -> None:
    from importlinter.cli import lint_imports

    code = lint_imports(config_filename=str(ROOT / "pyproject.toml"), cache_dir=None)
    logging.getLogger("seg_ssl").disabled = False  # it silences every logger but its own
    assert code == 0, "run lint-imports to see which contract is broken"


def test_common_brings_in_no_imaging_domain() -> None:
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in SOURCES
        if path.is_relative_to(ROOT / "common")
    ]
    loaded = in_python(
        "import importlib, sys",
        f"for name in {modules}: importlib.import_module(name)",
        "print(*{name.partition('.')[0] for name in sys.modules})",
    )
    assert "torch" in loaded.split()
    assert not FOREIGN & set(loaded.split())


def test_adapters_do_not_know_each_other() -> None:
    assert not any(name.startswith("medseg_ssl/") for name in importers_of("rsseg_ssl"))
    assert not any(name.startswith("rsseg_ssl/") for name in importers_of("medseg_ssl"))


def test_yaml_is_read_in_config_only() -> None:
    assert importers_of("yaml") == {"common/config.py"}


def test_fabric_is_driven_by_the_loop_only() -> None:
    assert importers_of("lightning") <= {"common/fit.py", "common/checkpoints.py"}


@pytest.mark.parametrize("family", ["filters", "methods"])
def test_members_of_a_family_never_import_each_other(family: str) -> None:
    members = {path.stem: path for path in (ROOT / "common" / family).glob("*.py")}
    del members["__init__"], members["base"]
    for name, path in members.items():
        siblings = {f"common.{family}.{other}" for other in members if other != name}
        assert not siblings & imported(path), name


@each_source
def test_only_the_command_line_prints(path: Path) -> None:
    calls = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call)]
    prints = [c for c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"]
    assert not prints or path == ROOT / "common" / "cli.py", f"line {prints[0].lineno}"


@pytest.mark.parametrize(
    "path", [*SOURCES, *TESTS], ids=lambda path: path.relative_to(ROOT).as_posix()
)
def test_no_file_is_long(path: Path) -> None:
    count = len(path.read_text(encoding="utf-8").splitlines())
    assert count <= (300 if path in SOURCES else 350)


@each_source
def test_no_function_is_longer_than_50_lines(path: Path) -> None:
    """Lines of code: the docstring and blank lines are free."""
    lines = path.read_text(encoding="utf-8").splitlines()
    for function in functions(path):
        first = function.body[0]
        documented = ast.get_docstring(function) is not None
        code = lines[(first.end_lineno if documented else first.lineno - 1) : function.end_lineno]
        count = sum(1 for line in code if line.strip())
        assert count <= 50, f"{function.name} (line {function.lineno}) has {count} lines"


@pytest.mark.parametrize("path", METHODS, ids=lambda path: path.stem)
def test_a_method_is_one_short_file(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 100


@each_source
def test_no_function_takes_more_than_7_parameters_or_unnamed_rests(path: Path) -> None:
    for function in functions(path):
        given = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
        own = [each.arg for each in given if each.arg not in ("self", "cls")]
        assert len(own) <= 7, f"{function.name} (line {function.lineno})"
        assert function.args.kwarg is None, f"{function.name} passes keywords through"


@each_source
def test_names_say_what_is_inside(path: Path) -> None:
    assert not VAGUE & {part.removesuffix(".py") for part in path.relative_to(ROOT).parts}


@each_source
def test_every_file_says_in_its_first_line_what_it_is(path: Path) -> None:
    docstring = ast.get_docstring(tree_of(path))
    assert docstring
    assert docstring.splitlines()[0].endswith((".", "?")), docstring.splitlines()[0]


@each_source
def test_shapes_are_written_in_batch_only(path: Path) -> None:
    uses = {name for name in imported(path) if name.partition(".")[0] == "jaxtyping"}
    assert not uses or path == ROOT / "common" / "batch.py"


@each_source
def test_nothing_asks_hasattr(path: Path) -> None:
    names = {node.id for node in ast.walk(tree_of(path)) if isinstance(node, ast.Name)}
    assert "hasattr" not in names


@pytest.mark.parametrize(
    ("family", "folder"),
    [(AnyFilter, "filters"), (AnyMethod, "methods")],
)
def test_every_file_of_a_family_is_a_member_of_its_union(family: object, folder: str) -> None:
    members = typing.get_args(typing.get_args(family)[0])
    files = {path.stem for path in (ROOT / "common" / folder).glob("*.py")} - {"__init__", "base"}
    assert {member.__module__.rpartition(".")[2] for member in members} == files


@pytest.mark.parametrize("family", [AnyFilter, AnyMethod, AnyLoss, AnyMix])
def test_every_member_of_a_family_documents_itself(family: object) -> None:
    for member in typing.get_args(typing.get_args(family)[0]):
        assert member.__doc__
        assert member.__doc__.splitlines()[0].strip().rstrip("[]0123456789. ")


@pytest.mark.parametrize("adapter", ["medseg_ssl", "rsseg_ssl"])
def test_help_needs_no_torch_and_is_answered_at_once(adapter: str) -> None:
    began = time.monotonic()
    loaded = in_python(
        "import sys",
        "sys.argv = ['x', '--help']",
        f"import {adapter}.cli",
        f"try: {adapter}.cli.main()",
        "except SystemExit as end: code = end.code",
        "print(code, *{name.partition('.')[0] for name in sys.modules})",
    )
    said, _, state = loaded.rstrip().rpartition("\n")
    code, *modules = state.split()
    assert code == "0"
    assert all(verb in said for verb in VERBS)
    assert not {"torch", "numpy", "pandas", "lightning", "pydantic", *FOREIGN} & (
        set(modules) - {adapter}
    )
    assert time.monotonic() - began < 5  # 0.3 s on a machine that does nothing else


def test_both_adapters_have_the_same_rooms() -> None:
    asked = "settings cases augment batches networks inference measures export figures synthetic"
    for adapter in ("medseg_ssl", "rsseg_ssl"):
        rooms = {path.stem for path in (ROOT / adapter).glob("*.py")}
        assert {*asked.split(), "inspection", "draft", "domain", "cli"} <= rooms


def test_every_package_is_shipped() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    shipped = set(project["tool"]["setuptools"]["packages"])
    found = {".".join(path.parent.relative_to(ROOT).parts) for path in SOURCES}
    assert shipped == found
