"""Two processes train one network, and part with nothing but their batches."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import typing
from pathlib import Path

import pytest
import torch

from common.journal import read_log
from common.methods import AnyMethod

METHODS = typing.get_args(AnyMethod)[0]

SCRIPT = """
    import sys
    from pathlib import Path

    import torch

    torch.set_num_threads(1)
    sys.path.insert(0, {root!r})
    from common.fit import Company, FitSettings, Learner, Validation, fit, launch
    from common.methods import MeanTeacher
    from tests.toy import StopAfter, ToyDomain, ToySettings

    folder = Path(sys.argv[1])
    settings = FitSettings(
        steps=12, devices=2, accelerator="cpu", validate_every=2, log_every=2, accumulate=2
    )
    fabric = launch(settings)
    rank = fabric.global_rank
    domain = ToyDomain(ToySettings(side=8))
    torch.manual_seed(0)
    learner = Learner(MeanTeacher(), domain)
    scores = iter([[0.1, 0.2, 0.9, 0.3, 0.4, 0.5], [0.9, 0.1, 0.8, 0.7, 0.95, 0.2]][rank])
    company = Company(
        validate=lambda *_: Validation(next(scores), {{"validation/dice/disc": 0.5}}),
        should_stop=StopAfter(4) if rank == 0 else lambda: False,
    )
    fitted = fit(
        learner,
        lambda first: domain.batches(seed=rank, first_step=first),
        settings,
        fabric,
        seed=0,
        folder=folder,
        company=company,
    )
    torch.save([*fitted, [*learner.parameters()]], folder / f"rank{{rank}}.pt")
"""


@pytest.mark.slow
def test_two_processes_agree_on_weights_on_the_best_and_on_when_to_stop(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(textwrap.dedent(SCRIPT.format(root=str(Path(__file__).parents[2]))))
    subprocess.run([sys.executable, str(script), str(tmp_path)], check=True, timeout=300)
    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert first[:2] == second[:2] == [8, False]  # the fourth log step
    assert all(torch.equal(a, b) for a, b in zip(first[2], second[2], strict=True))
    assert torch.load(tmp_path / "latest.ckpt", weights_only=True)["step"] == 8
    assert torch.load(tmp_path / "best.ckpt", weights_only=True)["step"] == 6
    steps = [step for step, name, _ in read_log(tmp_path / "log.csv") if name == "loss/total"]
    assert steps == [2, 4, 6, 8]


EVERY_METHOD = """
    import sys
    import typing
    from pathlib import Path

    import torch

    torch.set_num_threads(1)
    sys.path.insert(0, {root!r})
    from common.fit import FitSettings, Learner, fit, launch
    from common.methods import AnyMethod
    from tests.toy import ToyDomain, ToySettings

    settings = FitSettings(steps=3, devices=2, accelerator="cpu", log_every=1)
    fabric = launch(settings)
    domain = ToyDomain(ToySettings(side=8))
    ended = {{}}
    for kind in typing.get_args(typing.get_args(AnyMethod)[0]):
        torch.manual_seed(0)
        learner = Learner(kind(), domain)
        folder = Path(sys.argv[1]) / learner.method.name
        folder.mkdir(exist_ok=True)
        fit(
            learner,
            lambda first: domain.batches(seed=fabric.global_rank, first_step=first),
            settings,
            fabric,
            seed=0,
            folder=folder,
        )
        ended[learner.method.name] = [*learner.parameters()]
    torch.save(ended, Path(sys.argv[1]) / f"ended{{fabric.global_rank}}.pt")
"""


@pytest.mark.slow
def test_every_method_ends_with_the_same_weights_in_both_of_two_processes(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(textwrap.dedent(EVERY_METHOD.format(root=str(Path(__file__).parents[2]))))
    subprocess.run([sys.executable, str(script), str(tmp_path)], check=True, timeout=900)
    first, second = (torch.load(tmp_path / f"ended{rank}.pt", weights_only=True) for rank in (0, 1))
    names = {kind.model_fields["name"].default for kind in typing.get_args(METHODS)}
    assert first.keys() == second.keys() == names
    for name, weights in first.items():
        assert all(torch.equal(a, b) for a, b in zip(weights, second[name], strict=True)), name


TWO_OPINIONS = """
    import sys
    from pathlib import Path

    import torch

    torch.set_num_threads(1)
    sys.path.insert(0, {root!r})
    from common import oversampling
    from common.calibration import BINS, HeldOut
    from common.filters import ClassCalibrated
    from common.fit import Company, FitSettings, Learner, fit, launch
    from common.methods import FixMatch
    from tests.common.test_oversampling import Uneven

    settings = FitSettings(steps=5, devices=2, accelerator="cpu")
    fabric = launch(settings)
    rank, domain = fabric.global_rank, Uneven()
    torch.manual_seed(0)
    learner = Learner(FixMatch(filter=ClassCalibrated(every=2, oversampling=10)), domain)
    opinion = torch.tensor([[[90, 10], [70, 30]], [[30, 70], [10, 90]]][rank])
    fit(
        learner,
        oversampling.batches(domain, learner.keep, seed=rank, aloud=rank == 0),
        settings,
        fabric,
        seed=0,
        folder=Path(sys.argv[1]),
        company=Company(calibrate=lambda net: HeldOut(torch.zeros(3, 2, BINS), opinion)),
    )
    torch.save([domain.asked, learner.keep.confusion], Path(sys.argv[1]) / f"asked{{rank}}.pt")
"""


@pytest.mark.slow
def test_two_processes_agree_on_which_cases_are_seen_more_often(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(textwrap.dedent(TWO_OPINIONS.format(root=str(Path(__file__).parents[2]))))
    subprocess.run([sys.executable, str(script), str(tmp_path)], check=True, timeout=300)
    (first, held), (second, other) = (
        torch.load(tmp_path / f"asked{rank}.pt", weights_only=True) for rank in (0, 1)
    )
    assert first == second
    assert [max(extra.values(), default=0) for extra in first] == [0, 2, 2]
    assert held.tolist() == other.tolist() == [[90, 10], [70, 30]]
