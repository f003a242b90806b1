"""What label values stand for, as a dataset.json says it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

Region: TypeAlias = tuple[str, tuple[str, ...]]
"""Its name, and the classes it is made of."""


class Legend(NamedTuple):
    """What a dataset.json says that label values stand for."""

    classes: tuple[tuple[str, int], ...]
    ignore: int | None
    regions: tuple[Region, ...]


def read_legend(labels: Mapping[str, Any], problems: list[str]) -> Legend:
    """Of ``{"0": "background"}`` or ``{"background": 0}``, or with regions of several values.

    A value that only regions name is a class of its own, called after the smallest of them.
    """
    values_of: dict[str, tuple[int, ...]] = {}
    ignore: int | None = None
    for key, value in labels.items():
        name, number = (value, key) if str(key).isdigit() else (key, value)
        numbers = [*number] if isinstance(number, list | tuple) else [number]
        if not numbers or not all(str(each).isdigit() for each in numbers):
            problems.append(
                f"dataset.json: label '{name}' stands for {number}. Give each class one whole "
                "number, or a list of them."
            )
        elif str(name) == "ignore":
            ignore = int(numbers[0])
        else:
            values_of[str(name)] = tuple(int(each) for each in numbers)
    names: dict[int, str] = {}
    for name, own in values_of.items():
        if len(own) == 1 and own[0] in names:
            problems.append(
                f"dataset.json: labels '{names[own[0]]}' and '{name}' both stand for {own[0]}. "
                "Give each class a value of its own."
            )
        elif len(own) == 1:
            names[own[0]] = name
    regions = sorted(
        ((name, own) for name, own in values_of.items() if len(own) > 1),
        key=lambda region: len(region[1]),
    )
    for name, own in regions:
        names |= {value: f"{name} {value}" for value in own if value not in names}
    pairs = sorted((value, name) for value, name in names.items())
    unions = [(name, tuple(names[value] for value in own)) for name, own in regions]
    return Legend(tuple((name, value) for value, name in pairs), ignore, tuple(unions))
