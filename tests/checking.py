"""Annotations held to their word: jaxtyping for shapes, beartype for everything else.

Switched on for the whole suite by ``--jaxtyping-packages`` in pyproject.toml. Our packages
themselves know nothing of it.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from types import FunctionType, UnionType
from typing import Any

from beartype import BeartypeConf, beartype

_look = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float, as for mypy


def checked(function: FunctionType) -> Callable[..., Any]:
    """``function``, with arguments and result checked at every call.

    Protocols are left to mypy: looking whether a case has a ``truth`` would read it from disk.
    So is ``Self``, which beartype understands in decorated classes only.
    """
    function.__annotations__ = {
        name: _checkable(hint) for name, hint in function.__annotations__.items()
    }
    return _look(function)


def _checkable(hint: Any) -> Any:
    """``hint``, or as much of it as can be checked by looking."""
    if not _mentions_uncheckable(hint):
        return hint
    origin = typing.get_origin(hint)
    if origin in (typing.Union, UnionType):
        return typing.Union[tuple(_checkable(each) for each in typing.get_args(hint))]  # noqa: UP007
    return origin if isinstance(origin, type) and not _is_protocol(origin) else Any


def _mentions_uncheckable(hint: Any) -> bool:
    if isinstance(hint, list | tuple):  # the arguments of a Callable
        return any(map(_mentions_uncheckable, hint))
    if hint is typing.Self or _is_protocol(hint) or _is_protocol(typing.get_origin(hint)):
        return True
    return any(map(_mentions_uncheckable, typing.get_args(hint)))


def _is_protocol(hint: Any) -> bool:
    return bool(getattr(hint, "_is_protocol", False)) and hint.__module__.partition(".")[0] in (
        "common",
        "medseg_ssl",
        "rsseg_ssl",
    )
