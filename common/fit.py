"""The training loop, all of it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from common import checkpoints, schedules
from common.batch import Batch
from common.calibration import HeldOut
from common.clock import Clock, News
from common.domain import Domain
from common.errors import ConfigError, TrainingError
from common.filters import Calibrated, SeesLabels
from common.journal import Journal
from common.labeling import as_guessed, some_strong
from common.meter import Meter
from common.methods import Kit, Method, Outcome
from common.refiners import chained
from common.settings import Count, Fraction, NonNegative, Positive, PositiveReal, Settings

RATES: Mapping[str, Callable[[float], float]] = {
    "poly": schedules.poly,
    "cosine": schedules.cosine,
    "one_cycle": schedules.one_cycle,
    "constant": schedules.constant,
}

CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


class FitSettings(Settings):
    """How long, how fast, and on what."""

    steps: Positive
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: PositiveReal = 1e-3
    rate: Literal["poly", "cosine", "one_cycle", "constant"] = "poly"
    warm_up: Fraction = 0.0  # share of the steps over which the rate rises from 0
    weight_decay: NonNegative = 1e-4
    momentum: Fraction = 0.9  # sgd only
    clip_norm: NonNegative = 1.0  # 0 leaves gradients as they are
    accumulate: Positive = 1  # batches per optimizer step
    validate_every: Count = 0  # 0 validates at the end only
    save_every: Positive = 200
    log_every: Positive = 20
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    accelerator: str = "auto"
    devices: Positive = 1


class Learner(nn.Module):
    """A method with the networks it trains: what is wrapped, stepped and saved."""

    def __init__(self, method: Method, domain: Domain) -> None:
        super().__init__()
        self.method = method
        self.num_classes = len(domain.task.classes)
        self.nets = method.networks(domain.new_network)
        self.keep = method.filter.start(self.num_classes)
        refine = chained(method.refiners, lambda: domain.pixel) if method.refiners else as_guessed
        self.kit = Kit(
            strong=functools.partial(_in_full_precision, domain.strong),
            ask=functools.partial(method.source, mirrors=domain.mirrors),
            keep=self.keep,
            refine=refine,
        )
        if problem := method.source.unfit(self.nets, domain.mirrors):
            raise ConfigError(f"method.source: {problem}")
        for weights in self.nets.parameters():  # 1.1 to 1.6 times as fast
            if layout := CHANNELS_LAST.get(weights.ndim):
                weights.data = weights.data.contiguous(memory_format=layout)

    def forward(self, batch: Batch, progress: float) -> Outcome:
        if self.training:
            for each in self.keep.modules():
                if isinstance(each, SeesLabels):
                    each.see(batch.labeled.target)
        kit = self.kit._replace(keep=functools.partial(self.keep, progress=progress))
        share = schedules.value_at(self.method.strong_labeled, progress)
        image = some_strong(kit.strong, batch.labeled.image, share)
        batch = batch._replace(labeled=batch.labeled._replace(image=image))
        return self.method.losses(self.nets, batch, kit, progress)


class Validation(NamedTuple):
    """How good a predictor is: ``score`` (larger is better), and all it was made of."""

    score: float
    values: dict[str, float]


class Fitted(NamedTuple):
    """Where a fit ended."""

    step: int
    finished: bool  # False where it was asked to stop before the last step


@dataclass(frozen=True)
class Company:
    """Who listens to a fit and may speak to it."""

    # Of a predictor, and the progress of the training; None: the last weights are best
    validate: Callable[[nn.Module, float], Validation] | None = None
    calibrate: Callable[[nn.Module], HeldOut] | None = None  # None: no case is held out
    watch: Callable[[News], None] = lambda news: None
    should_stop: Callable[[], bool] = lambda: False


def launch(settings: FitSettings) -> Fabric:
    """The devices, processes and precision that ``settings`` ask for."""
    fabric = Fabric(
        accelerator=settings.accelerator, devices=settings.devices, precision=settings.precision
    )
    fabric.launch()
    return fabric


def fit(
    learner: Learner,
    batches: Callable[[int], Iterator[Batch]],
    settings: FitSettings,
    fabric: Fabric,
    *,
    seed: int,
    folder: Path,
    company: Company = Company(),
) -> Fitted:
    """Train until ``settings.steps``, going on from ``folder/latest.ckpt`` where there is one.

    Writes ``latest.ckpt`` and ``best.ckpt`` (each whole or not at all), ``log.csv`` and events.
    The weights are a function of the settings, the data and ``seed``: stopping and going on
    changes no bit of them on a CPU.

    Args:
        learner: Networks already initialized.
        batches: From the first step wanted to all from there on, as the learner then stands.

    Raises:
        TrainingError: When a loss is not finite; the checkpoint before it is kept.
        RunError: When a checkpoint cannot be written, or the latest one not be read.
    """
    optimizer = _optimizer(learner, settings)
    model, optimizer = fabric.setup(learner, optimizer)
    state = {"model": model, "optimizer": optimizer, "step": 0, "best": -math.inf}
    latest, best = folder / "latest.ckpt", folder / "best.ckpt"
    checkpoints.resume(fabric, latest, state)

    first = state["step"]
    journal = Journal(folder, first) if fabric.is_global_zero else None
    stream = batches(first * settings.accumulate)
    meter, clock = Meter(learner.num_classes), Clock(first, settings.steps)
    model.train()
    for step in range(first, settings.steps):
        torch.manual_seed(_seed_of(seed, step, fabric.global_rank))
        progress = step / settings.steps
        _set_rate(optimizer, settings, progress)

        for micro in range(settings.accumulate):
            batch = fabric.to_device(next(stream))
            last = micro == settings.accumulate - 1
            with fabric.no_backward_sync(model, enabled=not last):
                outcome: Outcome = model(batch, progress)
                loss = torch.stack(list(outcome.losses.values())).sum()
                fabric.backward(loss / settings.accumulate)
            meter.see(outcome, batch)
            clock.see(batch)
        if settings.clip_norm:
            fabric.clip_gradients(
                model, optimizer, max_norm=settings.clip_norm, error_if_nonfinite=False
            )
        optimizer.step()
        optimizer.zero_grad()
        learner.nets.after_step(step, progress)

        state["step"] = done = step + 1
        over, told = done == settings.steps, done % settings.log_every == 0
        # Processes agree before any of them waits for the others; that takes a moment.
        agreed = told or fabric.world_size == 1
        stopping = agreed and fabric.broadcast(company.should_stop())
        if stopping or over or told or done % settings.save_every == 0:
            _tell(journal, company, clock, done, _finite(meter.flush(), learner, step=done))
        if _recalibrate(learner, company, fabric, done=done) and not over:
            stream = batches(done * settings.accumulate)
        if over or (settings.validate_every and done % settings.validate_every == 0):
            if fabric.broadcast(_validated(learner, company, journal, state, progress)):
                checkpoints.save(fabric, best, state)
            model.train()
        if stopping or over or done % settings.save_every == 0:
            checkpoints.save(fabric, latest, state)
        if stopping:
            break
    if journal is not None:
        journal.close()
    return Fitted(step=state["step"], finished=state["step"] == settings.steps)


def _in_full_precision(strong: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
    with torch.no_grad(), torch.autocast(image.device.type, enabled=False):
        return strong(image)


def _optimizer(learner: Learner, settings: FitSettings) -> torch.optim.Optimizer:
    learned = [each for each in learner.parameters() if each.requires_grad]
    common: dict[str, Any] = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}
    if settings.optimizer == "sgd":
        nesterov = settings.momentum > 0
        return torch.optim.SGD(learned, momentum=settings.momentum, nesterov=nesterov, **common)
    return torch.optim.AdamW(learned, fused=True, **common)


def _set_rate(optimizer: Any, settings: FitSettings, progress: float) -> None:  # noqa: ANN401
    factor = RATES[settings.rate](progress)
    if settings.warm_up > 0:
        first = 1 / settings.steps  # step 0 must move, too
        factor *= schedules.warm_up(progress + first, settings.warm_up)
    for group in optimizer.param_groups:
        group["lr"] = settings.learning_rate * factor


def _seed_of(seed: int, step: int, rank: int) -> int:
    return (seed * 1_000_003 + step) * 1_009 + rank


def _finite(values: dict[str, float], learner: Learner, *, step: int) -> dict[str, float]:
    broken = [name for name, value in values.items() if not math.isfinite(value)]
    if not torch.stack(torch._foreach_norm([*learner.parameters()])).isfinite().all():
        broken = broken or ["a weight"]  # a finite loss may have had an infinite gradient
    if broken:
        raise TrainingError(
            f"{', '.join(broken)} is not finite at step {step}: training has diverged. The last "
            "checkpoint is from before. Lower fit.learning_rate, or set fit.clip_norm above 0."
        )
    return values


def _tell(
    journal: Journal | None, company: Company, clock: Clock, step: int, values: dict[str, float]
) -> None:
    if journal is None:
        return
    journal.write(step, values)
    company.watch(clock.news(step, values))


def _recalibrate(learner: Learner, company: Company, fabric: Fabric, *, done: int) -> bool:
    """Set a filter anew that is set by held-out cases, where it is time.

    Returns:
        Whether that can change how often labeled cases are seen.
    """
    keep = learner.keep
    if not isinstance(keep, Calibrated) or company.calibrate is None or done % keep.filter.every:
        return False
    learner.eval()
    # Running statistics differ between processes until the next step: one speaks for all.
    keep.calibrate(fabric.broadcast(company.calibrate(learner.nets.predictor)))
    learner.train()
    return keep.confusion is not None


def _validated(
    learner: Learner,
    company: Company,
    journal: Journal | None,
    state: dict[str, Any],
    progress: float,
) -> bool:
    """Whether the predictor is the best so far; without validation cases it always is."""
    if company.validate is None:
        return True
    learner.eval()
    validation = company.validate(learner.nets.predictor, progress)
    if journal is not None:
        journal.write(state["step"], validation.values)
    best: float = state["best"]
    score = -math.inf if math.isnan(validation.score) else validation.score
    state["best"] = max(score, best)
    return score > best or best == -math.inf  # any checkpoint is better than none
