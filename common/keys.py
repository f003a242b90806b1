"""What a YAML file may say, read from the settings that check it: keys, and values in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from common.schedules import Schedule
from common.settings import Settings

Shape: TypeAlias = Mapping[str, Any]
"""A JSON schema, or a part of one."""


def known_keys(shape: Shape, path: Sequence[str | int]) -> list[str]:
    """The keys that may stand where ``path``, as pydantic tells it, ends."""
    here = [*alternatives(shape, shape)]
    for key in path[:-1]:
        named = [each for each in here if key in names(each)]
        inner = [each["properties"][key] for each in here if key in each.get("properties", {})]
        items = [each["items"] for each in here if isinstance(key, int) and "items" in each]
        here = [a for each in items or inner or named for a in alternatives(each, shape)] or here
    return sorted({key for each in here for key in each.get("properties", {})})


def alternatives(part: Shape, shape: Shape) -> Iterator[Shape]:
    """What ``part`` of ``shape`` may be, references followed."""
    if "$ref" in part:
        yield from alternatives(shape["$defs"][part["$ref"].rpartition("/")[2]], shape)
    elif choices := part.get("oneOf", part.get("anyOf")):
        for each in choices:
            yield from alternatives(each, shape)
    else:
        yield part


def names(part: Shape) -> list[str]:
    """What ``name:`` may be in ``part``: how a union knows a member."""
    name = part.get("properties", {}).get("name", {})
    return [name["const"]] if "const" in name else [*name.get("enum", [])]


def in_words(part: Shape, shape: Shape) -> str:
    """The values that ``part`` of ``shape`` lets through: ``number from 0 or a schedule``."""
    options = [*alternatives(part, shape)]
    members = [name for each in options for name in names(each) if not _is_schedule(each)]
    words = [_one_in_words(each, shape) for each in options if not names(each)]
    words += [f"{{name: {' | '.join(members)}}}"] if members else []
    words += ["a schedule"] if any(map(_is_schedule, options)) else []
    return " or ".join(words)


def written(value: object) -> str:
    """``value`` as YAML has it in one line; a schedule without what it need not say."""
    if isinstance(value, Schedule):
        return written({"name": value.name} | value.model_dump(exclude_defaults=True))
    if isinstance(value, Settings):
        return written({key: getattr(value, key) for key in type(value).model_fields})
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {written(each)}' for key, each in value.items())}}}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(written(each) for each in value)}]"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _one_in_words(part: Shape, shape: Shape) -> str:
    match part:
        case {"enum": [*choices]}:
            return " | ".join(map(str, choices))
        case {"const": value}:
            return str(value)
        case {"type": "null"}:
            return "null"
        case {"type": "boolean"}:
            return "true | false"
        case {"type": "string"}:
            return "text"
        case {"type": "number" | "integer" as kind}:
            return f"{'number' if kind == 'number' else 'whole number'}{_bounds(part)}"
        case {"type": "array", "items": items}:
            return f"list of {in_words(items, shape)}"
        case {"type": "array", "prefixItems": [*items]}:
            return f"[{', '.join(in_words(each, shape) for each in items)}]"
        case {"properties": properties}:
            return f"{{{', '.join(properties)}}}"
    return "any value"


def _bounds(part: Shape) -> str:
    words = [
        ("minimum", "from"),
        ("exclusiveMinimum", "above"),
        ("maximum", "to"),
        ("exclusiveMaximum", "below"),
    ]
    return "".join(f" {word} {part[key]:g}" for key, word in words if key in part)


def _is_schedule(part: Shape) -> bool:
    return Schedule.model_fields.keys() <= {*part.get("properties", {})}
