"""Pictures of cases: the right side on the left, errors where they are, small files."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from matplotlib._pylab_helpers import Gcf
from PIL import Image as Pillow

from common.batch import IGNORE
from common.domain import Task
from common.errors import RunError
from medseg_ssl.figures import draw_volume
from medseg_ssl.sheet import COLORS
from medseg_ssl.view import PLANES, look, mistakes

TASK = Task(1, ("background", "front", "back"), ((0, 0, 0), (230, 75, 53), (77, 187, 213)))
SPACING_MM = (1.0, 1.5, 3.0)
ORIENTATIONS = [
    "".join(letters)
    for letters in itertools.product("RLAPSI", repeat=3)
    if all(sum(letter in pair for letter in letters) == 1 for pair in ("RL", "AP", "SI"))
]


def anatomy() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Image, prediction, truth and affine in RAS, nothing symmetric about them."""
    image = np.random.default_rng(0).random((20, 16, 9))
    truth = np.zeros(image.shape, dtype=np.int64)
    truth[3:9, 4:12, 2:7] = 1
    truth[9:12, 4:8, 2:6] = 2
    predicted = np.roll(truth, 1, axis=0)
    affine = np.diag([*SPACING_MM, 1.0])
    affine[:3, 3] = (-7, 5, 11)
    return image, predicted, truth, affine


def turned(volume: np.ndarray, affine: np.ndarray, codes: str) -> tuple[np.ndarray, np.ndarray]:
    """The same anatomy, stored in another order."""
    turn = nib.orientations.ornt_transform(
        nib.io_orientation(affine), nib.orientations.axcodes2ornt(codes)
    )
    back = nib.orientations.inv_ornt_aff(turn, volume.shape)
    return nib.apply_orientation(volume, turn), affine @ back


def draw(folder: Path, image=None, predicted=None, truth=None, task=TASK, title="case") -> Path:
    one, other, third, affine = anatomy()
    return draw_volume(
        one if image is None else image,
        other if predicted is None else predicted,
        third if truth is None else truth,
        affine=affine,
        task=task,
        title=title,
        path=folder / "case.png",
    )


def size(path: Path) -> tuple[int, int]:
    with Pillow.open(path) as opened:
        return opened.size


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_a_picture_does_not_depend_on_how_the_file_is_stored(codes: str):
    image, predicted, truth, affine = anatomy()
    expected = look(image, predicted, truth, affine)
    stored = [turned(volume, affine, codes) for volume in (image, predicted, truth)]
    view = look(stored[0][0], stored[1][0], stored[2][0], stored[0][1])
    np.testing.assert_allclose(view.image, expected.image)
    np.testing.assert_array_equal(view.truth, expected.truth)
    np.testing.assert_allclose(view.spacing_mm, SPACING_MM)
    assert view.center == expected.center
    np.testing.assert_allclose(view.place_mm, expected.place_mm)


def test_all_48_orientations_are_tried():
    assert len(set(ORIENTATIONS)) == 48


def test_right_is_on_the_left_and_front_and_top_are_up():
    """One bright voxel per plane, to the right, in front, on top of the center."""
    image, predicted, truth, affine = anatomy()
    view = look(image, predicted, truth, affine)
    x, y, z = view.center
    for plane, spot in zip(
        PLANES, [(19, 15, z), (19, y, 8), (x, 15, 8)], strict=True
    ):  # right and front; right and top; front and top
        marked = np.zeros(image.shape)
        marked[spot] = 1
        rows, columns = view.cut(marked, plane).nonzero()
        assert (rows.item(), columns.item()) == (0, 0), plane.name


def test_the_planes_meet_in_the_foreground_even_of_a_ring():
    ring = np.zeros((21, 21, 5), dtype=np.int64)
    ring[2:19, 2:19] = 1
    ring[5:16, 5:16] = 0
    view = look(ring.astype(float), np.zeros_like(ring), ring, np.eye(4))
    assert view.truth is not None
    assert view.truth[view.center] == 1


def test_the_place_is_given_in_the_coordinates_of_the_file():
    image, predicted, truth, affine = anatomy()
    view = look(image, predicted, truth, affine)
    voxel = np.linalg.inv(affine) @ [*view.place_mm, 1]
    assert truth[tuple(np.rint(voxel[:3]).astype(int))] > 0


def test_a_small_structure_in_a_large_volume_is_seen_close_up():
    truth = np.zeros((200, 200, 100), dtype=np.int64)
    truth[150:160, 20:30, 95:100] = 1
    view = look(truth.astype(float), truth, truth, np.eye(4))
    assert view.image.shape == (60, 60, 60)
    assert view.truth is not None
    assert (view.truth == 1).sum() == 500


def test_mistakes_are_what_they_are_called():
    truth = np.array([0, 0, 1, 1, 1, IGNORE, IGNORE])
    predicted = np.array([0, 2, 1, 0, 2, 0, 1])
    assert mistakes(predicted, truth).tolist() == [0, 2, 0, 1, 3, 4, 4]


