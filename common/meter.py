"""Running means of a few steps, kept on the device and read out at log intervals only."""

from __future__ import annotations

import torch
from torch import Tensor

from common.batch import IGNORE, Batch, Mask, PerClass, Pseudo, SoftPseudo
from common.methods import Outcome


class Meter:
    """Losses, and how much of each class the filter kept, since the last flush.

    Nothing here waits for the device until :meth:`flush`.
    """

    def __init__(self, num_classes: int) -> None:
        self._num_classes = num_classes
        self._sums: dict[str, Tensor] = {}
        self._batches = 0

    @torch.no_grad()
    def see(self, outcome: Outcome, batch: Batch) -> None:
        """Add one batch."""
        self._batches += 1
        for name, value in outcome.losses.items():
            self._add(f"loss/{name}", value.detach())
        if outcome.pseudo is not None:
            predicted, kept = _by_class(outcome.pseudo, batch.unlabeled.valid, self._num_classes)
            self._add("predicted", predicted)
            self._add("kept", kept)

    def flush(self) -> dict[str, float]:
        """The means, by name, and a fresh start. Waits for the device."""
        sums = {name: value.double().cpu() for name, value in self._sums.items()}
        predicted, kept = sums.pop("predicted", None), sums.pop("kept", None)
        values = {name: float(value) / self._batches for name, value in sums.items()}
        self._sums, self._batches = {}, 0
        values["loss/total"] = sum(v for name, v in values.items() if name.startswith("loss/"))
        if predicted is not None and kept is not None:
            values["coverage"] = float(kept.sum() / predicted.sum().clamp_min(1))
            share = predicted / predicted.sum().clamp_min(1)
            for index in range(len(predicted)):
                values[f"coverage/{index}"] = float(kept[index] / predicted[index].clamp_min(1))
                values[f"share/{index}"] = float(share[index])
        return values

    def _add(self, name: str, value: Tensor) -> None:
        self._sums[name] = self._sums[name] + value if name in self._sums else value


def _by_class(
    pseudo: Pseudo | SoftPseudo, valid: Mask, num_classes: int
) -> tuple[PerClass, PerClass]:
    """Pixels of each predicted class, and the trust they got; IGNORE is left out."""
    target, weight = pseudo.predicted, pseudo.weight
    index = torch.where(valid & (target != IGNORE), target, num_classes).flatten()
    counts = weight.new_zeros(2, num_classes + 1)
    counts[0].scatter_add_(0, index, torch.ones_like(weight).flatten())
    counts[1].scatter_add_(0, index, weight.flatten())
    return counts[0, :-1], counts[1, :-1]
