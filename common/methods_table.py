"""All methods as rows of one table, and one method in full, read from the code."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints

from pydantic.fields import FieldInfo

from common.config import Run
from common.errors import ConfigError
from common.keys import in_words, written
from common.methods import Card, Method
from common.settings import Settings

ITEM = r"\[\d+\] |[A-Z][^.]{0,60}?: "
"""How a line of a docstring begins that does not go on with the one before."""


class Row(NamedTuple):
    """One method in a line."""

    family: str
    name: str
    paper: str
    year: int
    idea: str  # one sentence
    networks: str  # held; of them learning
    forwards: str  # per step
    needs: str  # beyond a network and a few labels


class Setting(NamedTuple):
    """One key that a method takes in a YAML file."""

    name: str
    default: str  # as YAML writes it
    takes: str  # in words
    meaning: str  # the paper's symbol, and what else stands beside it in the code


def rows(schema: type[Run] = Run) -> list[Row]:
    """The methods that runs of ``schema`` may name: by family, the older ones first."""
    families = [*get_args(get_type_hints(Card)["family"])]
    found = [row_of(method) for method in members(schema)]
    return sorted(found, key=lambda row: (families.index(row.family), row.year, row.name))


def row_of(method: type[Method]) -> Row:
    """``method`` in a line.

    Raises:
        ConfigError: When it has no card.
    """
    card: Card | None = getattr(method, "card", None)
    if card is None:
        raise ConfigError(
            f"method {name_of(method)!r} has no card, so the table cannot speak of it. Give "
            f"{method.__name__} a 'card: ClassVar[Card] = Card(...)', as in docs/own_method.md."
        )
    return Row(
        family=card.family,
        name=name_of(method),
        paper=card.paper,
        year=card.year,
        idea=idea_of(method),
        networks=card.networks,
        forwards=card.forwards,
        needs=card.needs,
    )


def members(schema: type[Run] = Run) -> tuple[type[Method], ...]:
    """The methods that runs of ``schema`` may name, an adapter's own ones among them."""
    return tuple(_leaves(schema.model_fields["method"].annotation))


def named(name: str, schema: type[Run] = Run) -> type[Method]:
    """The method called ``name``.

    Raises:
        ConfigError: When there is none.
    """
    known = {name_of(method): method for method in members(schema)}
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"no method {name!r} here. Choose one of {', '.join(known)}.{hint}")
    return known[name]


def settings_of(member: type[Settings]) -> list[Setting]:
    """The keys of a method, a filter or a mix, its own before those of all its family."""
    shape = member.model_json_schema()
    keys = [*inspect.get_annotations(member), *member.model_fields]
    return [
        Setting(
            name=key,
            default=_default(member.model_fields[key]),
            takes=in_words(shape["properties"][key], shape),
            meaning=_comment(member, key),
        )
        for key in dict.fromkeys(keys)
        if key in member.model_fields and key != "name"
    ]


def _default(field: FieldInfo) -> str:
    return "required" if field.is_required() else written(field.get_default())


def explained(method: type[Method]) -> list[str]:
    """The docstring of ``method``, each item on one line, an empty line between paragraphs."""
    lines: list[str] = []
    for line in inspect.cleandoc(method.__doc__ or "").splitlines():
        if not line or not lines or not lines[-1] or re.match(ITEM, line):
            lines.append(_plain(line))
        else:
            lines[-1] += f" {_plain(line.strip())}"
    return lines


def name_of(member: type[Settings]) -> str:
    """What ``name:`` says of a member of a family."""
    name: str = member.model_fields["name"].default
    return name


def idea_of(member: type[Settings]) -> str:
    """The first sentence of a docstring, without marks and citations."""
    paragraph = " ".join(inspect.cleandoc(member.__doc__ or "").partition("\n\n")[0].split())
    paragraph = re.sub(r" \[\d+(, \d+)*\]", "", _plain(paragraph))
    return re.split(r"(?<=\.) (?=[A-Z])", paragraph)[0]


def _leaves(hint: Any) -> Iterator[type[Method]]:  # noqa: ANN401
    if isinstance(hint, type):
        yield hint
    else:
        inner = get_args(hint)
        for each in inner[:1] if get_origin(hint) is Annotated else inner:
            yield from _leaves(each)


def _plain(text: str) -> str:
    """``text`` as one would print it: names in quotes instead of marks."""
    return re.sub(r":\w+:`~?([^`]+)`", r"\1", text).replace("``", "'")


def _comment(member: type[Settings], key: str) -> str:
    owner = next(each for each in member.__mro__ if key in inspect.get_annotations(each))
    try:
        source = inspect.getsource(owner)
    except OSError:  # typed into an interpreter
        return ""
    found = re.search(rf"^ +{key}: .*  # (?!noqa|type:)(.+)$", source, re.MULTILINE)
    return found[1] if found else ""
