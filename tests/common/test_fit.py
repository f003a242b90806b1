"""The training loop: rates, sums of gradients, clipping, precision, and what it says."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from common import schedules
from common.batch import Batch, Labeled, Unlabeled
from common.clock import News
from common.errors import TrainingError
from common.fit import RATES, Company, FitSettings, Learner
from common.journal import read_log
from common.losses import CrossEntropy
from common.methods import CrossPseudo, FixMatch, MeanTeacher, Supervised
from tests.toy import StopAfter, ToyDomain, ToySettings, toy_fit

PLAIN = Supervised(supervised_loss=CrossEntropy())


class Plain(ToyDomain):
    """Without batch norm, so that the gradient of a sum is the sum of gradients."""

    def __init__(self, batches: list[Batch] | None = None) -> None:
        super().__init__(ToySettings(side=8))
        self.given, self.asked = batches, []

    def new_network(self, peer: int = 0) -> nn.Module:
        return nn.Conv2d(1, 2, 3, padding=1)

    def batches(self, *, seed: int, first_step: int) -> Iterator[Batch]:
        self.asked.append(first_step)
        if self.given is None:
            return super().batches(seed=seed, first_step=first_step)
        return iter(self.given[first_step:])


@pytest.fixture
def rates() -> Iterator[list[float]]:
    """The learning rate of every optimizer step, as the optimizer itself sees it."""
    seen: list[float] = []
    handle = register_optimizer_step_pre_hook(
        lambda optimizer, *_: seen.append(optimizer.param_groups[0]["lr"])
    )
    yield seen
    handle.remove()


def weights_of(learner: nn.Module) -> Tensor:
    return torch.cat([value.detach().flatten() for value in learner.parameters()])


@pytest.mark.parametrize("rate", RATES)
def test_the_rate_after_a_resume_is_the_rate_of_an_unbroken_run_f3(
    rate: str, tmp_path: Path, rates: list[float]
) -> None:
    settings = FitSettings(steps=10, rate=rate, warm_up=0.3, learning_rate=0.02)
    toy_fit(PLAIN, tmp_path / "unbroken", settings, domain=Plain())
    unbroken = [*rates]
    rates.clear()
    toy_fit(PLAIN, tmp_path / "cut", settings, domain=Plain(), company=stop(4))
    toy_fit(PLAIN, tmp_path / "cut", settings, domain=Plain())
    assert rates == unbroken
    assert unbroken == pytest.approx(
        [0.02 * RATES[rate](s / 10) * schedules.warm_up((s + 1) / 10, 0.3) for s in range(10)]
    )


def stop(steps: int) -> Company:
    return Company(should_stop=StopAfter(steps))


def test_after_a_resume_the_optimizer_moves_the_weights_of_the_learner_f3(tmp_path: Path) -> None:
    toy_fit(PLAIN, tmp_path, FitSettings(steps=6), domain=Plain(), company=stop(3))
    moved: list[Tensor] = []
    handle = register_optimizer_step_post_hook(
        lambda optimizer, *_: moved.extend(optimizer.param_groups[0]["params"])
    )
    learner, _ = toy_fit(PLAIN, tmp_path, FitSettings(steps=6), domain=Plain())
    handle.remove()
    assert {id(each) for each in moved} == {id(each) for each in learner.parameters()}


@pytest.mark.parametrize("method", [MeanTeacher(), CrossPseudo(), FixMatch()], ids=lambda m: m.name)
def test_one_step_is_one_update_whatever_the_number_of_losses_f8(
    method: Supervised, tmp_path: Path, rates: list[float]
) -> None:
    toy_fit(method, tmp_path, FitSettings(steps=5))
    assert len(rates) == 5


def test_the_first_step_moves_and_warm_up_is_a_straight_line(
    tmp_path: Path, rates: list[float]
) -> None:
    settings = FitSettings(steps=10, rate="constant", warm_up=0.4, learning_rate=1.0)
    toy_fit(PLAIN, tmp_path, settings, domain=Plain())
    assert rates == pytest.approx([0.25, 0.5, 0.75, *[1.0] * 7])


def parts(batch: Batch) -> list[Batch]:
    """A batch of four as two of two."""
    halves = zip(*[torch.chunk(each, 2) for part in batch for each in part], strict=True)
    return [Batch(Labeled(*each[:2]), Unlabeled(*each[2:])) for each in halves]


def test_accumulating_two_halves_is_one_step_on_the_whole(tmp_path: Path) -> None:
    domain = ToyDomain(ToySettings(side=8, batch={"labeled": 4, "unlabeled": 4}))
    whole = list(itertools.islice(domain.batches(seed=0, first_step=0), 3))
    halves = [half for batch in whole for half in parts(batch)]
    sgd = {"steps": 3, "optimizer": "sgd", "learning_rate": 0.5, "clip_norm": 0.01}
    one, _ = toy_fit(PLAIN, tmp_path / "one", FitSettings(**sgd), domain=Plain(whole))
    two, _ = toy_fit(
        PLAIN, tmp_path / "two", FitSettings(**sgd, accumulate=2), domain=Plain(halves)
    )
    torch.testing.assert_close(weights_of(one), weights_of(two), atol=1e-6, rtol=1e-5)


def test_a_resumed_run_that_accumulates_asks_for_the_right_batch(tmp_path: Path) -> None:
    domain = Plain()
    settings = FitSettings(steps=6, accumulate=3)
    toy_fit(PLAIN, tmp_path, settings, domain=domain, company=stop(4))
    toy_fit(PLAIN, tmp_path, settings, domain=domain)
    assert domain.asked == [0, 12]


@pytest.mark.parametrize("clip", [0.0, 0.01, 100.0])
def test_the_gradient_is_clipped_to_its_norm(clip: float, tmp_path: Path) -> None:
    settings = FitSettings(
        steps=1,
        optimizer="sgd",
        momentum=0,
        learning_rate=1,
        rate="constant",
        weight_decay=0,
        clip_norm=clip,
    )
    torch.manual_seed(0)
    before = Plain().new_network()
    learner, _ = toy_fit(PLAIN, tmp_path, settings, domain=Plain())
    batch = next(Plain().batches(seed=0, first_step=0))
    loss = nn.functional.cross_entropy(before(batch.labeled.image), batch.labeled.target)
    loss.backward()
    gradient = torch.cat([value.grad.flatten() for value in before.parameters()])
    step = weights_of(before) - weights_of(learner)
    expected = gradient * min(1, clip / float(gradient.norm())) if clip else gradient
    torch.testing.assert_close(step, expected, atol=1e-6, rtol=1e-4)


def test_sgd_has_nesterov_momentum_and_adamw_decays(tmp_path: Path) -> None:
    seen = {}
    handle = register_optimizer_step_pre_hook(
        lambda optimizer, *_: seen.update({type(optimizer).__name__: optimizer.param_groups[0]})
    )
    for name in ("sgd", "adamw"):
        settings = FitSettings(steps=1, optimizer=name, weight_decay=0.03, momentum=0.8)
        toy_fit(PLAIN, tmp_path / name, settings, domain=Plain())
    handle.remove()
    kinds = {name.lower().removeprefix("fabric"): group for name, group in seen.items()}
    assert kinds["sgd"]["momentum"] == 0.8
    assert kinds["sgd"]["nesterov"] is True
    assert {group["weight_decay"] for group in kinds.values()} == {0.03}


@pytest.mark.parametrize("method", [MeanTeacher(), CrossPseudo()], ids=lambda m: m.name)
def test_half_precision_trains_and_keeps_whole_weights(method: MeanTeacher, tmp_path: Path) -> None:
    learner, _ = toy_fit(method, tmp_path, FitSettings(steps=4, precision="bf16-mixed"))
    assert {value.dtype for value in learner.parameters()} == {torch.float32}
    assert weights_of(learner).isfinite().all()
    assert (tmp_path / "best.ckpt").exists()


class Turns(Plain):
    """Sound until a step, then not a number."""

    def __init__(self, bad_step: int) -> None:
        super().__init__()
        self.bad_step = bad_step

    def batches(self, *, seed: int, first_step: int) -> Iterator[Batch]:
        for step, batch in enumerate(super().batches(seed=seed, first_step=first_step), first_step):
            broken = batch.labeled.image * (math.nan if step >= self.bad_step else 1)
            yield batch._replace(labeled=batch.labeled._replace(image=broken))


@pytest.mark.parametrize("bad_step", [5, 6, 9])
def test_a_loss_that_is_no_number_ends_the_run_and_spares_the_checkpoint(
    bad_step: int, tmp_path: Path
) -> None:
    settings = FitSettings(steps=20, save_every=5, log_every=3)
    with pytest.raises(TrainingError) as error:
        toy_fit(PLAIN, tmp_path, settings, domain=Turns(bad_step))
    noticed = min(s for s in range(bad_step + 1, 21) if s % 3 == 0 or s % 5 == 0)
    assert str(error.value) == (
        f"loss/supervised, loss/total is not finite at step {noticed}: training has "
        "diverged. The last checkpoint is from before. Lower fit.learning_rate, or set "
        "fit.clip_norm above 0."
    )
    state = torch.load(tmp_path / "latest.ckpt", weights_only=True)
    assert state["step"] == 5
    assert all(value.isfinite().all() for value in state["model"].values())


class Cliff(nn.Module):
    """Finite values whose gradient is not."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.edge = nn.Conv2d(1, 2, 3, padding=1), nn.Parameter(torch.zeros(()))

    def forward(self, image: Tensor) -> Tensor:
        return self.conv(image) + self.edge.abs().sqrt()


