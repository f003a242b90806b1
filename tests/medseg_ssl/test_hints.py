"""From hints to voxels: against naive loops, and against the truth that hints were made of."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from common.batch import IGNORE
from common.errors import DataError
from common.weak_labels import possible
from medseg_ssl.augment import Placement, in_voxels, rotation
from medseg_ssl.batches import decoded
from medseg_ssl.cases import Geometry, UnlabeledVolume, read_geometry, read_label
from medseg_ssl.hints import Place, around, faults, inside, place_of, sets_of
from medseg_ssl.preprocess import Recipe, grid_of, nearest, preprocess, ras
from medseg_ssl.weak_labels import Box, Point, Scribble, VolumeHints
from tests.medseg_ssl.volumes import oblique, save

CLASSES = ("background", "organ", "lesion")
SHAPE = (9, 8, 6)
SPACING_MM = (1.0, 1.2, 2.5)
each_orientation = pytest.mark.parametrize("codes", ["RAS", "LPS", "PSR"])
each_recipe = pytest.mark.parametrize("spacing", [SPACING_MM, (1.0, 1.0, 1.0), (2.2, 1.7, 3.0)])


def placed(codes="RAS", spacing=SPACING_MM) -> Place:
    file = Geometry(SHAPE, oblique(SPACING_MM, codes=codes), 1)
    return Place(file, grid_of(file, Recipe(spacing_mm=spacing)))


def volume(tmp_path, affine) -> UnlabeledVolume:
    image = np.random.default_rng(0).random(SHAPE).astype(np.float32)
    return UnlabeledVolume("c4", (save(tmp_path / "c4.nii.gz", image, affine),))


def mm_of(affine: np.ndarray, index: tuple[int, ...]) -> np.ndarray:
    return (affine @ [*index, 1])[:3]


def point(at, unit="mm", label=1) -> Point:
    return Point(label=label, at=tuple(map(float, at)), unit=unit, source="points.csv, line 2")


def box(low, high, unit="mm", label=1) -> Box:
    low, high = tuple(map(float, low)), tuple(map(float, high))
    return Box(label=label, low=low, high=high, unit=unit, source="boxes.csv, line 2")


@each_orientation
@each_recipe
def test_the_preprocessed_grid_is_known_without_the_voxels(tmp_path, codes, spacing):
    affine = oblique(SPACING_MM, codes=codes)
    recipe = Recipe(spacing_mm=spacing)
    images = volume(tmp_path, affine).images
    made, told = preprocess(images, recipe), grid_of(read_geometry(images), recipe)
    assert made.image.shape[1:] == told.shape
    np.testing.assert_allclose(made.affine, told.affine, atol=1e-9)


@each_orientation
@each_recipe
@pytest.mark.parametrize("radius", [0.0, 0.9, 3.1])
def test_a_point_marks_the_nearest_voxel_and_all_within_its_radius(codes, spacing, radius):
    place = placed(codes, spacing)
    rng = np.random.default_rng(0)
    for unit in ("mm", "voxel"):
        voxel = rng.integers(0, SHAPE)
        at = mm_of(place.file.affine, tuple(voxel))
        if unit == "mm":
            at = at + rng.uniform(-0.2, 0.2, 3)
        far = {
            index: np.linalg.norm(mm_of(place.grid.affine, index) - at)
            for index in np.ndindex(place.grid.shape)
        }
        ball = {index for index, mm in far.items() if mm <= radius}
        nearest_ones = {index for index, mm in far.items() if mm < min(far.values()) + 1e-9}
        where = around([point(voxel if unit == "voxel" else at, unit)], place, radius)
        marked = {tuple(each) for each in np.argwhere(where).tolist()}
        assert ball <= marked <= ball | nearest_ones
        assert len(marked & nearest_ones) == (1 if radius == 0 else len(nearest_ones & ball) or 1)


@each_orientation
@each_recipe
def test_a_box_holds_the_voxels_that_reach_into_it(codes, spacing):
    place = placed(codes, spacing)
    middle = mm_of(place.file.affine, (4, 3, 2))
    cases = [
        (box(middle - 1.7, middle + 2.1), np.eye(4)),
        (box((2, 0, 1), (5, 3, 1), "voxel"), np.linalg.inv(place.file.affine)),
    ]
    for each, frame in cases:
        half = np.maximum(extent(frame @ place.file.affine), extent(frame @ place.grid.affine)) / 2
        half *= 1.001
        where = inside([each], place)
        assert where.any()
        for index in np.ndindex(place.grid.shape):
            at = (frame @ place.grid.affine @ [*index, 1])[:3]
            held = all(low - h <= a <= high + h for low, a, high, h in
                       zip(each.low, at, each.high, half, strict=True))  # fmt: skip
            assert where[index] == held


def extent(matrix: np.ndarray) -> np.ndarray:
    """How far one voxel reaches along each axis that ``matrix`` leads to."""
    corners = [matrix[:3, :3] @ np.array(corner) for corner in itertools.product((0, 1), repeat=3)]
    return np.max(corners, axis=0) - np.min(corners, axis=0)


@each_orientation
def test_on_the_grid_of_the_file_a_box_of_voxels_holds_exactly_these(codes):
    file = placed(codes).file
    recipe = Recipe(spacing_mm=ras(file)[1])
    place = Place(file, grid_of(file, recipe))
    truth = np.zeros(SHAPE, np.uint8)
    truth[2:6, 0:4, 1] = 1
    where = inside([box((2, 0, 1), (5, 3, 1), "voxel")], place)
    assert where.sum() == truth.sum()
    np.testing.assert_array_equal(where, nearest(truth, file, recipe))


@given(
    codes=st.sampled_from(["RAS", "LPS", "PSR"]),
    spacing=st.tuples(*[st.floats(0.8, 3.5)] * 3),
    seed=st.integers(0, 99),
)
@example(codes="RAS", spacing=(1.23046875, 0.953125, 1.0), seed=93)
def test_hints_made_of_the_truth_never_rule_it_out_inside_of_the_image(codes, spacing, seed):
    place, rng = placed(codes, spacing), np.random.default_rng(seed)
    truth = np.zeros(SHAPE, np.uint8)
    corner = rng.integers(0, np.array(SHAPE) - 1)
    end = rng.integers(corner + 1, SHAPE)
    truth[tuple(slice(a, b + 1) for a, b in zip(corner, end, strict=True))] = 1
    voxels = np.argwhere(truth)
    mm = np.array([mm_of(place.file.affine, tuple(each)) for each in voxels])
    seen = nearest(truth, place.file, Recipe(spacing_mm=spacing))
    at = np.moveaxis(np.indices(place.grid.shape), 0, -1) @ place.to("voxel")[:3, :3].T
    at = at + place.to("voxel")[:3, 3]
    seen[(np.abs(at - (np.array(SHAPE) - 1) / 2) > np.array(SHAPE) / 2).any(axis=-1)] = 0
    for each in (  # beyond the last voxel of the file its label is only continued
        box(voxels.min(axis=0), voxels.max(axis=0), "voxel"),
        box(mm.min(axis=0), mm.max(axis=0)),
    ):
        held = inside([each], place)
        assert held[seen == 1].all()
        for inner in (point(voxels[0], "voxel"), point(mm[-1])):
            assert held[around([inner], place, 0.0)].all()


def test_each_kind_of_hint_rules_out_what_it_says(tmp_path):
    affine = oblique(SPACING_MM, codes="LPS")
    drawn = np.full(SHAPE, 255, np.uint8)
    drawn[0, 0, 0], drawn[6, 6, 4] = 0, 4
    path = save(tmp_path / "drawn" / "c4.nii.gz", drawn, affine)
    hints = VolumeHints(
        boxes=(box((1, 1, 1), (3, 3, 3), "voxel"), box((3, 3, 3), (4, 4, 4), "voxel")),
        points=(point((2, 2, 2), "voxel"),),
        scribble=Scribble(path=path, values=(0, 1, 4), unmarked=255),
    )
    case = volume(tmp_path, affine)
    recipe = Recipe(spacing_mm=SPACING_MM)
    flags = possible(sets_of(case, hints, recipe, CLASSES))
    expected = np.ones((3, *SHAPE), bool)
    expected[1] = False
    expected[1, 1:4, 1:4, 1:4] = expected[1, 3:5, 3:5, 3:5] = True
    expected[:, 2, 2, 2] = False, True, False
    expected[:, 0, 0, 0] = True, False, False
    expected[:, 6, 6, 4] = False, False, True
    np.testing.assert_array_equal(flags, expected[:, ::-1, ::-1])
    tagged = possible(sets_of(case, VolumeHints(tags=(2,)), recipe, CLASSES))
    assert tagged.all(axis=(1, 2, 3)).tolist() == [True, False, True]


def test_hints_that_contradict_each_other_are_told_at_a_voxel_of_the_file(tmp_path):
    affine = oblique(SPACING_MM, codes="LPS")
    hints = VolumeHints(
        boxes=(box((0, 0, 0), (3, 3, 3), "voxel"),), points=(point((6, 2, 1), "voxel"),)
    )
    with pytest.raises(DataError) as error:
        sets_of(volume(tmp_path, affine), hints, Recipe(spacing_mm=SPACING_MM), CLASSES)
    x, y, z = mm_of(affine, (6, 2, 1))
    assert str(error.value) == (
        f"case 'c4': points.csv, line 2 leaves no class possible at voxel (6, 2, 1), ({x:.1f}, "
        f"{y:.1f}, {z:.1f}) mm, where other weak labels have ruled out the rest. Correct one of "
        "them."
    )


def test_what_lies_outside_of_the_image_is_refused_in_the_unit_that_it_was_told_in(tmp_path):
    place = Place(*[Geometry((9, 8, 6), np.diag([-1.0, 1, 2, 1]), 1)] * 2)
    turned = "Axes that are right-anterior-superior positive are expected; some programs turn x"
    reach = f"which reaches from (-8, 0, 0) to (0, 7, 10) mm. {turned} and y."
    for hints, told in (
        (
            VolumeHints(points=(point((3, 3, 3)),)),
            f"points.csv, line 2: the point (3, 3, 3) mm lies outside of the image, {reach}",
        ),
        (
            VolumeHints(points=(point((9, 0, 0), "voxel"),)),
            "points.csv, line 2: the point (9, 0, 0) voxels lies outside of the image, whose last "
            "voxel is (8, 7, 5).",
        ),
        (
            VolumeHints(boxes=(box((1, 1, 1), (4, 4, 4)),)),
            "boxes.csv, line 2: the box from (1, 1, 1) to (4, 4, 4) mm lies outside of the image, "
            + reach,
        ),
        (
            VolumeHints(boxes=(box((0, 0, 0), (4, 4, 6), "voxel"),)),
            "boxes.csv, line 2: the box from (0, 0, 0) to (4, 4, 6) voxels lies outside of the "
            "image, whose last voxel is (8, 7, 5).",
        ),
        (
            VolumeHints(tags=(2,), boxes=(box((0, 0, 0), (4, 4, 4), "voxel"),)),
            "boxes.csv, line 2: a box of 'organ', which the tags of the case do not name. Add the "
            "tag, or remove the box.",
        ),
    ):
        assert faults(hints, place, CLASSES) == [told]
    edge = VolumeHints(points=(point((0.5, -0.5, 11)),), boxes=(box((-20, -9, 9), (-7, 1, 99)),))
    assert faults(edge, place, CLASSES) == []
    bad = VolumeHints(points=(point((99, 0, 0)),))
    case = volume(tmp_path, oblique())
    with pytest.raises(DataError, match=r"case 'c4': 1 problem\n  points\.csv, line 2: the point"):
        sets_of(case, bad, Recipe(spacing_mm=SPACING_MM), CLASSES)


@pytest.mark.parametrize(("turned", "bent"), [(False, False), (True, False), (True, True)])
def test_possible_classes_move_with_the_image(tmp_path, turned, bent):
    """Each voxel of the image says where it is, so each voxel of a patch can be looked up."""
    case = volume(tmp_path, oblique(SPACING_MM))
    hints = VolumeHints(
        boxes=(box((1, 1, 1), (5, 5, 3), "voxel"),), points=(point((2, 4, 2), "voxel", 0),)
    )
    sets = sets_of(case, hints, Recipe(spacing_mm=SPACING_MM), CLASSES)
    everywhere = possible(sets)
    encoded = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij")).astype(np.float32)
    matrix = in_voxels(rotation(np.deg2rad([8, -5, 9])) * 1.07, SPACING_MM) if turned else None
    shift = np.random.default_rng(0).normal(size=(8, 9, 6, 3)) * 0.2 if bent else None
    view = Placement((1, -2, 1), (8, 9, 6), matrix=matrix, flips=(0, 2), shift=shift)
    shown, flags = view.image(encoded).numpy(), decoded(view, sets).numpy()
    valid = view.valid(SHAPE).numpy()
    assert valid.sum() > 100
    assert flags[:, ~valid].all()
    seen = set()
    for index in map(tuple, np.argwhere(valid)):
        place = shown[(slice(None), *index)]
        if np.abs(place - np.floor(place) - 0.5).min() < 1e-3 or (place < 0).any():
            continue  # as near to one voxel as to another
        own = everywhere[(slice(None), *np.rint(place).astype(int))]
        assert (flags[(slice(None), *index)] == own).all()
        seen.add(tuple(own.tolist()))
    assert len(seen) == 3


def test_nothing_drawn_rules_nothing_out(tmp_path):
    path = save(tmp_path / "drawn" / "c4.nii.gz", np.full(SHAPE, 255, np.uint8), oblique())
    scribble = Scribble(path=path, values=(0, 1, IGNORE - 1), unmarked=255)
    case = volume(tmp_path, oblique())
    assert place_of(case.images, Recipe(spacing_mm=(1, 1, 1))).file.shape == SHAPE
    sets = sets_of(case, VolumeHints(scribble=scribble), Recipe(spacing_mm=(1, 1, 1)), CLASSES)
    assert possible(sets).all()


def test_hints_made_of_a_real_label_never_rule_it_out(data, tmp_path):
    folder, recipe = data / "hippocampus", Recipe(spacing_mm=(1.3, 0.9, 1.1))
    for path in sorted((folder / "labelsTr").glob("hippocampus_00*.nii.gz"))[:4]:
        truth, geometry = read_label(path), read_geometry([path])
        voxels = [np.argwhere(truth == label) for label in (1, 2)]
        drawn = np.where(np.arange(len(truth))[:, None, None] == voxels[0][0][0], truth, 255)
        scribble = save(tmp_path / path.name, drawn.astype(np.uint8), geometry.affine)
        hints = VolumeHints(
            tags=(1, 2),
            boxes=tuple(
                box(each.min(axis=0), each.max(axis=0), "voxel", label)
                for label, each in enumerate(voxels, start=1)
            ),
            scribble=Scribble(path=scribble, values=(0, 1, 2), unmarked=255),
        )
        case = UnlabeledVolume(path.name, (folder / "imagesTr" / path.name,))
        flags = possible(sets_of(case, hints, recipe, CLASSES))
        seen = nearest(truth, geometry, recipe).astype(int)
        assert np.take_along_axis(flags, seen[None], axis=0).all()
        assert flags.mean() < 0.6
