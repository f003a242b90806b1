"""Who is in a split: how many, of how many patients, how large and how fine."""

from __future__ import annotations

from collections.abc import Sequence

from common.display import plural, span
from medseg_ssl.cases import VolumeCase
from medseg_ssl.preprocess import ras


def cohort(cases: Sequence[VolumeCase], *, knows_patients: bool) -> str:
    """One line for a report; reads headers only.

    Args:
        cases: Of a split.
        knows_patients: Whether their groups are patients, not the cases themselves.

    Raises:
        DataError: When a header cannot be read.
    """
    count = plural(len(cases), "case")
    if knows_patients:
        count += f" of {plural(len({case.group for case in cases}), 'patient')}"
    if not cases:
        return count
    shapes, spacings = zip(*(ras(case.geometry) for case in cases), strict=True)
    voxels, mm = (" x ".join(map(span, zip(*each, strict=True))) for each in (shapes, spacings))
    return f"{count}; {voxels} voxels of {mm} mm"