class Steep(Plain):
    def new_network(self, peer: int = 0) -> nn.Module:
        return Cliff()


def test_weights_that_are_no_numbers_are_never_saved_though_the_loss_still_is_one(
    tmp_path: Path,
) -> None:
    with pytest.raises(TrainingError, match=r"^a weight is not finite at step 1: "):
        toy_fit(PLAIN, tmp_path, FitSettings(steps=3, save_every=1), domain=Steep())
    assert not [*tmp_path.glob("*.ckpt")]


def test_watchers_and_the_log_hear_at_log_steps_saves_and_the_end(tmp_path: Path) -> None:
    heard: list[News] = []
    settings = FitSettings(steps=11, log_every=4, save_every=6)
    toy_fit(MeanTeacher(), tmp_path, settings, company=Company(watch=heard.append))
    assert [news.step for news in heard] == [4, 6, 8, 11]
    assert {news.steps for news in heard} == {11}
    assert heard[-1].seconds_left == 0
    assert all(news.images_per_second > 0 and "coverage" in news.values for news in heard)
    logged = read_log(tmp_path / "log.csv")
    assert [step for step, name, _ in logged if name == "loss/total"] == [4, 6, 8, 11]


def test_a_finished_run_is_left_as_it_is(tmp_path: Path) -> None:
    settings = FitSettings(steps=3)
    first, _ = toy_fit(PLAIN, tmp_path, settings, domain=Plain())
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.ckpt")}
    again, fitted = toy_fit(PLAIN, tmp_path, settings, domain=Plain())
    assert fitted.finished
    assert torch.equal(weights_of(first), weights_of(again))
    assert before == {path.name: path.read_bytes() for path in tmp_path.glob("*.ckpt")}


def test_a_share_of_the_labeled_images_learns_in_its_strong_view() -> None:
    seen: list[torch.Tensor] = []

    class Looking(Plain):
        def strong(self, image: torch.Tensor) -> torch.Tensor:
            return image + 100

    domain = Looking()
    batch = next(domain.batches(seed=0, first_step=0))
    many = batch.labeled._replace(
        image=batch.labeled.image.repeat(50, *[1] * (batch.labeled.image.ndim - 1)),
        target=batch.labeled.target.repeat(50, *[1] * (batch.labeled.target.ndim - 1)),
    )
    for share in (0.0, 0.5, 1.0):
        learner = Learner(PLAIN.model_copy(update={"strong_labeled": share}), domain)
        learner.nets.student.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        learner(batch._replace(labeled=many), 0.5)
        moved = (seen[-1] - many.image).flatten(1)
        assert ((moved == 0).all(dim=1) | (moved > 99).all(dim=1)).all()
        assert float((moved > 99).all(dim=1).float().mean()) == pytest.approx(share, abs=0.15)
