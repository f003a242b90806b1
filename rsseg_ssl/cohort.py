"""What is in a split: how many scenes, in how many places, how large and how fine."""

from __future__ import annotations

from collections.abc import Sequence

from common.display import plural, span
from rsseg_ssl.cases import SceneCase


def cohort(scenes: Sequence[SceneCase]) -> str:
    """One line for a report."""
    count = plural(len(scenes), "scene")
    if not scenes:
        return count
    grids = [scene.grid for scene in scenes]
    blocks = plural(len({scene.group for scene in scenes}), "block")
    height, width = (span(each) for each in zip(*(grid.shape_yx for grid in grids), strict=True))
    if any(grid.crs is None for grid in grids):
        return f"{count} in {blocks}; {width} x {height} pixels"
    metres = span(metres for grid in grids for metres in grid.resolution_xy_m)
    return f"{count} in {blocks}; {width} x {height} pixels of {metres} m"
