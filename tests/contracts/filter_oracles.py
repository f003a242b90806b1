"""What the papers of the filters say, written naively."""

from __future__ import annotations

import itertools
import math

import numpy as np

from common.filters import (
    ClassPrior,
    ClassRatio,
    ClassReweight,
    ConfidencePower,
    Equalized,
    Filter,
    Rank,
    Soft,
)
from common.schedules import value_at


def naive(filter: Filter, probs: np.ndarray, progress: float) -> np.ndarray:
    """By how much each pixel passes what the paper asks of it, pixel after pixel; below 0: not."""
    pixels = [probs[(sample, slice(None), *at)] for sample, *at in np.ndindex(probs[:, 0].shape)]
    there = np.array([p.sum() > 0 for p in pixels])
    sure = np.array([float(p.max()) for p in pixels])
    torn = np.array([entropy(p) for p in pixels])
    match filter.name:
        case "all":
            passed = np.ones(len(pixels))
        case "class_calibrated":  # before anything calibrated it
            passed = sure - filter.high
        case "class_confidence":
            label = np.array([int(p.argmax()) for p in pixels])
            own = np.resize(filter.thresholds, probs.shape[1])
            passed = sure - own[label]
        case "conformal":  # before anything showed that it seldom errs
            passed = np.full(len(pixels), -np.inf)
        case "confidence" | "confident_share":
            passed = sure - filter.threshold
        case "margin":
            passed = np.array([np.sort(p)[-1] - np.sort(p)[-2] for p in pixels]) - filter.threshold
        case "self_adaptive":  # as the first batch is judged
            label, start = np.array([int(p.argmax()) for p in pixels]), 1 / probs.shape[1]
            mean, share = start, np.full(probs.shape[1], start)
            if there.any():
                mean = filter.decay * mean + (1 - filter.decay) * sure[there].mean()
                seen = np.array(pixels)[there].mean(axis=0)
                share = filter.decay * share + (1 - filter.decay) * seen
            passed = sure - (mean * share / share.max())[label]
        case "flexible":  # as the first batch is judged
            label = np.array([int(p.argmax()) for p in pixels])
            reached = np.array([
                (there & (label == c) & (sure >= filter.threshold)).sum() / max(there.sum(), 1)
                for c in range(probs.shape[1])
            ]) * (1 - filter.decay)  # fmt: skip
            learned = reached / max(reached.max(), 1 - reached.sum())
            passed = sure - (filter.threshold * learned / (2 - learned))[label]
        case "ema_global":  # as the first batch is judged
            label = np.array([int(p.argmax()) for p in pixels])
            surest = [sure[there & (label == each)].max() for each in set(label[there])]
            seen = np.mean(surest) if surest else filter.start_at
            passed = sure - (filter.decay * filter.start_at + (1 - filter.decay) * seen)
        case "entropy":
            passed = filter.ceiling - torn
        case "entropy_percentile":
            dropped = np.float32(value_at(filter.dropped, progress)) * np.float32(there.sum())
            kept = there.sum() - math.floor(dropped)
            passed = (np.sort(torn[there])[kept - 1] if kept else -1) - torn
        case "neighbor_context":
            dropped = np.float32(value_at(filter.dropped, progress)) * np.float32(there.sum())
            kept, margin = there.sum() - math.floor(dropped), margins(probs).ravel()
            bound = np.sort(margin[there])[-kept] if kept else np.inf
            passed = margins(united(probs, filter.agreement)).ravel() - bound
            passed = passed if dropped else np.ones(len(pixels))
        case _:
            raise NotImplementedError(f"write down what {filter.name} says")
    return passed.reshape(probs[:, 0].shape)


def asked(
    filter: Filter, probs: np.ndarray, progress: float, *, rounding: float = 1e-6
) -> tuple[np.ndarray, np.ndarray]:
    """The weight that the paper gives each pixel, and where rounding cannot change it."""
    graded = {
        "class_reweight": by_rarity,
        "confidence_power": powered,
        "equalized": equalized,
        "rank": ranked,
        "soft": faded,
    }
    if filter.name in graded:
        return graded[filter.name](filter, probs, progress), np.ones(probs[:, 0].shape, dtype=bool)
    if filter.name == "product":
        parts = [asked(each, probs, progress, rounding=rounding) for each in filter.filters]
        weights, told = zip(*parts, strict=True)
        return np.prod(weights, axis=0), np.all(told, axis=0)
    if filter.name == "class_prior":
        return in_proportion(filter, probs, progress, rounding)
    if filter.name == "class_ratio":
        return surest_of_class(filter, probs, rounding)
    passed = naive(filter, probs, progress)
    sharp = np.abs(passed) > rounding
    if filter.name == "confident_share":  # all of them alike
        there = probs.max(axis=1) > 0
        share = (passed >= 0)[there].mean() if there.any() else 0.0
        return np.full(passed.shape, share), np.full(passed.shape, sharp[there].all())
    return passed >= 0, sharp


def margins(probs: np.ndarray) -> np.ndarray:
    """By how much the most probable class leads the second."""
    ordered = np.sort(probs, axis=1)
    return ordered[:, -1] - ordered[:, -2]


def united(probs: np.ndarray, agreement: float) -> np.ndarray:
    """p + b n - b max(p n, p E), n of the neighbor surest of the class, pixel after pixel."""
    refined = probs.astype(float)
    for sample, each, *at in np.ndindex(probs.shape):
        beside = []
        for axis, way in itertools.product(range(len(at)), (-1, 1)):
            next_to = [place + way * (axis == k) for k, place in enumerate(at)]
            if all(0 <= place < side for place, side in zip(next_to, probs.shape[2:], strict=True)):
                beside.append(probs[(sample, each, *next_to)])
        p, n = float(probs[(sample, each, *at)]), float(max(beside))
        refined[(sample, each, *at)] = p + math.exp(-0.5) * (n - max(p * n, p * agreement))
    return refined


