"""The command line of both adapters: each verb of ``verbs.py``, said aloud.

Nothing heavy is imported before a verb runs, so ``--help`` answers at once.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from common import arguments as told
from common.errors import DataError, RunError, SegSSLError
from common.hush import hush_libraries

if TYPE_CHECKING:
    from common.adapter import Adapter
    from common.domain import Findings
    from common.screens import Screen

out, err = Console(highlight=False), Console(stderr=True, highlight=False)
app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True)
class Command:
    """Which adapter speaks, and where it lies; imported when first needed."""

    name: str
    target: str  # "package.module:object"

    def adapter(self) -> Adapter:
        """The adapter itself."""
        module, _, name = self.target.partition(":")
        adapter: Adapter = getattr(importlib.import_module(module), name)
        return adapter


def build(name: str, target: str, about: str) -> Callable[[], None]:
    """The ``main`` of a console script that speaks for the adapter at ``target``."""

    def main() -> None:
        app.info.help = about
        hush_libraries(err)
        try:
            app(prog_name=name, obj=Command(name, target))
        except SegSSLError as error:
            _complain(error)
            sys.exit(2)
        except OSError as error:
            _complain(error)
            err.print("Nothing written so far is lost: mend this, and run the same command again.")
            sys.exit(2)

    return main


@app.command()
def inspect(context: typer.Context, data: told.DataFolder) -> None:
    """Say what is in a folder of data, and what is wrong with it."""
    findings = _command(context).adapter().inspect(data)
    _show(findings)
    if findings.problems:
        raise DataError.listing(f"'{data}'", findings.problems)


@app.command()
def init(
    context: typer.Context,
    data: told.DataFolder,
    output: Annotated[Path, typer.Option(help="The YAML file to write.")],
    labeled: told.LabeledCases = None,
    validation: told.ValidationCases = 0,
    test: told.TestShare = "0.2",
    seed: told.DrawnBy = 0,
) -> None:
    """Write a complete, commented config, chosen from the data."""
    from common.adapter import Wish, held_out

    command = _command(context)
    if output.exists():
        raise RunError(f"'{output}' exists. Give another --output, or remove the file first.")
    number = int(labeled) if labeled and labeled.isdigit() else None
    wanted = number if labeled is None or number is not None else Path(labeled)
    wish = Wish(labeled=wanted, validation=validation, test=held_out(test), seed=seed)
    text = command.adapter().draft(data, wish)
    output.write_text(text, encoding="utf-8")
    out.print(f"Wrote [bold]{output}[/]. Look through it, then:\n  {command.name} train {output}")


@app.command()
def check(context: typer.Context, config: told.Config, overrides: told.Overrides = []) -> None:  # noqa: B006
    """Check a config and its data, and say how long a step takes here."""
    from common import verbs
    from common.bar import sparsely

    command = _command(context)
    adapter = command.adapter()
    _show(verbs.check(verbs.load(config, adapter, overrides), adapter, watch=sparsely(_say_case)))
    out.print(f"[green]Ready.[/] {command.name} train {config}")


@app.command()
def train(
    context: typer.Context,
    config: told.Config,
    overrides: told.Overrides = [],  # noqa: B006
    output: Annotated[
        Path | None, typer.Option(help="The run folder; runs/<name of the config> if not given.")
    ] = None,
) -> None:
    """Train, or go on where an earlier call was cut off."""
    from common import verbs
    from common.bar import Bar, sparsely

    command = _command(context)
    adapter = command.adapter()
    run = verbs.load(config, adapter, overrides)
    folder = output or Path("runs") / config.stem
    with Bar(out, run.fit.steps) as bar:
        prepared = sparsely(_say_case)
        fitted = verbs.train(run, adapter, folder, watch=bar.tell, prepared=prepared)
    if not fitted.finished:
        out.print(
            f"Stopped at step {fitted.step} of {run.fit.steps}; nothing is lost. "
            "Run the same command again to go on."
        )
        raise typer.Exit(130)
    out.print(f"Trained {fitted.step} steps in [bold]{folder}[/]. Now:")
    out.print(f"  {command.name} evaluate {folder}")


@app.command()
def predict(
    context: typer.Context,
    run: told.RunFolder,
    images: told.Images,
    output: told.Output,
    also: told.Also = [],  # noqa: B006
    overrides: told.Asked = [],  # noqa: B006
    part: Annotated[str, typer.Option(help="Of the images, where processes share them.")] = "1/1",
) -> None:
    """Predict label maps, each on the grid of its image. Cut off? The same command goes on."""
    from common import verbs
    from common.splits import OneOf

    adapter, runs, mine = _command(context).adapter(), [run, *also], OneOf.read(part, "--part")
    written = verbs.predict(
        runs, adapter, images, output, overrides=overrides, part=mine, watch=_say_file
    )
    said = "label map lies" if len(written) == 1 else "label maps lie"
    out.print(f"{len(written)} {said} in {escape(str(output))}.")


@app.command()
def label(
    context: typer.Context,
    runs: told.Runs,
    output: told.Output,
    overrides: told.Asked = [],  # noqa: B006
) -> None:
    """Write what a run would teach of each unlabeled case, as label maps to open and train on."""
    from common import verbs

    adapter = _command(context).adapter()
    written = verbs.label(runs, adapter, output, overrides=overrides, watch=_say_case)
    said = "pseudo-label" if len(written) == 1 else "pseudo-labels"
    out.print(f"Wrote {len(written)} {said}. To train on them, say in a config:")
    out.print(f"  domain.weak_labels: {{scribbles: {escape(str(output / 'labels'))}}}")


@app.command()
def evaluate(
    context: typer.Context,
    run: told.RunFolder,
    split: Annotated[str, typer.Option(help="test, validation or labeled.")] = "test",
    also: told.Also = [],  # noqa: B006
    overrides: told.Asked = [],  # noqa: B006
    output: Annotated[Path | None, typer.Option(help="Another folder than RUN.")] = None,
) -> None:
    """Measure a trained run on one split, and write cases.csv and report.html."""
    from common import verbs

    adapter = _command(context).adapter()
    asked = verbs.otherwise([run, *also], adapter, overrides) if also or overrides else None
    report = verbs.evaluate(
        run, adapter, split=split, otherwise=asked, output=output, watch=_say_case
    )
    out.print(f"The report: [bold]{report}[/]")


@app.command()
def diagnose(
    context: typer.Context,
    run: told.RunFolder,
    precision: told.Precision = 0.95,
) -> None:
    """Say what the pseudo-labels of a run are worth, and suggest a threshold for each class."""
    from common import screens, verbs

    adapter = _command(context).adapter()
    found = verbs.diagnose(run, adapter, precision=precision, watch=_say_case)
    _show_screen(screens.of_diagnosis(found, run))


@app.command()
def postprocess(context: typer.Context, runs: told.Runs) -> None:
    """Find out on validation cases whether tidying up predictions makes them better, and how."""
    from common import screens, verbs

    found = verbs.postprocess(runs, _command(context).adapter(), watch=_say_case)
    _show_screen(screens.of_choice(found))


@app.command()
def compare(
    context: typer.Context,
    runs: told.Compared,
    output: Annotated[Path | None, typer.Option(help="A CSV file for all differences.")] = None,
) -> None:
    """Say by how much runs are better than the first, on the same cases, and how sure that is."""
    from common import screens, verbs

    found = verbs.compare(runs, _command(context).adapter(), output=output)
    _show_screen(screens.of_comparison(found))
    if output is not None:
        out.print(f"All of it: {escape(str(output))}")


@app.command()
def export(
    context: typer.Context,
    run: told.RunFolder,
    output: Annotated[Path, typer.Option(help="The folder to write; new, or empty.")],
    to: Annotated[str, typer.Option(help="onnx, torch, or (volumes) bundle, for MONAI.")],
) -> None:
    """Write the best network of a run for programs that know nothing of this one."""
    from common import verbs

    path = verbs.export(run, _command(context).adapter(), output, to=to)
    out.print(f"Wrote [bold]{escape(str(path))}[/]. It answers as the trained network does.")


@app.command()
def methods(context: typer.Context, name: told.MethodName = None) -> None:
    """List the methods, or say all of one: its paper, its cost, its settings."""
    from common import screens

    schema = _command(context).adapter().schema
    if name is None:
        screen = screens.of_methods(schema, width=out.width)
    else:
        screen = screens.of_method(name, schema)
    _show_screen(screen)


def _complain(error: Exception) -> None:
    err.print(f"[bold red]{type(error).__name__}[/]: {escape(str(error))}", soft_wrap=True)


def _say_case(name: str, number: int, total: int) -> None:
    out.print(f"  {number}/{total}  {escape(name)}")


def _say_file(path: Path, number: int, total: int) -> None:
    _say_case(str(path), number, total)


def _show(findings: Findings) -> None:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in findings.facts:
        table.add_row(escape(name), escape(value))
    out.print(table)
    for warning in findings.warnings:
        out.print(f"[yellow]Warning[/]: {escape(warning)}", soft_wrap=True)


def _show_screen(screen: Screen) -> None:
    if out.is_terminal:
        out.print(screen.page)
        if screen.advice:
            out.print(escape(screen.advice), soft_wrap=True)
    else:
        print("\n".join(screen.lines))


def _command(context: typer.Context) -> Command:
    command: Any = context.obj
    assert isinstance(command, Command)
    return command
