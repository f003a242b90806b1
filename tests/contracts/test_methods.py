"""Every method, in two and in three dimensions, keeps the same promises."""

from __future__ import annotations

import functools
import typing
from pathlib import Path

import pytest
import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from common.batch import Batch
from common.domain import Task
from common.filters import All
from common.filters.base import Filter
from common.fit import Company, FitSettings, Learner, fit
from common.methods import AnyMethod, Method, Outcome
from common.mixing import ClassMix, CutMix
from common.validation import validation
from tests.toy import Net, ToyDomain, ToySettings

METHODS = typing.get_args(typing.get_args(AnyMethod)[0])
PLAIN = [m() for m in METHODS]
MIXED = [
    mixed
    for kind in METHODS
    if "mix" in kind.model_fields
    for mix in (CutMix, ClassMix)
    if (mixed := kind(mix=mix())) not in PLAIN
]


def discs(dims: int, norm: str) -> ToyDomain:
    return ToyDomain(ToySettings(dims=dims, side={2: 16, 3: 8}[dims], norm=norm))


@pytest.fixture(params=[(2, "batch"), (3, "instance")], ids=["tiles", "volumes"])
def domain(request: pytest.FixtureRequest) -> ToyDomain:
    return discs(*request.param)


@pytest.fixture(
    params=[*PLAIN, *MIXED], ids=lambda m: m.name + (f"+{m.mix.name}" if m in MIXED else "")
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


@pytest.mark.parametrize(
    ("dims", "norm"),
    [
        (2, "batch"),
        (3, "instance"),
        pytest.param(2, "group", marks=pytest.mark.slow),
        pytest.param(3, "batch", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("plain", PLAIN, ids=lambda m: m.name)
def test_it_learns_discs(dims: int, norm: str, plain: Method, tmp_path: Path) -> None:
    domain = discs(dims, norm)
    learner = train(plain, domain, tmp_path, FitSettings(steps=80, learning_rate=0.02))
    learner.eval()
    assert validation(domain)(learner.nets.predictor, 1.0).score > 0.7


def test_no_gradient_reaches_the_pseudo_label(domain: ToyDomain, method: Method) -> None:
    outcome = Learner(method, domain)(next(domain.batches(seed=0, first_step=0)), 0.5)
    if outcome.pseudo is None:
        assert not method.needs_unlabeled
    else:
        assert not any(part.requires_grad for part in outcome.pseudo)


def learning_from_all(method: Method) -> Method:
    """``method`` with filters that keep every pixel, so that each of its parts has a say."""
    filters = [name for name, value in method if isinstance(value, Filter)]
    return method.model_copy(update=dict.fromkeys(filters, All()))


def test_every_loss_term_teaches(domain: ToyDomain, method: Method) -> None:
    learner = Learner(learning_from_all(method), domain)
    outcome = learner(next(domain.batches(seed=0, first_step=0)), 1.0)
    for name, loss in outcome.losses.items():
        learner.zero_grad()
        loss.backward(retain_graph=True)
        gradients = [p.grad for p in learner.parameters() if p.grad is not None]
        assert any(g.abs().sum() > 0 for g in gradients), name


def of_unlabeled(outcome: Outcome) -> dict[str, Tensor]:
    """The terms that unlabeled images teach: a term of labeled ones alone is called so."""
    return {k: v for k, v in outcome.losses.items() if not k.startswith("supervised")}


def test_the_unlabeled_loss_looks_at_the_strong_view_f2(domain: ToyDomain, method: Method) -> None:
    if not method.needs_unlabeled:
        return
    learner = Learner(learning_from_all(method), domain)
    batch = next(domain.batches(seed=0, first_step=0))
    values, looked = [], []

    def strong(image: Tensor, factor: float) -> Tensor:
        looked.append(factor)
        return image * factor

    for factor in (1.0, -2.0):
        torch.manual_seed(0)
        kit = learner.kit._replace(strong=functools.partial(strong, factor=factor))
        outcome = learner.method.losses(learner.nets, batch, kit, 1.0)
        values.append(sum(of_unlabeled(outcome).values()))
    assert looked == [] or values[0] != values[1]


def test_every_weight_that_learns_gets_a_gradient_in_every_step(
    domain: ToyDomain, method: Method
) -> None:
    learner = Learner(method, domain)  # or several processes would wait for one another
    for progress in (0.0, 0.5, 1.0):
        learner.zero_grad()
        outcome = learner(next(domain.batches(seed=0, first_step=0)), progress)
        torch.stack([*outcome.losses.values()]).sum().backward()
        silent = [n for n, p in learner.named_parameters() if p.requires_grad and p.grad is None]
        assert silent == []


def test_any_number_of_classes_will_do_f10(domain: ToyDomain, method: Method) -> None:
    class More(ToyDomain):
        def new_network(self, peer: int = 0) -> nn.Module:
            return Net(self.settings.dims, 1, 7)

    more = More(domain.settings)
    more.task = Task(channels=1, classes=tuple("abcdefg"), colors=((0, 0, 0),) * 7)
    batch = next(more.batches(seed=0, first_step=0))
    outcome = Learner(learning_from_all(method), more)(batch, 0.5)
    assert all(loss.isfinite() for loss in outcome.losses.values())


def test_a_step_waits_for_no_device(domain: ToyDomain, method: Method) -> None:
    batch = next(domain.batches(seed=0, first_step=0))
    learner = Learner(method, domain).to("meta")  # a value asked of a tensor would raise
    away = Batch(*(type(part)(*(each.to("meta") for each in part)) for part in batch))
    kit = learner.kit._replace(strong=domain.strong)
    outcome = method.losses(learner.nets, away, kit, 0.5)
    torch.stack([*outcome.losses.values()]).sum().backward()
    learner.nets.after_step(3)


def test_what_is_taught_is_recorded_before_mixing(domain: ToyDomain, method: Method) -> None:
    batch = next(domain.batches(seed=0, first_step=0))
    learner = Learner(learning_from_all(method), domain)
    pseudo = learner(batch, 0.5).pseudo
    if pseudo is not None:
        assert torch.equal(pseudo.weight > 0, batch.unlabeled.valid)  # trust may be less than full


def test_nothing_valid_means_nothing_taught(domain: ToyDomain, method: Method) -> None:
    batch = next(domain.batches(seed=0, first_step=0))
    void = torch.zeros_like(batch.unlabeled.valid)
    batch = batch._replace(unlabeled=batch.unlabeled._replace(valid=void))
    for progress in (0.0, 0.5, 1.0):
        losses = of_unlabeled(Learner(method, domain)(batch, progress))
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


def said(domain: ToyDomain, label: int) -> Batch:
    """A batch whose weak labels leave ``label`` to the left half of every unlabeled image."""
    batch = next(domain.batches(seed=0, first_step=0))
    weak = batch.unlabeled
    possible = weak.possible.expand(-1, -1, *weak.valid.shape[1:]).clone()
    half = possible.shape[2] // 2
    possible[:, :, :half] = False
    possible[:, label, :half] = True
    return batch._replace(unlabeled=weak._replace(possible=possible))


@pytest.mark.parametrize("label", [0, 1])
def test_a_pseudo_label_is_one_of_the_classes_that_weak_labels_leave(
    method: Method, domain: ToyDomain, label: int
) -> None:
    if not method.makes_pseudo_labels:
        return
    torch.manual_seed(0)
    batch = said(domain, label)
    pseudo = Learner(method, domain)(batch, 1.0).pseudo
    told = pseudo.predicted[:, : pseudo.predicted.shape[1] // 2]
    assert (told == label).all()


def test_no_weak_label_is_the_same_as_one_that_leaves_every_class(
    method: Method, domain: ToyDomain
) -> None:
    batch = next(domain.batches(seed=0, first_step=0))
    weak = batch.unlabeled
    dense = weak._replace(possible=weak.possible.expand(-1, -1, *weak.valid.shape[1:]).clone())
    outcomes = []
    for unlabeled in (weak, dense):
        torch.manual_seed(0)
        learner = Learner(method, domain)
        torch.manual_seed(1)
        outcomes.append(learner(batch._replace(unlabeled=unlabeled), 0.5).losses)
    for name, loss in outcomes[0].items():
        assert torch.equal(loss, outcomes[1][name]), name
