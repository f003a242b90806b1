"""Everything this framework raises on purpose.

* SegSSLError
  - ConfigError      the YAML file does not describe a run
  - DataError        a case, scene or label on disk is not usable
      . GridMismatch   image and label do not share a grid
  - ShapeError       a tensor does not have the agreed axes
  - RunError         a run folder cannot be used for what was asked
  - TrainingError    training went somewhere it cannot come back from

Every message says what happened and where, what was expected, and how to mend it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self


class SegSSLError(Exception):
    """Root of the tree above: catch this to catch them all."""

    @classmethod
    def listing(cls, where: object, problems: Sequence[str]) -> Self:
        """One error for all ``problems`` found in ``where``, one per line."""
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        return cls("\n".join([f"{where}: {count}", *(f"  {each}" for each in problems)]))


class ConfigError(SegSSLError, ValueError):
    """The YAML file does not describe a run."""


class DataError(SegSSLError, ValueError):
    """A case, scene or label on disk is not usable."""


class GridMismatch(DataError):  # noqa: N818 (the word of the field)
    """Image and label do not share a grid."""


class ShapeError(SegSSLError, ValueError):
    """A tensor does not have the agreed axes."""


class RunError(SegSSLError, RuntimeError):
    """A run folder cannot be used for what was asked."""


class TrainingError(SegSSLError, RuntimeError):
    """Training went somewhere it cannot come back from."""
