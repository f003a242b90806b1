"""A starter config, chosen from the data: every value with its reason beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common import drafting
from common.adapter import Wish
from common.drafting import flow, names, quoted
from common.errors import DataError
from common.splits import Names
from rsseg_ssl import blocks, inspection, layouts
from rsseg_ssl.blocks import AnyBlocks, Footprint, Squares, Touching
from rsseg_ssl.catalog import readable_grids, without_truth
from rsseg_ssl.entries import Layout, Named, color_of
from rsseg_ssl.lots import Candidate, Drawn, draw
from rsseg_ssl.records import ImageRecord, MaskRecord, image_records, mask_records

MULTIPLE = 32  # the sides that the default network can halve often enough
TILE = 128
LEAST_BLOCKS = 3
SQUARES_PER_SIDE = 5


@dataclass(frozen=True, slots=True)
class Plan:
    """What the data decides."""

    layout: Layout
    classes: Sequence[Named]
    rule: AnyBlocks
    num_blocks: int
    located: bool
    tile: int
    channels: int
    drawn: Drawn
    num_unlabeled: int


def draft(data: Path, wish: Wish) -> str:
    """The text of a complete YAML file, ready to train.

    Raises:
        DataError: Naming every problem of the data, or a wish that it cannot fulfil.
    """
    problems = inspection.inspect_folder(data).problems
    if problems:
        raise DataError.listing(f"'{data}'", problems)
    plan = _plan(data, wish)
    return "\n".join((_head(data, plan), _splits(plan, wish), _views(plan), _training(plan)))


def _plan(data: Path, wish: Wish) -> Plan:
    layout = layouts.survey(data)
    cases = [inspection.as_found(entry) for entry in layout.entries]
    images = image_records(without_truth(case) for case in cases)
    masks = mask_records(cases)
    places = blocks.footprints(readable_grids(cases))
    rule = _rule(places)
    groups = {case.id: case.id for case in cases} | blocks.assign(places, rule)
    groups |= {entry.id: entry.group for entry in layout.entries if entry.group}
    candidates = _candidates(masks, groups, layout.ignore)
    drawn = draw(candidates, wish, given=_given(layout))
    held = {groups[name] for name in (*drawn.test, *drawn.validation)}
    used = {*drawn.labeled, *drawn.test, *drawn.validation}
    rest = [case for case in cases if case.id not in used and groups[case.id] not in held]
    return Plan(
        layout=layout,
        classes=layout.classes or _unnamed(masks),
        rule=rule,
        num_blocks=len({*groups.values()}),
        located=len(places) == len(cases),
        tile=_tile(images),
        channels=next(iter(images.values())).bands,
        drawn=drawn,
        num_unlabeled=len(rest),
    )


def _candidates(
    masks: Mapping[str, MaskRecord], groups: Mapping[str, str], ignore: Sequence[int]
) -> list[Candidate]:
    """Scenes that show at least one annotated pixel."""
    shown = {
        name: {value: count for value, count in record.counts if value not in ignore}
        for name, record in masks.items()
    }
    return [Candidate(name, groups[name], pixels) for name, pixels in shown.items() if pixels]


def _rule(places: Mapping[str, Footprint]) -> AnyBlocks:
    """Touching scenes are one block, unless then hardly any blocks are left."""
    num_touching = len({*blocks.assign(places, Touching()).values()})
    if len(places) < LEAST_BLOCKS or num_touching >= LEAST_BLOCKS:
        return Touching()
    middles = np.array([place.middle_xy_m for place in places.values()])
    extent_m = float(np.ptp(middles, axis=0).max())
    return Squares(size_m=max(1.0, float(np.ceil(extent_m / SQUARES_PER_SIDE))))


def _given(layout: Layout) -> dict[str, Names]:
    splits = {entry.split for entry in layout.entries if entry.split not in (None, "unlabeled")}
    return {
        split: tuple(entry.id for entry in layout.entries if entry.split == split)
        for split in sorted(filter(None, splits))
    }


def _unnamed(masks: Mapping[str, MaskRecord]) -> list[Named]:
    values = sorted({value for record in masks.values() for value, _ in record.counts})
    if len(values) < 2:
        raise DataError(
            f"the masks hold {len(values)} different values; two classes are the least. Add masks, "
            "or say in a classes.json what the classes are."
        )
    return [Named(f"class_{value}", value, color_of(index)) for index, value in enumerate(values)]


def _tile(images: Mapping[str, ImageRecord]) -> int:
    side = int(np.median([min(record.shape_yx) for record in images.values()]))
    return max(MULTIPLE, min(TILE, side // MULTIPLE * MULTIPLE))


def _head(data: Path, plan: Plan) -> str:
    classes = "\n".join(
        f"    - {{name: {quoted(each.name)}, value: {each.value}, color: {flow(each.color)}}}"
        for each in plan.classes
    )
    names = f"  # {', '.join(plan.layout.bands)}" if plan.layout.bands else ""
    masks = f"  masks: {quoted(plan.layout.masks)}  # their folder\n" if plan.layout.masks else ""
    return f"""\
