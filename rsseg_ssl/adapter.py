"""The verbs of ``rsseg-ssl``, each for scenes."""

from __future__ import annotations

from pathlib import Path

from common.adapter import Wish
from common.config import Run
from common.domain import Findings
from common.errors import DataError
from common.shipping import Cargo
from common.weak_labels import all_located
from rsseg_ssl import inspection, reader, records
from rsseg_ssl.cargo import cargo_of
from rsseg_ssl.cases import SceneCase
from rsseg_ssl.catalog import Catalog, read_catalog, without_truth
from rsseg_ssl.domain import Scenes
from rsseg_ssl.draft import draft
from rsseg_ssl.networks import AnyNetwork, ByName
from rsseg_ssl.settings import RssegRun, RssegSettings, Statistics


class Rsseg:
    """The verbs of ``rsseg-ssl``; a :class:`common.adapter.Adapter`."""

    name = "rsseg-ssl"
    schema: type[Run] = RssegRun

    def inspect(self, folder: Path) -> Findings:
        return inspection.inspect_folder(folder)

    def draft(self, folder: Path, wish: Wish) -> str:
        return draft(folder, wish)

    def check(self, run: Run) -> Findings:
        return inspection.check_run(_own(run))

    def resolve(self, run: Run) -> Run:
        settings = _own(run).domain
        data = settings.data.expanduser().absolute()
        found = read_catalog(settings.model_copy(update={"data": data}))
        problems = [*found.layout.problems, *found.splits.problems]
        if problems:
            raise DataError.listing("the data of this run", problems)
        first = found.used("labeled")[0]
        changes: dict[str, object] = {
            "data": data,
            "weak_labels": all_located(settings.weak_labels, data),
            "splits": found.splits.splits,
            "bands": _resolved_bands(settings, first),
        }
        if settings.statistics == "measure":
            changes["statistics"] = _measured(found)
        return run.model_copy(update={"domain": settings.model_copy(update=changes)})

    def for_prediction(self, run: Run) -> Run:
        settings = _own(run).domain
        bare = {
            "network": _without_weights(settings.network),
            "partners": tuple(_without_weights(each) for each in settings.partners),
        }
        return run.model_copy(update={"domain": settings.model_copy(update=bare)})

    def cargo(self, run: Run) -> Cargo:
        return cargo_of(_own(run).domain)

    def open(self, run: Run) -> Scenes:
        return Scenes(_own(run).domain)


def _own(run: Run) -> RssegRun:
    assert isinstance(run, RssegRun)
    return run


def _without_weights(network: AnyNetwork) -> AnyNetwork:
    bare = {"weights": None} if isinstance(network, ByName) else {}
    return network.model_copy(update=bare)


def _measured(found: Catalog) -> Statistics:
    """Over the valid pixels of all training scenes, labeled or not; of no others."""
    training = [without_truth(case) for s in ("labeled", "unlabeled") for case in found.used(s)]
    looked_at = records.image_records(training)
    problems = [f"scene '{name}': {r.problem}" for name, r in looked_at.items() if r.problem]
    if len({record.bands for record in looked_at.values() if not record.problem}) > 1:
        problems.append("training scenes differ in their bands. See the check command.")
    if problems:
        raise DataError.listing("the training scenes", problems)
    statistics = records.statistics(looked_at.values())
    if statistics is None:
        raise DataError(
            "no training scene holds a valid pixel, so bands cannot be normalized. Check "
            "domain.nodata and domain.alpha_band, or choose other scenes."
        )
    return statistics


def _resolved_bands(settings: RssegSettings, scene: SceneCase) -> tuple[int, ...]:
    if settings.bands != "all":
        return settings.bands
    every = range(1, reader.num_bands(scene.images) + 1)
    return tuple(band for band in every if band != settings.alpha_band)


rsseg = Rsseg()
"""What the command line calls."""
