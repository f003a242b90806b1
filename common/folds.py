"""Cross-calibration: where few cases are labeled, each is judged by who learned from the others."""

from __future__ import annotations

from collections.abc import Mapping

from common.config import Run
from common.errors import ConfigError
from common.filters import CalibratedFilter
from common.methods import Supervised
from common.sampling import ORDER, generator
from common.splits import names_of


def fold_runs(run: Run, group_of: Mapping[str, str]) -> list[Run]:
    """Supervised runs, each without one part of the labeled cases, which validates it.

    A patient or spatial block is never cut in two. The parts are a function of ``run.seed``.

    Args:
        run: A resolved run whose filter is calibrated.
        group_of: The patient or spatial block of each labeled case.

    Raises:
        ConfigError: When the labeled cases are of one group, which cannot be cut.
    """
    rule = run.method.filter
    assert isinstance(rule, CalibratedFilter)
    groups = sorted(set(group_of.values()))
    if len(groups) < 2:
        raise ConfigError(
            f"method.filter {rule.name} compares confidence with truth on labeled cases that do "
            f"not train, but all labeled cases are of one patient or block ('{groups[0]}'). "
            "Label a second one, name cases in domain.splits.validation, or choose filter "
            "confidence."
        )
    order = generator(run.seed, ORDER).permutation(len(groups))
    part_of = {groups[each]: place % rule.folds for place, each in enumerate(order)}
    parts = sorted(set(part_of.values()))
    return [_without(run, [n for n, g in group_of.items() if part_of[g] == part]) for part in parts]


def _without(run: Run, held_out: list[str]) -> Run:
    rule, splits = run.method.filter, run.domain.splits
    assert isinstance(rule, CalibratedFilter)
    lean = splits.model_copy(
        update={
            "labeled": tuple(n for n in names_of(splits, "labeled") if n not in held_out),
            "unlabeled": (),
            "validation": tuple(held_out),
            "test": (),
        }
    )
    return run.model_copy(
        update={
            "domain": run.domain.model_copy(update={"splits": lean, "partners": ()}),
            "method": Supervised(supervised_loss=run.method.supervised_loss),
            "fit": run.fit.model_copy(update={"steps": rule.fold_steps, "validate_every": 0}),
        }
    )