# Written from {len(plan.layout.entries)} scenes of {data}. Every value may be changed;
# `rsseg-ssl check THIS_FILE` says whether the result still holds together.
seed: 0  # decides first weights, windows and views

domain:
  data: {quoted(str(data))}
{masks}  classes:  # value: in the mask files; color: in pictures and in the predicted GeoTIFF
{classes}
  ignore: {flow(plan.layout.ignore)}  # mask values where nobody looked
  bands: {flow(range(1, plan.channels + 1))}{names}
  nodata: declared  # as the files say; or the fill values, such as [0] or [-9999]
  statistics: measure  # mean and deviation of each band, over valid training pixels
"""


def _splits(plan: Plan, wish: Wish) -> str:
    rule, drawn = plan.rule, plan.drawn
    if isinstance(rule, Squares):
        said, why = f"{{name: squares, size_m: {rule.size_m:g}}}", "nearly all scenes touch"
    else:
        said, why = "{name: touching, gap_m: 0}", "scenes that touch are never split"
    if not plan.located:
        why = "scenes without CRS: each is a block, so see to it yourself that none are neighbors"
    if plan.layout.photographs:
        why = "photographs lie nowhere: each is a block, or those of one city"
    origin = "As the data says" if _given(plan.layout) else f"Chosen with seed {wish.seed}"
    return f"""\
  # {origin}, by spatial block: {plan.num_blocks} blocks.
  blocks: {said}  # {why}
  splits:
    labeled: {names(drawn.labeled)}
    unlabeled: rest  # all scenes of other blocks than validation and test; masks are never read
    validation: {names(drawn.validation)}  # chooses the best checkpoint; empty: the last is best
    test: {names(drawn.test)}  # nothing is ever chosen on these
"""


def _views(plan: Plan) -> str:
    weak = "8}  # flips and quarter turns: seen from above, no way is up"
    if plan.layout.photographs:
        weak = "2, zoom: 2}  # mirrored, and at half to double size"
    return f"""\
  tile: {plan.tile}  # side of a window in pixels
  class_share: 0.0  # of the labeled windows: around a random class; raise it where some are rare
  weak: {{symmetries: {weak}
  strong:  # values change, pixels stay; share: of the images
    scene: {{share: 0.8, gain: 0.25, offset: 0.25}}
    bands: {{share: 0.8, gain: 0.15, offset: 0.15}}
    gamma: {{share: 0.5, strength: 0.3}}
    blur: {{share: 0.3, sigma_pixels: 1.2}}
    noise: {{share: 0.5, deviation: 0.15}}
    band_dropout: {{share: 0.1}}
"""


def _training(plan: Plan) -> str:
    training = drafting.training(
        unlabeled_loss="cross_entropy",
        learning_rate="1.0e-3",
        has_unlabeled=bool(plan.num_unlabeled),
        validates=bool(plan.drawn.validation),
    )
    return f"""\
  network: {{name: unet, encoder: resnet18, weights: null}}  # imagenet: needs a connection once
  batch: {{labeled: 4, unlabeled: {8 if plan.num_unlabeled else 0}, workers: 0}}

{training}"""