def test_the_picture_shows_each_kind_of_mistake_in_its_color_and_nothing_else_does(tmp_path: Path):
    _, _, truth, _ = anatomy()
    predicted = truth.copy()
    predicted[3:5] = 0  # missed
    predicted[13:15, 4:8, 2:6] = 1  # spurious
    predicted[9:12, 4:8, 2:6] = 1  # wrong class

    def count(predicted: np.ndarray) -> list[int]:
        path = draw(tmp_path, predicted=predicted)
        with Pillow.open(path) as opened:
            pixels = np.asarray(opened.convert("RGB")).reshape(-1, 3)
        return [int((pixels == color).all(axis=1).sum()) for color in COLORS[:3]]

    right, wrong = count(truth), count(predicted)
    for in_legend, shown in zip(right, wrong, strict=True):
        assert 50 < in_legend < 400
        assert shown > in_legend + 500


def test_a_real_case_makes_a_small_readable_file(data: Path, tmp_path: Path):
    folder = data / "hippocampus"
    image = nib.load(folder / "imagesTr" / "hippocampus_001.nii.gz")
    label = nib.load(folder / "labelsTr" / "hippocampus_001.nii.gz")
    truth = np.asarray(label.dataobj).astype(np.int64)
    path = draw_volume(
        np.asarray(image.dataobj),
        np.roll(truth, 1, axis=1),
        truth,
        affine=image.affine,
        task=TASK,
        title="hippocampus_001",
        path=tmp_path / "a.png",
    )
    assert path.stat().st_size < 200_000
    width, height = size(path)
    assert 900 <= width <= 1100
    assert 500 <= height <= 1000


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("image", "predicted", "truth"),
    [
        ("constant", "none", "none"),
        ("nan", "some", "some"),
        ("inf", "all", "some"),
        ("integers", "some", "unseen"),
        ("random", "some", "partly unseen"),
        ("random", "none", "some"),
    ],
)
def test_awkward_cases_are_drawn_without_a_warning(image, predicted, truth, tmp_path):
    noise, _, label, _ = anatomy()
    partly = label.copy()
    partly[:6] = IGNORE
    images = {
        "constant": np.zeros_like(noise),
        "nan": np.full_like(noise, np.nan),
        "inf": np.where(noise > 0.5, np.inf, -np.inf),
        "integers": (noise * 2000 - 1000).astype(np.int16),
        "random": noise,
    }
    labels = {
        "none": np.zeros_like(label),
        "some": label,
        "all": np.ones_like(label),
        "unseen": np.full_like(label, IGNORE),
        "partly unseen": partly,
    }
    path = draw(tmp_path, images[image], labels[predicted], labels[truth])
    assert size(path)[0] > 500


@pytest.mark.filterwarnings("error")
def test_names_with_formulas_underscores_and_foreign_scripts_do_no_harm(tmp_path: Path):
    task = Task(1, ("b", "$\\frac{", "_hidden 海馬 " + "long " * 20), TASK.colors)
    path = draw(tmp_path, task=task, title="$unbalanced_{ 海馬 " + "long " * 40)
    assert path.exists()


@pytest.mark.parametrize("shape", [(60, 50, 1), (4, 4, 120), (3, 200, 3)])
def test_flat_tall_and_long_volumes_keep_a_sane_size(shape, tmp_path: Path):
    truth = np.zeros(shape, dtype=np.int64)
    truth[1:-1, 1:-1, : shape[2] // 2 + 1] = 1
    path = draw_volume(
        truth + 0.5, truth, truth, affine=np.eye(4), task=TASK, title="x", path=tmp_path / "a.png"
    )
    width, height = size(path)
    assert 600 < width < 1100
    assert 250 < height < 1100


def test_without_truth_there_are_two_columns(tmp_path: Path):
    image, predicted, _, affine = anatomy()
    path = draw_volume(
        image, predicted, None, affine=affine, task=TASK, title="x", path=tmp_path / "a.png"
    )
    assert size(path)[0] < 800


def test_many_classes_are_named_up_to_a_dozen(tmp_path: Path):
    names = ("background", *(f"structure {index}" for index in range(1, 120)))
    colors = tuple((index * 2, 255 - index, (index * 37) % 256) for index in range(120))
    labels = np.arange(20 * 16 * 9).reshape(20, 16, 9) // 24
    smooth = np.sin(np.arange(labels.size) / 300).reshape(labels.shape)
    path = draw(tmp_path, smooth, labels, labels, task=Task(1, names, colors))
    assert path.stat().st_size < 200_000


def test_a_prediction_that_is_mere_noise_is_drawn_in_seconds(tmp_path: Path):
    noise = np.random.default_rng(0).integers(0, 3, (100, 100, 20))
    started = time.perf_counter()
    path = draw_volume(
        noise + 0.5, noise, noise, affine=np.eye(4), task=TASK, title="x", path=tmp_path / "a.png"
    )
    assert time.perf_counter() - started < 20
    assert path.exists()


def test_the_same_case_makes_the_same_bytes_and_leaves_nothing_open(tmp_path: Path):
    first = draw(tmp_path).read_bytes()
    assert draw(tmp_path).read_bytes() == first
    assert [each.name for each in tmp_path.iterdir()] == ["case.png"]
    assert not Gcf.figs


def test_the_inputs_are_left_as_they_were(tmp_path: Path):
    image, predicted, truth, _ = anatomy()
    before = [each.copy() for each in (image, predicted, truth)]
    draw(tmp_path, image, predicted, truth)
    for each, kept in zip((image, predicted, truth), before, strict=True):
        np.testing.assert_array_equal(each, kept)


def test_a_missing_folder_is_said_in_words(tmp_path: Path):
    with pytest.raises(RunError, match="cannot be written"):
        draw(tmp_path / "nowhere")
