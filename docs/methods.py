"""Writes methods.md beside it: the tables from the code, the words from here. ``make docs``."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import get_args

from common.config import Run
from common.filters import AnyFilter
from common.losses import AnyLoss
from common.methods_table import Row, idea_of, members, name_of, named, rows, settings_of
from common.mixing import AnyMix
from common.refiners import AnyRefiner
from common.sources import AnySource
from medseg_ssl.settings import MedsegRun
from rsseg_ssl.settings import RssegRun

HERE = Path(__file__).parent

DOMAINS: dict[str, tuple[str, type[Run]]] = {"rsseg": ("2D", RssegRun), "medseg": ("3D", MedsegRun)}
"""Each adapter with the axes it brings, and what its runs may name."""

OPENING = """\
# Methods

Made from the code by `make docs`; `medseg-ssl methods` prints the same, and `medseg-ssl methods
fixmatch` all of one: its sources, its divisor, what is detached, where it departs from the authors'
code, and each of its settings. In a YAML file a method is its name: `method: {name: fixmatch}`.

Networks: how many are held; how many of them learn. Forwards: passes per step. A method that needs
features works on every network that has a name here, and on your own where it
[shows its parts](own_method.md#a-network-in-three-parts).
"""

CHOOSING = """\
## How to choose

Run `supervised` first: without it there is no gain to speak of. Then take what `init` writes,
`fixmatch` with an averaged teacher and CutMix: one network learns, nothing is asked of it, and a
pixel teaches only where the teacher is sure. `mean_teacher` is the alternative without a threshold
to choose. With memory and time for a second network, `cross_pseudo` lets two of them correct each
other, also two of different kinds (`domain.partners`). The others answer a particular trouble, and
their first sentence says which. Passes tell what a step costs next to `supervised`, networks what
it holds in memory; weigh a gain against both. No order of merit stands here: published gains come
from other data, other networks and other budgets, and the order changes with them. What we measured
ourselves, and on what, is in [benchmarks.md](benchmarks.md). On your own data: the same labeled
cases, the same network and the same steps for every arm, several seeds, choices made on validation
cases, the test cases looked at once, and the intervals of the reports beside the means. A method
that stays below `supervised` there says something about its pseudo-labels: look at their coverage
and precision in its report before you change its weight.

A method of your own takes about 30 lines: [own_method.md](own_method.md).
"""


FAMILIES = (
    ("Sources: how a network is asked", AnySource),
    ("Filters: which pixels teach", AnyFilter),
    ("Refiners: which shapes are right", AnyRefiner),
    ("Mixes: images made of two", AnyMix),
    ("Losses", AnyLoss),
)
"""What methods are made with."""


def page() -> str:
    """The whole of methods.md."""
    parts = (line for title, family in FAMILIES for line in _ingredients(title, family))
    return "\n".join([OPENING, *_tables(), *parts, CHOOSING])


def _tables() -> Iterator[str]:
    places = {name: {*members(schema)} for name, (_, schema) in DOMAINS.items()}
    for family, found in groupby(rows(), key=lambda row: row.family):
        yield f"## {family[0].upper()}{family[1:]}\n"
        yield "| name | paper | year | idea | networks | forwards | 2D/3D | domains | needs |"
        yield "|---|---|---|---|---|---|---|---|---|"
        for row in found:
            method = named(row.name)
            homes = [name for name, known in places.items() if method in known]
            yield _line(row, file=Path(inspect.getfile(method)), homes=homes)
        yield ""


def _ingredients(title: str, family: object) -> Iterator[str]:
    yield f"## {title}\n"
    yield "| name | idea | keys (defaults) |"
    yield "|---|---|---|"
    for member in get_args(get_args(family)[0]):
        keys = [f"`{each.name}` ({each.default})" for each in settings_of(member)]
        yield f"| `{name_of(member)}` | {idea_of(member)} | {', '.join(keys)} |"
    yield ""


def _line(row: Row, *, file: Path, homes: list[str]) -> str:
    name = f"[`{row.name}`]({Path(os.path.relpath(file, HERE)).as_posix()})"
    axes = ", ".join(DOMAINS[home][0] for home in homes)
    facts = (row.paper, str(row.year), row.idea, row.networks, row.forwards, axes, ", ".join(homes))
    cells = [name, *(each.replace("|", "\\|") for each in (*facts, row.needs))]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    (HERE / "methods.md").write_text(page(), encoding="utf-8")
