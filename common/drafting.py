"""What the starter configs of all domains share: how YAML is laid out, and how to train."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Sequence

RESERVED = ("y", "n", "yes", "no", "on", "off", "true", "false", "null", "rest")


def training(
    *, unlabeled_loss: str, learning_rate: str, has_unlabeled: bool, validates: bool
) -> str:
    """The sections ``method`` and ``fit``, with their reasons."""
    method = (
        "  name: supervised  # there is nothing unlabeled to learn from"
        if not has_unlabeled
        else f"""\
  name: fixmatch  # or mean_teacher, cross_pseudo, supervised (the floor that all must beat)
  teacher_decay: 0.99  # labels come from the running average of the student
  filter: {{name: confidence, threshold: 0.9}}  # only what is this sure teaches
  unlabeled_loss: {{name: {unlabeled_loss}}}
  mix: {{name: cutmix}}"""
    )
    return f"""\
method:
{method}

fit:
  steps: 1500  # more for more data: the log shows whether the losses still fall
  learning_rate: {learning_rate}
  warm_up: 0.05
  validate_every: {250 if validates else 0}  # 0: at the end only
"""


def names(values: Sequence[str]) -> str:
    """A list of names over as many lines as it needs."""
    text = flow(values)
    if len(text) <= 70:
        return text
    body = ", ".join(quoted(name) for name in values)
    lines = textwrap.wrap(body, 88, break_long_words=False, break_on_hyphens=False)
    return "[\n" + textwrap.indent("\n".join(lines), " " * 6) + "\n    ]"


def flow(values: Sequence[object]) -> str:
    """A list in one line."""
    return f"[{', '.join(quoted(v) if isinstance(v, str) else str(v) for v in values)}]"


def quoted(text: str) -> str:
    """``text`` as YAML reads it back: JSON strings are YAML, too."""
    plain = re.fullmatch(r"[A-Za-z/][\w./-]*( [\w./-]+)*", text, re.ASCII)
    usable = plain and text.lower() not in RESERVED
    return text if usable else json.dumps(text, ensure_ascii=False)
