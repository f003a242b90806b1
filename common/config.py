"""From a YAML file to a checked run, and back."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

import yaml
from pydantic import ValidationError, model_validator
from pydantic_core import ErrorDetails

from common.errors import ConfigError
from common.fit import FitSettings
from common.keys import Shape, known_keys
from common.methods import AnyMethod
from common.sampling import BatchSize
from common.schedules import NUMBER
from common.settings import Count, Settings
from common.splits import Splits
from common.weak_labels import WeakLabelFiles

R = TypeVar("R", bound="Run")
S = TypeVar("S", bound=Settings)

logger = logging.getLogger("seg_ssl")


class DomainSettings(Settings):
    """What every domain is told; an adapter adds its own."""

    splits: Splits
    batch: BatchSize = BatchSize()
    partners: tuple[Settings, ...] = ()  # an adapter says which networks these may be
    weak_labels: WeakLabelFiles | None = None  # what is known of unlabeled cases

    @property
    def num_classes(self) -> int | None:
        """How many classes there are, where the settings say so."""
        return None


class Run(Settings):
    """Everything that decides what a run computes. An adapter narrows its ``domain``."""

    seed: Count = 0
    domain: DomainSettings
    method: AnyMethod
    fit: FitSettings

    @model_validator(mode="after")
    def _has_a_use_for_partners(self) -> Self:
        if self.domain.partners and not self.method.takes_partners:
            raise ValueError(
                f"domain.partners gives networks to peers, but method {self.method.name!r} has no "
                "peers of different kinds. Remove domain.partners, or set method.name to "
                "cross_pseudo."
            )
        return self

    @model_validator(mode="after")
    def _filters_its_classes(self) -> Self:
        known = self.domain.num_classes
        if known is not None and (problem := self.method.filter.unfit(known)):
            raise ValueError(problem)
        return self

    @model_validator(mode="after")
    def _has_a_use_for_weak_labels(self) -> Self:
        if self.domain.weak_labels and not self.method.makes_pseudo_labels:
            raise ValueError(
                f"domain.weak_labels narrows pseudo-labels, but method {self.method.name!r} makes "
                "none. Remove domain.weak_labels, or set method.name to mean_teacher or fixmatch."
            )
        return self


def load(path: Path, schema: type[R], overrides: Sequence[str] = ()) -> R:
    """Read ``path``, apply ``overrides`` (``"fit.steps=100"``), and check against ``schema``.

    Setting the ``name`` of a section to another member starts that section afresh: what only
    the old member knew is dropped, and the log says so.

    Raises:
        ConfigError: Naming every problem at once, each with its line and a remedy.
    """
    try:
        text = path.read_text(encoding="utf-8")
        document = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        message = f"{path} cannot be read: {reason}. Give the path of a YAML file."
        raise ConfigError(message) from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold 'key: value' lines with domain, method and fit.")
    repeated = [*_repeated(document)]
    if repeated:
        raise ConfigError.listing(path, repeated)
    for override in overrides:
        _override(values, override)
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        shape = schema.model_json_schema()
        problems = [_explain(each, document, shape) for each in error.errors()]
        raise ConfigError.listing(path, problems) from None


def changed(settings: S, overrides: Sequence[str]) -> S:
    """``settings`` with ``overrides`` such as ``"filter.threshold=0.9"``.

    Raises:
        ConfigError: Naming every problem at once.
    """
    values = settings.model_dump(mode="json")
    for override in overrides:
        _override(values, override)
    try:
        return type(settings).model_validate(values)
    except ValidationError as error:
        shape = type(settings).model_json_schema()
        document = yaml.compose(yaml.safe_dump(values), Loader=yaml.SafeLoader)
        problems = [_explain(each, document, shape, of_file=False) for each in error.errors()]
        raise ConfigError.listing("what --set asks for", problems) from None


def save(run: Run, path: Path) -> None:
    """Write ``run`` fully resolved, so that ``load`` gives it back."""
    path.write_text(dump(run), encoding="utf-8")


def dump(run: Settings) -> str:
    """``run`` as YAML, every default spelled out."""
    return yaml.safe_dump(run.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def differences(old: Run, new: Run) -> list[str]:
    """What changed from ``old`` to ``new``, one sentence per key."""
    before, after = _flat(old.model_dump(mode="json")), _flat(new.model_dump(mode="json"))
    return [
        f"{key} was {before.get(key, 'absent')!r}, is {after.get(key, 'absent')!r}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        flat |= _flat(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return flat


def _override(values: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(f"--set {override}: expected KEY=VALUE, such as --set fit.steps=100.")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"--set {override}: '{text}' is not a YAML value. Quote it.") from None
    section = values
    for key in keys[:-1]:
        inner = section.get(key)
        section[key] = section = inner if isinstance(inner, dict) else {}
    if keys[-1] == "name" and section.get("name", value) != value:
        dropped = ", ".join(key for key in section if key != "name")
        if dropped:
            logger.warning(
                "--set %s starts '%s' from its defaults; dropped: %s.",
                override,
                ".".join(keys[:-1]),
                dropped,
            )
        section.clear()
    section[keys[-1]] = value


def _repeated(node: yaml.Node | None, prefix: str = "") -> Iterator[str]:
    """Keys given twice: YAML itself would silently take the last."""
    if isinstance(node, yaml.SequenceNode):
        for index, each in enumerate(node.value):
            yield from _repeated(each, f"{prefix}{index}.")
    if not isinstance(node, yaml.MappingNode):
        return
    seen: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if key.value in seen:
            first = seen[key.value]
            yield f"{prefix}{key.value} (line {line}): given before, on line {first}. Remove one."
        seen[key.value] = line
        yield from _repeated(value, f"{prefix}{key.value}.")


def _explain(
    error: ErrorDetails, document: yaml.Node | None, shape: Shape, *, of_file: bool = True
) -> str:
    if not error["loc"]:  # of several sections at once: the sentence names them
        return _reason(error, shape)
    keys, node, lost = [], document, False
    for key in error["loc"]:
        child = _child(node, key)
        if child is None and not lost and str(key) in (NUMBER, *_tags(node)):
            continue  # pydantic names the chosen union member in the path; the file does not
        keys.append(str(key))
        lost = lost or child is None
        node = child if child is not None else node
    line = f" (line {node.start_mark.line + 1})" if of_file and node is not None else ""
    return f"{'.'.join(keys)}{line}: {_reason(error, shape)}"


def _reason(error: ErrorDetails, shape: Shape) -> str:
    context, value = error.get("ctx", {}), error["input"]
    match error["type"]:
        case "extra_forbidden":
            *_, wrong = path = error["loc"]
            return f"unknown key.{_suggest(str(wrong), known_keys(shape, path))}"
        case "missing":
            return "required, but not given."
        case "union_tag_invalid":
            tags = [tag.strip("' ") for tag in context["expected_tags"].split(",")]
            names, tag = [each for each in tags if each != NUMBER], str(context["tag"])
            choice = ", ".join(names) + (", or give a number" if NUMBER in tags else "")
            return f"no {tag!r} here. Choose one of {choice}.{_suggest(tag, names)}"
        case "union_tag_not_found":
            return "say which one with 'name:'."
        case "less_than_equal" if context["le"] == 1 and isinstance(value, int | float):
            remedy = f" Did you mean {value / 100:g}?" if 1 < value <= 100 else ""
            return f"a fraction runs from 0 to 1, got {value:g}.{remedy}"
        case "value_error":
            return str(context["error"])
        case "float_type" | "float_parsing" if error["loc"][-1] == NUMBER:
            return f"give a number, or a schedule such as {{name: linear, end: 1}}, got {value!r}."
        case "float_type" | "int_type" if isinstance(value, dict) and "end" in value:
            return "this one takes no schedule. Give a number, which then holds all along."
        case _:
            return f"{error['msg'][0].lower()}{error['msg'][1:]}, got {value!r}."


def _suggest(wrong: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(wrong, known, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _child(node: yaml.Node | None, key: str | int) -> yaml.Node | None:
    if isinstance(node, yaml.MappingNode):
        return next((value for name, value in node.value if name.value == str(key)), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(key, int):
        return node.value[key] if key < len(node.value) else None
    return None


def _tags(node: yaml.Node | None) -> list[str]:
    if not isinstance(node, yaml.MappingNode):
        return []
    return [value.value for name, value in node.value if name.value == "name"]