def ranked(filter: Rank, probs: np.ndarray, progress: float) -> np.ndarray:
    """2 / (1 + exp(-k r)) - 1, with the quantiles of this batch alone."""
    sure, label = probs.max(axis=1), probs.argmax(axis=1)
    weight, k = np.zeros(sure.shape), value_at(filter.steepness, progress)
    for at in np.ndindex(sure.shape):
        peers = np.sort(sure[(label == label[at]) & (sure > 0)])
        places = np.linspace(0, len(peers) - 1, filter.quantiles + 1).round()[1:].astype(int)
        r = np.mean(sure[at] > peers[places]) if len(peers) else 0
        weight[at] = 2 / (1 + math.exp(-k * r)) - 1
    return weight


def by_rarity(filter: ClassReweight, probs: np.ndarray, progress: float) -> np.ndarray:
    """log(max / n), over the largest; remembered from 1, after this batch alone."""
    label, sure = probs.argmax(axis=1), probs.max(axis=1)
    counts = np.array([((label == c) & (sure > 0)).sum() for c in range(probs.shape[1])])
    weight = np.ones(probs.shape[1])
    if counts.sum():
        times = np.log((counts.max() + 1) / np.maximum(counts, 1))
        seen = times / times.max() if times.max() else np.ones(len(times))
        weight = filter.decay + (1 - filter.decay) * seen
    return weight[label]


def equalized(filter: Equalized, probs: np.ndarray, progress: float) -> np.ndarray:
    """((1 - m) / max(1 - m)) ^ power, after this batch alone."""
    label, sure = probs.argmax(axis=1), probs.max(axis=1)
    mean = np.full(probs.shape[1], 1 / probs.shape[1])
    for each in range(len(mean)):
        own = sure[(label == each) & (sure > 0)]
        if len(own):
            mean[each] = filter.decay * mean[each] + (1 - filter.decay) * own.mean()
    return (((1 - mean) / (1 - mean).max()) ** value_at(filter.power, progress))[label]


def in_proportion(
    filter: ClassPrior, probs: np.ndarray, progress: float, rounding: float
) -> tuple[np.ndarray, np.ndarray]:
    """Of each class so many of the surest as its prior says, and where no tie decides."""
    sure, label, classes = probs.max(axis=1), probs.argmax(axis=1), probs.shape[1]
    prior = np.array(filter.prior or [1] * classes) / sum(filter.prior or [1] * classes)
    weight, told = np.zeros(sure.shape), np.ones(sure.shape, dtype=bool)
    for each in range(classes):
        peers = (label == each) & (sure > 0)
        count = math.floor(value_at(filter.kept, progress) * prior[each] * (sure > 0).sum() + 1e-6)
        if count < peers.sum():
            last = np.sort(sure[peers])[::-1][max(count - 1, 0)]
            told &= ~(peers & (np.abs(sure - last) < rounding)) | (count == 0)
            weight += peers & (sure >= last) & (count > 0)
        else:
            weight += peers
    return weight, told


def powered(filter: ConfidencePower, probs: np.ndarray, progress: float) -> np.ndarray:
    """The largest probability times itself."""
    return probs.max(axis=1) * probs.max(axis=1)


def faded(filter: Soft, probs: np.ndarray, progress: float) -> np.ndarray:
    """1 above the running mean, a Gaussian below, after this batch alone."""
    pixels = np.moveaxis(probs, 1, -1).reshape(-1, probs.shape[1]).astype(float)
    there, start, m = pixels.sum(axis=1) > 0, 1 / probs.shape[1], filter.decay
    share, mean, variance = np.full(probs.shape[1], start), start, 1.0
    if there.any():
        share = m * share + (1 - m) * pixels[there].mean(axis=0)
    aligned = pixels / share
    sure = (aligned / np.maximum(aligned.sum(axis=1, keepdims=True), 1e-12)).max(axis=1)
    if there.any():
        variance = m * variance + (1 - m) * sure[there].var()
        mean = m * mean + (1 - m) * sure[there].mean()
    weight = np.where(sure < mean, np.exp(-((sure - mean) ** 2) / (2 * variance)), 1.0)
    return (weight * there).reshape(probs[:, 0].shape)


def surest_of_class(
    filter: ClassRatio, probs: np.ndarray, rounding: float
) -> tuple[np.ndarray, np.ndarray]:
    """The surest pixels of each class of each image, and where no other is as sure as the last."""
    sure, label = probs.max(axis=1), probs.argmax(axis=1)
    weight, told = np.zeros(sure.shape), np.ones(sure.shape, dtype=bool)
    for image, named in zip(range(len(sure)), label, strict=True):
        for each in np.unique(named):
            peers = (named == each) & (sure[image] > 0)
            kept = math.ceil(np.float32(filter.kept) * np.float32(peers.sum()))
            if kept:
                last = np.sort(sure[image][peers])[-kept]
                weight[image] += peers & (sure[image] >= last)
                near = np.abs(sure[image] - last) < rounding
                told[image] &= ~(near & peers) | (near & peers).sum() == 1
    return weight, told


def entropy(p: np.ndarray) -> float:
    nats = -sum(float(each) * math.log(max(float(each), 1e-12)) for each in p)
    return nats / math.log(len(p))
