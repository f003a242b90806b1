"""Every method, in two and in three dimensions, keeps the same promises."""

from __future__ import annotations

import typing
from pathlib import Path

import pytest
import torch
from lightning.fabric import Fabric

from common.evaluate import validation
from common.fit import Company, FitSettings, Learner, fit
from common.methods import AnyMethod, Method
from common.mixing import CutMix
from tests.toy import ToyDomain, ToySettings

METHODS = typing.get_args(typing.get_args(AnyMethod)[0])
MIXED = [m(mix=CutMix()) for m in METHODS if "mix" in m.model_fields]


@pytest.fixture(params=[2, 3], ids=["tiles", "volumes"])
def domain(request: pytest.FixtureRequest) -> ToyDomain:
    return ToyDomain(ToySettings(dims=request.param, side=16 if request.param == 2 else 12))


@pytest.fixture(
    params=[*(m() for m in METHODS), *MIXED],
    ids=lambda m: m.name + ("+cutmix" if m in MIXED else ""),
)
def method(request: pytest.FixtureRequest) -> Method:
    return request.param


def cpu() -> Fabric:
    return Fabric(accelerator="cpu", devices=1)


def train(method: Method, domain: ToyDomain, folder: Path, settings: FitSettings, stop_at=None):
    torch.manual_seed(0)
    learner = Learner(method, domain)
    seen = []

    def should_stop() -> bool:
        seen.append(1)
        return stop_at is not None and len(seen) >= stop_at

    fit(
        learner,
        lambda first: domain.batches(seed=0, first_step=first),
        settings,
        cpu(),
        seed=0,
        folder=folder,
        company=Company(should_stop=should_stop),
    )
    return learner


def test_it_learns_discs(domain: ToyDomain, method: Method, tmp_path: Path) -> None:
    learner = train(method, domain, tmp_path, FitSettings(steps=80, learning_rate=0.02))
    learner.eval()
    assert validation(domain)(learner.nets.predictor).score > 0.7


def test_no_gradient_reaches_the_pseudo_label(domain: ToyDomain, method: Method) -> None:
    outcome = Learner(method, domain)(next(domain.batches(seed=0, first_step=0)), 0.5)
    if outcome.pseudo is None:
        assert not method.needs_unlabeled
    else:
        assert not any(part.requires_grad for part in outcome.pseudo)


def test_every_loss_term_teaches(domain: ToyDomain, method: Method) -> None:
    if "filter" in method.model_fields_set or method.name == "fixmatch":
        method = method.model_copy(update={"filter": type(method.filter)(threshold=0.0)})
    learner = Learner(method, domain)
    outcome = learner(next(domain.batches(seed=0, first_step=0)), 1.0)
    for name, loss in outcome.losses.items():
        learner.zero_grad()
        loss.backward(retain_graph=True)
        gradients = [p.grad for p in learner.parameters() if p.grad is not None]
        assert any(g.abs().sum() > 0 for g in gradients), name


def test_nothing_valid_means_nothing_taught(domain: ToyDomain, method: Method) -> None:
    batch = next(domain.batches(seed=0, first_step=0))
    void = torch.zeros_like(batch.unlabeled.valid)
    batch = batch._replace(unlabeled=batch.unlabeled._replace(valid=void))
    losses = dict(Learner(method, domain)(batch, 1.0).losses)
    losses.pop("supervised")
    assert all(value == 0 for value in losses.values())


def test_a_stopped_run_ends_where_an_unbroken_one_does(
    domain: ToyDomain, method: Method, tmp_path: Path
) -> None:
    settings = FitSettings(steps=10, save_every=5, log_every=5)
    (tmp_path / "unbroken").mkdir()
    (tmp_path / "stopped").mkdir()
    unbroken = train(method, domain, tmp_path / "unbroken", settings)
    train(method, domain, tmp_path / "stopped", settings, stop_at=7)
    resumed = train(method, domain, tmp_path / "stopped", settings)
    for a, b in zip(unbroken.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    logs = [(tmp_path / each / "log.csv").read_text() for each in ("unbroken", "stopped")]
    assert all(log.count("10,loss/total,") == 1 for log in logs)
