"""Cut off anywhere and started again, a run ends where an unbroken one does."""

from __future__ import annotations

import math
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from lightning.fabric import Fabric
from torch import nn

from common import checkpoints
from common.errors import RunError
from common.fit import Company, FitSettings, Learner, Validation
from common.journal import read_log
from common.methods import CrossPseudo, FixMatch, MeanTeacher, Supervised
from tests.toy import StopAfter, ToyDomain, ToySettings, toy_fit

ROOT = Path(__file__).parents[2]


def saved(path: Path) -> dict[str, object]:
    return torch.load(path, weights_only=True)


def same_weights(a: Path, b: Path) -> bool:
    one, other = saved(a)["model"], saved(b)["model"]
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


class Judge:
    """Gives the scores it was told to, and remembers whom it judged."""

    def __init__(self, *scores: float) -> None:
        self.scores, self.seen = list(scores), []

    def __call__(self, predictor: nn.Module, progress: float) -> Validation:
        layers = [part for part in predictor.modules() if not [*part.children()]]
        assert layers
        assert not any(layer.training for layer in layers)
        self.seen.append({name: v.clone() for name, v in predictor.state_dict().items()})
        score = self.scores[len(self.seen) - 1]
        return Validation(score, {"validation/dice/disc": score})


def test_a_request_to_stop_saves_and_says_so(tmp_path: Path) -> None:
    settings = FitSettings(steps=9, save_every=100)
    _, fitted = toy_fit(
        MeanTeacher(), tmp_path, settings, company=Company(should_stop=StopAfter(4))
    )
    assert fitted == (4, False)
    assert saved(tmp_path / "latest.ckpt")["step"] == 4
    assert not (tmp_path / "best.ckpt").exists()
    _, fitted = toy_fit(MeanTeacher(), tmp_path, settings)
    assert fitted == (9, True)
    assert saved(tmp_path / "best.ckpt")["step"] == 9


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_stopped_at_every_step_a_run_still_ends_bit_for_bit_the_same(
    optimizer: str, tmp_path: Path
) -> None:
    settings = FitSettings(steps=6, optimizer=optimizer, accumulate=2, warm_up=0.5)
    toy_fit(MeanTeacher(), tmp_path / "unbroken", settings)
    for _ in range(6):
        company = Company(should_stop=StopAfter(1))
        toy_fit(MeanTeacher(), tmp_path / "broken", settings, company=company)
    unbroken, broken = (tmp_path / each / "latest.ckpt" for each in ("unbroken", "broken"))
    assert same_weights(unbroken, broken)
    first, second = (saved(each)["optimizer"]["state"] for each in (unbroken, broken))
    for key, state in first.items():
        assert all(torch.equal(value, second[key][name]) for name, value in state.items())


def test_the_best_score_survives_a_resume_f4(tmp_path: Path) -> None:
    settings = FitSettings(steps=8, validate_every=2, save_every=2)
    company = Company(validate=Judge(0.5, 0.9), should_stop=StopAfter(4))
    toy_fit(Supervised(), tmp_path, settings, company=company)
    assert saved(tmp_path / "latest.ckpt")["best"] == 0.9
    assert saved(tmp_path / "best.ckpt")["best"] == 0.9
    toy_fit(Supervised(), tmp_path, settings, company=Company(validate=Judge(0.6, 0.9)))
    assert saved(tmp_path / "best.ckpt")["step"] == 4  # neither less nor as good replaces it
    assert saved(tmp_path / "latest.ckpt")["best"] == 0.9


@pytest.mark.parametrize(
    "method",
    [MeanTeacher(), CrossPseudo(), FixMatch(teacher_decay=0.9), Supervised()],
    ids=lambda method: method.name,
)
def test_the_best_checkpoint_holds_the_very_predictor_that_was_judged_f15(
    method: MeanTeacher, tmp_path: Path
) -> None:
    judge = Judge(0.2, 0.8, 0.4)
    settings = FitSettings(steps=6, validate_every=2, learning_rate=0.05)
    toy_fit(method, tmp_path, settings, company=Company(validate=judge))
    learner = Learner(method, ToyDomain(ToySettings(side=8)))
    learner.load_state_dict(saved(tmp_path / "best.ckpt")["model"])
    reported = learner.nets.predictor.state_dict()
    assert all(torch.equal(value, judge.seen[1][name]) for name, value in reported.items())
    assert not all(torch.equal(value, judge.seen[2][name]) for name, value in reported.items())


