"""From a run folder to what was trained in it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch

from common import checkpoints, config
from common.adapter import Adapter
from common.config import Run
from common.domain import Domain
from common.errors import RunError
from common.fit import Learner
from common.hidden_truth import Trust, in_words


class Trained(NamedTuple):
    """A finished run."""

    run: Run
    domain: Domain
    learner: Learner  # with the best weights, on the fastest device at hand, for evaluation

    @property
    def trust(self) -> Trust:
        """What the run makes of a prediction, on the CPU."""
        method = self.run.method
        words = in_words(method.filter, method.refiners, method.source)
        return Trust(words, self.learner.keep.cpu(), method.refiners, method.source)


def restored(folder: Path, adapter: Adapter) -> Trained:
    """What a run folder holds.

    Raises:
        RunError: When it holds no finished training.
    """
    checkpoint = folder / "best.ckpt"
    if not checkpoint.exists():
        raise RunError(
            f"'{folder}' holds no best.ckpt: its training has not finished. "
            f"Run {adapter.name} train first."
        )
    run = adapter.for_prediction(config.load(folder / "run.yaml", adapter.schema))
    domain = adapter.open(run)
    learner = new_learner(run, domain)
    learner.load_state_dict(checkpoints.weights(checkpoint))
    return Trained(run, domain, learner.to(_fastest(run)).eval())


def new_learner(run: Run, domain: Domain) -> Learner:
    """A learner whose first weights are a function of ``run.seed``."""
    torch.manual_seed(run.seed)
    return Learner(run.method, domain)


def training_domain(run: Run, adapter: Adapter) -> Domain:
    """The domain of a resolved run; a method that looks at no unlabeled images gets none cut."""
    if not run.method.needs_unlabeled:
        batch = run.domain.batch.model_copy(update={"unlabeled": 0})
        lean = run.domain.model_copy(update={"batch": batch})
        run = run.model_copy(update={"domain": lean})
    return adapter.open(run)


def _fastest(run: Run) -> torch.device:
    if run.fit.accelerator in ("auto", "cuda", "gpu") and torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("cpu")
