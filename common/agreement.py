"""Two predictions of the same images: where they agree, and what to teach where they do not."""

from __future__ import annotations

import torch

from common.batch import IGNORE, Confusion, Labels, Mask, PerClass, Probs, Pseudo, Weights


def conflict(first: Pseudo, second: Pseudo) -> Mask:
    """Where the two name different classes."""
    return first.target != second.target


def intersection(first: Pseudo, second: Pseudo) -> Pseudo:
    """What both say, with the mean of their trust [1]; no trust where they differ.

    A pixel of conflict keeps a target, so that it still counts in the divisor of a loss, as in
    the mean over all pixels of the authors' code.

    [1] Fan et al., CPCL, IEEE TIP 2023, arXiv:2211.16701, Sec. III-C.
    """
    return Pseudo(first.target, _mean_trust(first, second) * ~conflict(first, second))


def union(first: Pseudo, second: Pseudo, num_classes: int) -> Pseudo:
    """What both say, and in conflict the class more often fought about [1].

    Trust is the mean of both where they agree, and that of the one who wins elsewhere. With
    equal rates the second wins.

    [1] Fan et al., CPCL, IEEE TIP 2023, arXiv:2211.16701, Sec. III-C.
    """
    rates = conflict_rates(cross_table(first.target, second.target, num_classes))
    first_wins = rates[_index(first.target)] > rates[_index(second.target)]
    winner = torch.where(first_wins, first.weight, second.weight)
    return Pseudo(
        torch.where(first_wins, first.target, second.target),
        torch.where(conflict(first, second), winner, _mean_trust(first, second)),
    )


def conflict_rates(table: Confusion) -> PerClass:
    """How often two predictions differ where either names a class, between 0 and 2.

    The share of conflict among the pixels where the first names it, plus the same of the second.
    One pixel of agreement is added to each class, so that a class nobody names has rate 0.
    """
    smoothed = table + torch.eye(len(table), dtype=table.dtype, device=table.device)
    agreed = smoothed.diagonal().float()
    return (1 - agreed / smoothed.sum(dim=1)) + (1 - agreed / smoothed.sum(dim=0))


def cross_table(first: Labels, second: Labels, num_classes: int) -> Confusion:
    """Count pixels by what the first (rows) and the second (columns) say; IGNORE is left out.

    Does not wait for the device.
    """
    known = (first != IGNORE) & (second != IGNORE)
    pairs = (_index(first) * num_classes + _index(second)).flatten()
    counts = torch.zeros(num_classes**2, dtype=torch.int64, device=first.device)
    return counts.scatter_add_(0, pairs, known.flatten().long()).view(num_classes, num_classes)


def dynamic_trust(teacher: Probs, learner: Probs, powers: tuple[float, float]) -> Weights:
    """How far a learner trusts the label of a teacher, by what it says itself [1].

    Args:
        teacher: Whose most probable class is the label.
        learner: Class probabilities of the same pixels.
        powers: Of the probability that the learner gives the label: where it would name the same
            class, and where it would not. There it is 0 if the learner is the surer one.

    [1] Feng et al., DMT, Pattern Recognition 2022, arXiv:2004.08514.
    """
    confidence, label = teacher.max(dim=1)
    own_confidence, own = learner.max(dim=1)
    chance = learner.gather(1, label.unsqueeze(1)).squeeze(1)
    agree, differ = (chance**power for power in powers)
    return torch.where(own == label, agree, differ * (own_confidence <= confidence))


def mean_by_certainty(opinions: torch.Tensor) -> Probs:
    """The mean of several opinions ``(n, B, K, *S)``, each pixel's weighted by exp(-entropy) [1].

    [1] Zhao et al., AD-MT, ECCV 2024, arXiv:2311.17325.
    """
    certainty = (-torch.special.entr(opinions).sum(dim=2, keepdim=True)).softmax(dim=0)
    mean: Probs = (certainty * opinions).sum(dim=0)
    return mean


def _mean_trust(first: Pseudo, second: Pseudo) -> torch.Tensor:
    return (first.weight + second.weight) / 2


def _index(target: Labels) -> Labels:
    return torch.where(target == IGNORE, 0, target)