@pytest.mark.parametrize(
    ("scores", "best"),
    [((math.nan, 0.3, 0.2), 4), ((0.3, math.nan, 0.2), 2), ((math.nan,) * 3, 6)],
)
def test_a_score_that_is_no_number_is_never_the_best(
    scores: tuple[float, ...], best: int, tmp_path: Path
) -> None:
    settings = FitSettings(steps=6, validate_every=2)
    toy_fit(Supervised(), tmp_path, settings, company=Company(validate=Judge(*scores)))
    assert saved(tmp_path / "best.ckpt")["step"] == best


def test_validation_leaves_training_as_it_was(tmp_path: Path) -> None:
    settings = FitSettings(steps=6, validate_every=2)
    toy_fit(MeanTeacher(), tmp_path / "with", settings, company=Company(validate=Judge(1, 2, 3)))
    toy_fit(MeanTeacher(), tmp_path / "without", settings)
    assert same_weights(tmp_path / "with" / "latest.ckpt", tmp_path / "without" / "latest.ckpt")
    scores = [r for r in read_log(tmp_path / "with" / "log.csv") if r[1].startswith("validation")]
    assert scores == [
        (2, "validation/dice/disc", 1),
        (4, "validation/dice/disc", 2),
        (6, *scores[2][1:]),
    ]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("torn")])
def test_a_checkpoint_is_whole_or_not_at_all(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = FitSettings(steps=6, save_every=2)
    toy_fit(Supervised(), tmp_path, settings, company=Company(should_stop=StopAfter(2)))
    before = (tmp_path / "latest.ckpt").read_bytes()

    def half_a_save(self: Fabric, path: Path, state: object) -> None:
        Path(path).write_bytes(before[: len(before) // 2])
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(Fabric, "save", half_a_save)
        with pytest.raises(RunError) as raised:
            toy_fit(Supervised(), tmp_path, settings)
    assert str(raised.value) == (
        f"'{tmp_path / 'latest.ckpt'}' could not be written at step 4: {error}. Make room on the "
        "disk and run the same command again; it goes on from the checkpoint before."
    )
    assert (tmp_path / "latest.ckpt").read_bytes() == before
    assert not [*tmp_path.glob("*.tmp")]
    assert toy_fit(Supervised(), tmp_path, settings)[1].finished


class Trap:
    """Would leave a mark if anything in a checkpoint were executed."""

    def __reduce__(self) -> tuple[object, ...]:
        return (os.putenv, ("SEG_SSL_TRAPPED", "yes"))


def test_a_checkpoint_never_executes_anything(tmp_path: Path) -> None:
    torch.save({"model": Trap(), "step": 1}, tmp_path / "latest.ckpt")
    with pytest.raises(RunError, match=r"cannot be read as a checkpoint.*Weights only load failed"):
        toy_fit(Supervised(), tmp_path, FitSettings(steps=2))


SCRIPT = """
    import sys
    from pathlib import Path

    import torch

    torch.set_num_threads(1)
    sys.path.insert(0, {root!r})
    from common.fit import FitSettings
    from common.methods import CrossPseudo
    from tests.toy import toy_fit

    toy_fit(CrossPseudo(), Path(sys.argv[1]), FitSettings(steps=40, save_every=3, log_every=1))
"""


def test_a_run_killed_at_a_random_step_ends_bit_for_bit_where_an_unbroken_one_does(
    tmp_path: Path,
) -> None:
    script = tmp_path / "train.py"
    script.write_text(textwrap.dedent(SCRIPT.format(root=str(ROOT))))
    killed, unbroken = tmp_path / "killed", tmp_path / "unbroken"
    step = random.randrange(1, 30)
    process = subprocess.Popen([sys.executable, str(script), str(killed)])
    deadline = time.monotonic() + 120
    while not any(row[0] >= step for row in read_log(killed / "log.csv")):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    reached = max(row[0] for row in read_log(killed / "log.csv"))
    assert reached < 40, "killed too late to prove anything"

    settings = FitSettings(steps=40, save_every=3, log_every=1)
    assert toy_fit(CrossPseudo(), killed, settings)[1].finished
    toy_fit(CrossPseudo(), unbroken, settings)
    message = f"killed after step {reached}"
    assert same_weights(killed / "best.ckpt", unbroken / "best.ckpt"), message
    assert read_log(killed / "log.csv") == read_log(unbroken / "log.csv"), message


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 torn"])
def test_a_torn_checkpoint_is_told_in_words_and_stays_where_it_is(
    tmp_path: Path, content: bytes
) -> None:
    torn = tmp_path / "latest.ckpt"
    torn.write_bytes(content)
    with pytest.raises(RunError, match=r"latest.ckpt' cannot be read as a checkpoint.*remove it"):
        checkpoints.resume(Fabric(accelerator="cpu", devices=1), torn, {"step": 0})
    with pytest.raises(RunError, match=r"cannot be read as a checkpoint.*train again"):
        checkpoints.weights(torn)
    assert torn.read_bytes() == content
