"""What may be wrong with the files of scenes: one sentence each, with its remedy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from common.splits import listed
from rsseg_ssl.records import ImageRecord, MaskRecord

RESOLUTION_NOTED, RESOLUTION_REFUSED = 1.01, 1.5
SUSPECT_SHARE = 0.005

Images = Mapping[str, ImageRecord]
Masks = Mapping[str, MaskRecord]


def judge(images: Images, masks: Masks, *, tile: int | None = None) -> tuple[list[str], list[str]]:
    """Problems and warnings of the files themselves, one sentence each with its remedy."""
    good = {name: record for name, record in images.items() if record.problem is None}
    problems = [
        f"scene '{name}': {record.problem}" for name, record in images.items() if record.problem
    ]
    problems += _differing_bands(good) + _mask_problems(masks)
    warnings = _emptiness(good) + _copies(good)
    dtypes = {record.dtype for record in good.values()}
    if len(dtypes) > 1:
        warnings.append(
            f"scenes are stored in different types ({', '.join(sorted(dtypes))}); if their "
            "values are scaled differently too, convert them with gdal_translate -scale."
        )
    alpha = [name for name, record in good.items() if record.claims_alpha]
    if alpha:
        warnings.append(
            f"a band is flagged alpha in {_scenes(alpha)}. It is read as data, because "
            "near-infrared is often flagged so; if it is a mask, set domain.alpha_band."
        )
    small = [name for name, record in good.items() if tile and min(record.shape_yx) < tile]
    if small:
        warnings.append(
            f"smaller than a tile of {tile} pixels, and therefore padded: {_scenes(small)}. Lower "
            "domain.tile to avoid it."
        )
    return problems, warnings


def judge_places(images: Images) -> tuple[list[str], list[str]]:
    """The same of what only scenes of the Earth have: pixel sizes, a CRS, fill values."""
    good = {name: record for name, record in images.items() if record.problem is None}
    problems, warnings = list[str](), _fills(good)
    _judge_grids(good, problems, warnings)
    return problems, warnings


def strange_values(masks: Masks, known: set[int], where: str) -> list[str]:
    """Masks with values that mean nothing."""
    problems = []
    for name, record in masks.items():
        strange = [value for value, _ in record.counts if value not in known]
        if strange:
            problems.append(
                f"scene '{name}': mask values {listed([*map(str, strange)])} are no classes. "
                f"Add them to {where}, or correct the mask."
            )
    return problems


def _differing_bands(good: Images) -> list[str]:
    counts = Counter(record.bands for record in good.values())
    if len(counts) < 2:
        return []
    usual, _ = counts.most_common(1)[0]
    odd = [f"{name} ({r.bands})" for name, r in good.items() if r.bands != usual]
    return [
        f"most scenes have {usual} bands, but these have not: {listed(odd)}. Remove them, "
        "choose the same bands of all with domain.bands, or make gray photographs RGB."
    ]


def _mask_problems(masks: Masks) -> list[str]:
    problems = []
    for name, record in masks.items():
        where = f"scene '{name}': "
        if record.problem:
            problems.append(where + record.problem)
        elif record.difference:
            problems.append(
                f"{where}image and mask are not on one grid: {record.difference}. Resample the "
                "mask (gdalwarp -r near), or remove it."
            )
        elif record.bands > 1:
            problems.append(
                f"{where}the mask has {record.bands} bands, so it holds colors. Convert it to one "
                "band of class values."
            )
        elif "float" in record.dtype:
            problems.append(
                f"{where}the mask is stored as {record.dtype}; class values are whole numbers. "
                "Convert it: gdal_translate -ot Byte."
            )
    return problems


def _emptiness(good: Images) -> list[str]:
    empty = [name for name, r in good.items() if r.moments.count == 0]
    constant = [name for name, r in good.items() if r.moments.count and r.low == r.high]
    warnings = []
    if empty:
        warnings.append(
            f"no valid pixel in {_scenes(empty)}, which teaches nothing. Remove what is not meant."
        )
    if constant:
        warnings.append(
            f"every band is constant in {_scenes(constant)}. Remove what is not meant, or declare "
            "the value as nodata."
        )
    return warnings


def _copies(good: Images) -> list[str]:
    """Scenes that hold the same numbers, so almost surely the same pixels."""
    alike: dict[object, list[str]] = {}
    for name, record in good.items():
        if record.moments.count and record.low != record.high:
            alike.setdefault((record.shape_yx, record.moments, record.low), []).append(name)
    return [
        f"{_scenes(names)} hold the same pixels. Keep one, or see that they are in one split."
        for names in alike.values()
        if len(names) > 1
    ]


def _fills(good: Images) -> list[str]:
    warnings = []
    for value in sorted({fill for record in good.values() for fill, _ in record.suspects}):
        affected = [
            name
            for name, record in good.items()
            if dict(record.suspects).get(value, 0) > SUSPECT_SHARE * record.pixels
        ]
        if affected:
            warnings.append(
                f"{value:g} looks like a fill value that no file declares, in {_scenes(affected)}. "
                f"If it is one, set domain.nodata to [{value:g}]."
            )
    half = [name for name, r in good.items() if r.half > SUSPECT_SHARE * r.pixels]
    if half:
        warnings.append(
            f"some bands hold nodata where others hold data, in {_scenes(half)}; those pixels are "
            "not used. If the value is real data, name the true fill values in domain.nodata."
        )
    return warnings


def _judge_grids(good: Images, problems: list[str], warnings: list[str]) -> None:
    nowhere = [name for name, record in good.items() if not record.located]
    if nowhere:
        warnings.append(
            f"no CRS in {_scenes(nowhere)}, taken as pixel grids: areas, blocks and gaps cannot be "
            "measured. Assign one: gdal_edit.py -a_srs EPSG:..."
        )
    systems = Counter(record.crs for record in good.values() if record.located)
    if len(systems) > 1:
        warnings.append(
            f"scenes have different CRSs ({', '.join(sorted(systems))}). Each is read as it is; "
            "to combine them with other torchgeo data, bring them to one with gdalwarp -t_srs."
        )
    same = len(systems) <= 1
    sizes = [max(r.resolution_xy if same else r.resolution_xy_m) for r in good.values()]
    if not sizes or min(sizes) <= 0:
        return
    ratio = max(sizes) / min(sizes)
    said = (
        f"pixels are {min(sizes):.4g} to {max(sizes):.4g} units wide. Bring all scenes to one "
        "resolution with gdalwarp -tr."
    )
    if ratio > RESOLUTION_REFUSED:
        problems.append(said)
    elif ratio > RESOLUTION_NOTED:
        warnings.append(said)


def _scenes(names: list[str]) -> str:
    count = "1 scene" if len(names) == 1 else f"{len(names)} scenes"
    return f"{count} ({listed(names)})"
