"""The verbs of ``medseg-ssl``, each for volumes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from common.adapter import Wish
from common.config import Run
from common.domain import Findings
from common.errors import DataError
from common.shipping import Cargo
from common.weak_labels import all_located
from medseg_ssl import inspection
from medseg_ssl.cargo import cargo_of
from medseg_ssl.domain import Volumes
from medseg_ssl.draft import draft
from medseg_ssl.layouts import read_catalog
from medseg_ssl.look import look_at
from medseg_ssl.settings import MedsegRun


class Medseg:
    """The verbs of ``medseg-ssl``; a :class:`common.adapter.Adapter`."""

    name = "medseg-ssl"
    schema: type[Run] = MedsegRun

    def inspect(self, folder: Path) -> Findings:
        return inspection.inspect(folder)

    def draft(self, folder: Path, wish: Wish) -> str:
        return draft(folder, wish)

    def check(self, run: Run) -> Findings:
        return inspection.check(_own(run))

    def resolve(self, run: Run) -> Run:
        settings = _own(run).domain
        catalog = read_catalog(settings.data)
        split = inspection.resolve_splits(settings, catalog)
        if split.problems:
            raise DataError.listing("the splits of this run", split.problems)
        changes: dict[str, object] = {
            "data": settings.data.expanduser().absolute(),
            "weak_labels": all_located(settings.weak_labels, settings.data),
            "splits": split.splits,
        }
        if settings.spacing_mm == "median":
            names = {*split.names("labeled"), *split.names("unlabeled")}
            bare = [replace(case, label=None) for case in catalog.cases if case.id in names]
            changes["spacing_mm"] = inspection.median_spacing_mm(look_at(bare, settings.cache))
        return run.model_copy(update={"domain": settings.model_copy(update=changes)})

    def for_prediction(self, run: Run) -> Run:
        return run

    def cargo(self, run: Run) -> Cargo:
        return cargo_of(_own(run).domain)

    def open(self, run: Run) -> Volumes:
        return Volumes(_own(run).domain)


def _own(run: Run) -> MedsegRun:
    assert isinstance(run, MedsegRun)
    return run


medseg = Medseg()
"""What the command line calls."""
