"""A whole folder predicted: cut off, gone on with, and shared by several processes."""

from __future__ import annotations

import json
import re

import nibabel as nib
import numpy as np
import pytest

from common import verbs
from common.errors import ConfigError
from common.splits import OneOf
from medseg_ssl.adapter import medseg
from tests.medseg_ssl.test_label import home, two_runs, voxels
from tests.medseg_ssl.volumes import image_and_label, save

__all__ = ["home", "two_runs"]  # fixtures


@pytest.fixture
def images(tmp_path):
    for number in range(5):
        save(tmp_path / "images" / f"c{number}.nii.gz", image_and_label(number)[0])
    return tmp_path / "images"


class CutOff(Exception):  # noqa: N818
    """What a killed process would not even say."""


def cut_off_after(count):
    def watch(path, number, total):
        if number == count:
            raise CutOff

    return watch


def test_a_call_that_was_cut_off_is_gone_on_with(two_runs, images, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(CutOff):
        verbs.predict(two_runs[0], medseg, [images], out, watch=cut_off_after(2))
    there = sorted(path.name for path in out.glob("*.nii.gz"))
    assert there == ["c0.nii.gz", "c1.nii.gz"]
    (out / "c0.nii.gz").write_bytes(b"corrected by hand")
    seen = []
    written = verbs.predict(
        two_runs[0], medseg, [images], out, watch=lambda *said: seen.append(said)
    )
    assert seen == [(out / f"c{index}.nii.gz", index + 1, 5) for index in range(5)]
    assert (out / "c0.nii.gz").read_bytes() == b"corrected by hand"
    whole = verbs.predict(two_runs[0], medseg, [images], tmp_path / "whole")
    for one, other in zip(written[1:], whole[1:], strict=True):
        np.testing.assert_array_equal(voxels(one), voxels(other))


def test_probabilities_are_written_where_they_are_asked_for(two_runs, images, tmp_path):
    out = tmp_path / "out"

    def predict():
        wish = ["probabilities=true"]
        return verbs.predict(two_runs[0], medseg, [images / "c1.nii.gz"], out, overrides=wish)

    (path,) = predict()
    probs = out / "probabilities" / "c1.nii.gz"
    found = nib.load(probs)
    np.testing.assert_array_equal(found.affine, nib.load(path).affine)
    read = found.get_fdata()
    np.testing.assert_allclose(read.sum(axis=-1), 1, atol=1e-4)
    classes = read.argmax(axis=-1).ravel()
    assert len({*zip(classes, voxels(path).ravel(), strict=True)}) == len({*classes})
    probs.unlink()
    predict()
    assert probs.exists()
    with pytest.raises(ConfigError, match="probabilities"):
        verbs.otherwise([two_runs[0]], medseg, ["probabilities=true"])


def test_another_image_checkpoint_or_question_is_predicted_anew(two_runs, images, tmp_path):
    out = tmp_path / "out"

    def again(run, *, overrides=()):
        """Which label maps a call writes, when there are others already."""
        for path in out.glob("*.nii.gz"):
            path.write_bytes(b"old")
        written = verbs.predict(run, medseg, [images], out, overrides=overrides)
        return [path.name for path in written if path.read_bytes() != b"old"]

    verbs.predict(two_runs[0], medseg, [images], out)
    assert again(two_runs[0]) == []
    save(images / "c3.nii.gz", image_and_label(9)[0])
    assert again(two_runs[0]) == ["c3.nii.gz"]
    every = [f"c{index}.nii.gz" for index in range(5)]
    assert again(two_runs[1]) == every
    assert again(two_runs[1], overrides=["source={name: mirrored}"]) == every
    (out / "predictions.json").write_text("[]", "utf-8")
    assert again(two_runs[1]) == every
    known = json.loads((out / "predictions.json").read_text("utf-8"))
    assert known["runs"] == [two_runs[1].name]
    assert sorted(known["images"]) == every


def test_processes_share_a_folder_and_leave_nothing_out(two_runs, images, tmp_path):
    parts = [
        verbs.predict(two_runs[0], medseg, [images], tmp_path / "out", part=OneOf(number, 3))
        for number in (3, 1, 2)
    ]
    assert [len(written) for written in parts] == [1, 2, 2]
    names = sorted(path.name for written in parts for path in written)
    assert names == [f"c{index}.nii.gz" for index in range(5)]
    records = sorted(path.name for path in (tmp_path / "out").glob("*.json"))
    assert records == [f"predictions-{number}-of-3.json" for number in (1, 2, 3)]


@pytest.mark.parametrize("text", ["0/2", "3/2", "2", "a/b", "-1/2", "1/0"])
def test_a_part_that_cannot_be_is_refused(text):
    with pytest.raises(ConfigError, match=re.escape(f"--part {text}: give one of several parts")):
        OneOf.read(text, "--part")
    assert OneOf.read("2/4", "--part") == OneOf(2, 4)
