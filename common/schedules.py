"""Numbers as functions of training progress in [0, 1]. Pure, so a run can resume anywhere.

The functions are factors; the classes are what a YAML file may write where a method, a filter
or a mix has a number: ``weight: 0.5``, or ``weight: {name: linear, end: 0.5, until: 0.4}``.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Discriminator, Tag, ValidationError, model_validator
from pydantic_core import InitErrorDetails

from common.settings import Fraction, NonNegative, PositiveReal, Settings


def sigmoid_ramp(progress: float, until: float) -> float:
    """Rise from about 0 to 1 while ``progress`` goes from 0 to ``until`` [1].

    [1] Laine and Aila, Temporal ensembling, 2017, arXiv:1610.02242, Sec. 3.1.
    """
    if progress >= until:
        return 1.0
    return math.exp(-5.0 * (1.0 - progress / until) ** 2)


def poly(progress: float, power: float = 0.9) -> float:
    """Fall from 1 to 0 as ``(1 - progress) ** power`` [1].

    [1] Chen et al., DeepLab, 2017, arXiv:1606.00915, Sec. 4.1.2.
    """
    return float((1.0 - progress) ** power)


def cosine(progress: float) -> float:
    """Fall from 1 to 0 along half a cosine [1].

    [1] Loshchilov and Hutter, SGDR, 2017, arXiv:1608.03983, Eq. 5, without restarts.
    """
    return 0.5 * (1.0 + math.cos(math.pi * progress))


def one_cycle(progress: float, peak_at: float = 0.3) -> float:
    """Rise from 1/25 to 1 until ``peak_at``, then fall to 1e-5, both along half a cosine [1].

    [1] Smith and Topin, Super-convergence, 2018, arXiv:1708.07120.
    """
    first, last = 1.0 / 25.0, 1e-5
    if progress < peak_at:
        return first + (1.0 - first) * (1.0 - cosine(progress / peak_at))
    return last + (1.0 - last) * cosine((progress - peak_at) / (1.0 - peak_at))


def warm_up(progress: float, until: float) -> float:
    """Rise linearly from 0 to 1 while ``progress`` goes from 0 to ``until``."""
    return 1.0 if progress >= until else progress / until


def constant(progress: float) -> float:
    """1, always."""
    return 1.0


class Schedule(Settings):
    """A number that changes while a run trains: from ``start`` to ``end``, and there it stays."""

    name: str
    start: NonNegative = 0.0
    end: NonNegative
    since: Fraction = 0.0  # progress up to which it is ``start``
    until: Fraction = 1.0  # progress from which on it is ``end``

    @model_validator(mode="after")
    def _starts_before_it_ends(self) -> Self:
        if self.since > self.until:
            raise ValueError(
                f"starts to change at {self.since:g} of the run, after it should be done at "
                f"{self.until:g}. Set since to {self.until:g} or less, or until to more."
            )
        return self

    def __call__(self, progress: float) -> float:
        """Its value at ``progress``, always between ``start`` and ``end``."""
        if progress >= self.until:
            return self.end
        if progress <= self.since:
            return self.start
        passed = (progress - self.since) / (self.until - self.since)
        return self.start + (self.end - self.start) * self.factor(passed)

    @abstractmethod
    def factor(self, passed: float) -> float:
        """How much of the way is gone when ``passed``, in (0, 1), of the time is."""


class Linear(Schedule):
    """A straight line."""

    name: Literal["linear"] = "linear"

    def factor(self, passed: float) -> float:
        return passed


class Sigmoid(Schedule):
    """A slow start and a steep end, as :func:`sigmoid_ramp`: the usual ramp of a weight."""

    name: Literal["sigmoid"] = "sigmoid"

    def factor(self, passed: float) -> float:
        return sigmoid_ramp(passed, 1.0)


class Cosine(Schedule):
    """Half a cosine: slow at both ends."""

    name: Literal["cosine"] = "cosine"

    def factor(self, passed: float) -> float:
        return 1.0 - cosine(passed)


class Exponential(Schedule):
    """By the same factor in equal times; both ends are above 0."""

    name: Literal["exponential"] = "exponential"
    start: PositiveReal
    end: PositiveReal

    def factor(self, passed: float) -> float:
        ratio = self.end / self.start
        return passed if ratio == 1.0 else min((ratio**passed - 1.0) / (ratio - 1.0), 1.0)


class Jump(Schedule):
    """``start`` before ``until``, ``end`` from there on."""

    name: Literal["jump"] = "jump"

    def factor(self, passed: float) -> float:
        return 0.0


NUMBER = "number"
"""The tag of a plain number among schedules."""


def value_at(number: float | Schedule, progress: float) -> float:
    """What ``number`` is at ``progress``; a plain number always is itself."""
    return number(progress) if isinstance(number, Schedule) else number


def _kind(value: Any) -> str | None:  # noqa: ANN401
    if isinstance(value, dict):
        return None if value.get("name") is None else str(value["name"])
    return value.name if isinstance(value, Schedule) else NUMBER


def _is_share(number: float | Schedule) -> float | Schedule:
    if isinstance(number, Schedule):
        ends = {"start": number.start, "end": number.end}
        problems = [
            InitErrorDetails(type="less_than_equal", loc=(key,), input=value, ctx={"le": 1})
            for key, value in ends.items()
            if value > 1
        ]
        if problems:
            raise ValidationError.from_exception_data("Share", problems)
    return number


AnySchedule = (
    Annotated[Linear, Tag("linear")]
    | Annotated[Sigmoid, Tag("sigmoid")]
    | Annotated[Cosine, Tag("cosine")]
    | Annotated[Exponential, Tag("exponential")]
    | Annotated[Jump, Tag("jump")]
)
Weight = Annotated[Annotated[NonNegative, Tag(NUMBER)] | AnySchedule, Discriminator(_kind)]
"""A number from 0 up, or a schedule of such."""

Share = Annotated[
    Annotated[Fraction, Tag(NUMBER)] | AnySchedule, Discriminator(_kind), AfterValidator(_is_share)
]
"""A number from 0 to 1, or a schedule of such."""
