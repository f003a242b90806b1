"""What is known of cases beside their images, coarse enough to compare groups and name nobody."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

MOST_VALUES = 12
"""A column of more different words tells cases apart, not groups of them."""
MOST_NUMBERS = 6
"""Numbers of more different values are cut at their quartiles."""
UNKNOWN = "not given"


def subgroups(values: Mapping[str, str]) -> dict[str, str]:
    """The subgroup of each case, by what a column says of it; none where it says too much.

    A word is a subgroup, and so is a number where there are few; more numbers are cut at their
    quartiles, each piece holding its upper end. What tells cases apart, such as a
    name, is not kept.
    """
    said = pd.Series(values, dtype=str).str.strip()
    given = said[said != ""]
    numbers = pd.to_numeric(given, errors="coerce")
    if numbers.notna().all() and numbers.nunique() > MOST_NUMBERS:
        edges = np.unique(np.quantile(numbers, [0, 0.25, 0.5, 0.75, 1]))
        upper = np.clip(np.searchsorted(edges, numbers, "left"), 1, len(edges) - 1)
        names = [f"{edges[end - 1]:g} to {edges[end]:g}" for end in upper]
        given = pd.Series(names, index=given.index)
    elif given.nunique() > MOST_VALUES:
        return {}
    return {
        str(case): str(name) for case, name in given.reindex(said.index, fill_value=UNKNOWN).items()
    }
