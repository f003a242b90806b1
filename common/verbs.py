"""What one can do with a config and a run folder. The command line is these functions, said aloud.

runs/<name>/
run.yaml  environment.json  latest.ckpt  best.ckpt  log.csv  events/
cases.csv  summary.csv  diagnosis.json  diagnosis.csv  predictions/  figures/  report.html
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast, get_args

import torch
from torch import nn

from common import config, diagnosis, oversampling, report, validation
from common import evaluate as evaluation
from common.adapter import Adapter
from common.batch import check_batch
from common.calibration import pooled
from common.clock import News
from common.comparison import compare as compare
from common.config import Run
from common.domain import Domain, Findings, Split, Watch
from common.environment import record_environment
from common.errors import ConfigError, DataError, RunError, SegSSLError
from common.export import export as export
from common.filters import Calibrated, CalibratedFilter
from common.fit import Company, Fitted, Learner, fit, launch
from common.folds import fold_runs
from common.pace import told
from common.pool import label as label
from common.postprocessing import postprocess as postprocess
from common.prediction import predict as predict
from common.record import Diagnosis, beside
from common.splits import names_of
from common.stopping import asked_to_stop
from common.together import otherwise as otherwise
from common.trained import new_learner, restored, training_domain

logger = logging.getLogger("seg_ssl")


def load(path: Path, adapter: Adapter, overrides: Sequence[str] = ()) -> Run:
    """The run that ``path`` describes, with ``overrides`` such as ``"fit.steps=100"``.

    Raises:
        ConfigError: Naming every problem at once.
    """
    return config.load(path, adapter.schema, overrides)


def check(run: Run, adapter: Adapter, *, watch: Watch = lambda what, done, total: None) -> Findings:
    """Look at the data of ``run``, prepare it, and take a few steps that are thrown away.

    The last of the facts says how long a step takes here, and how much memory.

    Raises:
        DataError: Naming everything that training would stumble over.
    """
    findings = adapter.check(run)
    if findings.problems:
        raise DataError.listing("the data of this run", findings.problems)
    run = adapter.resolve(run)
    domain = training_domain(run, adapter)
    domain.prepare(watch)
    _folds(run, domain)
    _first_step(domain, run)
    learner = new_learner(run, domain)
    step, slow = told(learner, lambda at: domain.batches(seed=run.seed, first_step=at), run.fit)
    facts, warnings = [*findings.facts, ("a step", step)], [*findings.warnings, *slow]
    return replace(findings, facts=facts, warnings=warnings)


def train(
    run: Run,
    adapter: Adapter,
    folder: Path,
    *,
    watch: Callable[[News], None] = lambda news: None,
    prepared: Watch = lambda what, done, total: None,
) -> Fitted:
    """Train in ``folder``, or go on where an earlier call of the same run was cut off.

    SIGINT and SIGTERM save a checkpoint and end the training cleanly.

    Raises:
        RunError: When ``folder`` holds a run of another config.
        DataError, TrainingError: As they say.
    """
    findings = adapter.check(run)
    if findings.problems:
        raise DataError.listing("the data of this run", findings.problems)
    for warning in findings.warnings:
        logger.warning(warning)
    run = adapter.resolve(run)
    _claim(folder, run, adapter)
    domain = training_domain(run, adapter)
    domain.prepare(prepared)
    _first_step(domain, run)
    learner = new_learner(run, domain)
    record_environment(folder, run.fit.accelerator, domain.files())

    if not _calibrated_by_folds(learner, run, adapter, domain, folder):
        return Fitted(step=0, finished=False)
    fabric = launch(run.fit)
    with asked_to_stop() as should_stop:
        return fit(
            learner,
            oversampling.batches(
                domain,
                learner.keep,
                seed=run.seed + fabric.global_rank,
                aloud=fabric.is_global_zero,
            ),
            run.fit,
            fabric,
            seed=run.seed,
            folder=folder,
            company=Company(
                validate=validation.validation(domain, learner),
                calibrate=validation.calibration(domain, run.method.source),
                watch=watch,
                should_stop=should_stop,
            ),
        )


def trained(folder: Path, adapter: Adapter) -> tuple[Domain, nn.Module]:
    """The domain of a run folder and its best predictor, on the fastest device at hand.

    Raises:
        RunError: When the folder holds no finished training.
    """
    found = restored(folder, adapter)
    return found.domain, found.learner.nets.predictor


def evaluate(
    folder: Path,
    adapter: Adapter,
    *,
    split: str = "test",
    otherwise: evaluation.Otherwise | None = None,
    output: Path | None = None,
    watch: Watch = lambda what, done, total: None,
) -> Path:
    """Measure the best checkpoint of a run on one split, and write its report.

    Args:
        folder: Of the run.
        adapter: Of its domain.
        split: labeled, unlabeled, validation or test.
        otherwise: Another way to predict, of :func:`common.together.otherwise`.
        output: A folder for this evaluation alone; by default the run folder.
        watch: Hears of progress.

    Returns:
        The path of ``report.html``.

    Raises:
        ConfigError: When there is no such split.
        DataError: When the split has no annotated case.
    """
    run, domain, learner = found = restored(folder, adapter)
    if split not in get_args(Split):
        raise ConfigError(f"--split {split}: choose one of {', '.join(get_args(Split))}.")
    if otherwise is not None and output is None:
        raise ConfigError(
            "an evaluation of other predictions than the run's own needs a folder of its own. "
            "Name it with --output."
        )
    target = folder if output is None else beside(folder, output)
    evaluation.evaluate(
        domain,
        otherwise or learner.nets.predictor,
        split=cast(Split, split),
        folder=target,
        trust=found.trust if run.method.needs_unlabeled else None,
        watch=watch,
        seed=run.seed,
    )
    return report.write_report(target)


def diagnose(
    folder: Path,
    adapter: Adapter,
    *,
    precision: float = diagnosis.PRECISION,
    watch: Watch = lambda what, done, total: None,
) -> Diagnosis:
    """Say what the pseudo-labels of a run are worth, and which thresholds reach ``precision``.

    Writes diagnosis.json and diagnosis.csv, and the report anew where the run was evaluated.

    Raises:
        ConfigError: When ``precision`` is no share.
        DataError: When there is no annotated case that taught nothing.
    """
    if not 0 < precision <= 1:
        raise ConfigError(f"--precision {precision:g}: give a share above 0, such as 0.95.")
    run, domain, learner = held = restored(folder, adapter)
    found = diagnosis.diagnose(
        domain,
        learner.nets.predictor,
        held.trust,
        precision=precision,
        seed=run.seed,
        watch=watch,
    )
    diagnosis.write_diagnosis(found, folder)
    if (folder / "evaluation.json").exists():
        report.write_report(folder)
    return found


def _calibrated_by_folds(
    learner: Learner, run: Run, adapter: Adapter, domain: Domain, folder: Path
) -> bool:
    """Set a filter that needs held-out cases, where none are named. False: asked to stop."""
    folds = _folds(run, domain)
    if not folds or (folder / "latest.ckpt").exists():
        return True
    found = []
    for number, fold in enumerate(folds):
        place = folder / "calibration" / f"fold-{number}"
        if not train(fold, adapter, place).finished:
            return False
        judge = validation.calibration(adapter.open(fold), run.method.source)
        assert judge is not None, "a fold validates on what it does not train on"
        found.append(judge(trained(place, adapter)[1]))
    assert isinstance(learner.keep, Calibrated)
    learner.keep.calibrate(pooled(found))
    return True


def _folds(run: Run, domain: Domain) -> list[Run]:
    """The runs that calibrate the filter of ``run``, where no case is named for that."""
    if not isinstance(run.method.filter, CalibratedFilter):
        return []
    if names_of(run.domain.splits, "validation"):
        return []
    return fold_runs(run, {case.id: case.group for case in domain.cases("labeled")})


def _first_step(domain: Domain, run: Run) -> None:
    """Take one step of a learner that is then thrown away."""
    batch = next(domain.batches(seed=run.seed, first_step=0))
    check_batch(batch, domain.task.channels, len(domain.task.classes))
    if run.method.needs_unlabeled and not batch.unlabeled.image.shape[0]:
        raise ConfigError(
            "domain.batch.unlabeled is 0, or no case is unlabeled, but this method learns from "
            "unlabeled images. Set it to 2 or more, or use --set method.name=supervised."
        )
    try:
        with torch.no_grad():
            new_learner(run, domain).train()(batch, 0.0)
    except (RuntimeError, ValueError) as error:
        if isinstance(error, SegSSLError):
            raise
        raise ConfigError(
            f"the first step failed: {' '.join(str(error).split())} Check that the network takes "
            f"batches of {tuple(batch.labeled.image.shape)}: domain.network, the size of its "
            "patches or tiles, and domain.batch."
        ) from error


def _claim(folder: Path, run: Run, adapter: Adapter) -> None:
    """Make ``folder`` the home of ``run``, or recognize that it already is."""
    held = folder / "run.yaml"
    if held.exists():
        changed = config.differences(load(held, adapter), run)
        if changed:
            raise RunError.listing(
                f"'{folder}' holds a run of another config, so training cannot go on there. "
                "Choose another --output, or remove the folder",
                changed,
            )
    folder.mkdir(parents=True, exist_ok=True)
    config.save(run, held)
