from __future__ import annotations

import pytest

from medseg_ssl.cases import VolumeCase
from medseg_ssl.cohort import cohort
from tests.medseg_ssl.volumes import image_and_label, oblique, save


@pytest.fixture
def cases(tmp_path) -> list[VolumeCase]:
    """Of two patients; one lies with its axes in another order, one has thicker slices."""
    lie = [oblique(), oblique((1.2, 2.5, 1.0), codes="PSL"), oblique((1.0, 1.2, 5.0))]
    shapes = [(14, 12, 10), (12, 10, 14), (20, 12, 10)]
    return [
        VolumeCase(
            id=str(index),
            group="ab"[index // 2],
            images=(save(tmp_path / f"{index}.nii.gz", image_and_label(shape=shape)[0], affine),),
        )
        for index, (affine, shape) in enumerate(zip(lie, shapes, strict=True))
    ]


def test_sides_and_spacings_are_those_to_the_right_the_front_and_the_top(cases):
    said = cohort(cases[:2], knows_patients=True)
    assert said == "2 cases of 1 patient; 14 x 12 x 10 voxels of 1 x 1.2 x 2.5 mm"


def test_what_differs_is_a_range_and_unknown_patients_are_not_counted(cases):
    said = cohort(cases, knows_patients=False)
    assert said == "3 cases; 14 to 20 x 12 x 10 voxels of 1 x 1.2 x 2.5 to 5 mm"


def test_an_empty_split_is_no_error():
    assert cohort([], knows_patients=True) == "0 cases of 0 patients"
