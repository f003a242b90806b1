"""What several verbs of the command line are told."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Config = Annotated[Path, typer.Argument(metavar="CONFIG", help="A YAML file, as 'init' writes it.")]
Overrides = Annotated[
    list[str],
    typer.Option(
        "--set", help="Change one value, such as fit.steps=100. Repeatable.", metavar="KEY=VALUE"
    ),
]
Asked = Annotated[
    list[str],
    typer.Option(
        "--set",
        help="How to ask: source, combine, refiners (predict: probabilities, label: filter).",
        metavar="KEY=VALUE",
    ),
]
Also = Annotated[list[Path], typer.Option(metavar="RUN", help="One more run, asked together.")]
Runs = Annotated[
    list[Path], typer.Argument(metavar="RUN", help="Run folders; several are combined.")
]
Compared = Annotated[
    list[Path], typer.Argument(metavar="RUN", help="Evaluated runs, the baseline first.")
]
Images = Annotated[
    list[Path], typer.Argument(metavar="IMAGES", help="Image files, and folders of them.")
]
Precision = Annotated[float, typer.Option(help="The share of kept pixels that shall be right.")]
Output = Annotated[Path, typer.Option(help="Where to write the label maps.")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, such as runs/hippo.")]
DataFolder = Annotated[
    Path, typer.Argument(metavar="DATA", help="A folder of images and labels, or a CSV manifest.")
]
LabeledCases = Annotated[
    str | None,
    typer.Option(help="How many cases keep their label, or a text file that names them."),
]
ValidationCases = Annotated[int, typer.Option(help="Annotated cases that choose the checkpoint.")]
TestShare = Annotated[
    str, typer.Option(help="Share of the annotated cases kept for the end, or a fold: 2/5.")
]
DrawnBy = Annotated[int, typer.Option(help="Which cases are drawn.")]
MethodName = Annotated[
    str | None, typer.Argument(metavar="[NAME]", help="One of them: its whole page.")
]
