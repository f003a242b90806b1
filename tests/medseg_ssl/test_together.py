"""Predicting with mirror images, with several runs, and with refiners."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from torch import nn

from common import verbs
from common.batch import IGNORE
from common.errors import ConfigError, RunError
from common.record import read_cases
from common.trained import restored
from medseg_ssl.adapter import medseg
from tests.common import diagnosed
from tests.medseg_ssl.test_label import home, two_runs, voxels

__all__ = ["home", "two_runs"]  # fixtures


def probabilities(folder, case, *, axes=()):
    """What the run says of a case on the preprocessed grid mirrored along ``axes``, turned back."""
    found = restored(folder, medseg)
    network = found.learner.nets.predictor.eval()
    turned = [2 + axis for axis in axes]
    return found.domain.predict(Turned(network, turned) if axes else network, case).numpy()


class Turned(nn.Module):
    def __init__(self, network, axes):
        super().__init__()
        self.network, self.axes = network, axes

    def forward(self, image):
        return self.network(image.flip(self.axes)).flip(self.axes)


def first_case(folder):
    return next(iter(restored(folder, medseg).domain.cases("test")))


def indices(path, case):
    """Class indices of a label map."""
    values = voxels(path)
    return np.searchsorted(case.values, values)


def agree(found, probs):
    """Where rounding cannot change the class."""
    top = np.sort(probs, axis=0)
    told = top[-1] - top[-2] > 1e-4
    assert told.mean() > 0.9
    np.testing.assert_array_equal(found[told], probs.argmax(axis=0)[told])


def test_one_run_predicts_as_ever(two_runs, tmp_path):
    case = first_case(two_runs[0])
    (plain,) = verbs.predict(two_runs[0], medseg, [case.images[0]], tmp_path / "out")
    agree(indices(plain, case), probabilities(two_runs[0], case))


def test_mirror_images_are_asked_too(two_runs, tmp_path):
    case = first_case(two_runs[0])
    asking = ["source={name: mirrored}"]
    (path,) = verbs.predict(
        two_runs[0], medseg, [case.images[0]], tmp_path / "out", overrides=asking
    )
    mirrors = restored(two_runs[0], medseg).domain.mirrors
    assert mirrors
    looks = [probabilities(two_runs[0], case)]
    looks += [probabilities(two_runs[0], case, axes=[axis]) for axis in mirrors]
    agree(indices(path, case), np.mean(looks, axis=0))


@pytest.mark.parametrize("combine", ["mean", "vote"])
def test_several_runs_predict_together(two_runs, tmp_path, combine):
    case = first_case(two_runs[0])
    asking = [f"combine={combine}"]
    (path,) = verbs.predict(two_runs, medseg, [case.images[0]], tmp_path / "out", overrides=asking)
    both = np.stack([probabilities(folder, case) for folder in two_runs])
    if combine == "vote":
        both = (both == both.max(axis=1, keepdims=True)).astype(float)
        both[0] += 1e-3  # of equal votes the first class wins, as argmax says
        joint = both.mean(axis=0).round(2)
        np.testing.assert_array_equal(indices(path, case), joint.argmax(axis=0))
    else:
        agree(indices(path, case), both.mean(axis=0))


def test_refiners_clean_what_is_predicted(two_runs, tmp_path):
    case = first_case(two_runs[0])
    asking = ["refiners=[{name: largest_component}]"]
    (path,) = verbs.predict(
        two_runs[0], medseg, [case.images[0]], tmp_path / "out", overrides=asking
    )
    predicted = probabilities(two_runs[0], case).argmax(axis=0)
    pieces = 0
    for label in (1, 2):
        named, count = ndimage.label(predicted == label, structure=np.ones((3, 3, 3)))
        pieces = max(pieces, count)
        found, left = ndimage.label(indices(path, case) == label, structure=np.ones((3, 3, 3)))
        assert left == min(count, 1)
        if count:
            assert found.astype(bool).sum() == np.bincount(named.ravel())[1:].max()
    assert pieces > 1  # or nothing was shown


def test_what_cannot_be_asked_is_refused(two_runs, tmp_path):
    case = first_case(two_runs[0])

    def refused(*overrides):
        verbs.predict(two_runs[0], medseg, case.images, tmp_path / "out", overrides=overrides)

    with pytest.raises(ConfigError, match="one run has nothing to combine"):
        refused("combine=vote")
    with pytest.raises(ConfigError, match="would get the same answer each time"):
        refused("source={name: mc_dropout}")
    with pytest.raises(ConfigError, match="filter: unknown key"):
        refused("filter={name: all}")
    with pytest.raises(RunError, match="holds no best"):
        verbs.predict([two_runs[0], tmp_path], medseg, case.images, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_takes_more_runs_and_how_to_ask(two_runs, tmp_path):
    case, first, second = first_case(two_runs[0]), *two_runs
    output = ("--output", tmp_path / "out")
    said = diagnosed.command(
        medseg, "predict", first, case.images[0], "--also", second, "--set", "combine=vote", *output
    )
    assert said.code == 0, said.err
    assert "1 label map lies in " in said.out


def test_an_evaluation_of_other_predictions_has_a_folder_of_its_own(two_runs, tmp_path):
    first = two_runs[0]
    before = {path: path.read_bytes() for path in first.iterdir() if path.is_file()}
    asked = verbs.otherwise(two_runs, medseg, ["combine=vote", "refiners=[{name: fill_holes}]"])
    report = verbs.evaluate(first, medseg, otherwise=asked, output=tmp_path / "together")
    assert {path: path.read_bytes() for path in first.iterdir() if path.is_file()} == before

    page = report.read_text("utf-8")
    assert "predicted by run0, run1 together, by vote; then fill_holes, largest null." in page
    case = first_case(first)
    written = read_cases(tmp_path / "together" / "cases.csv")
    dice = written[(written["case"] == case.id) & (written["metric"] == "dice")].set_index("class")
    predicted = voxels(tmp_path / "together" / "predictions" / f"{case.id}.nii.gz")
    truth = np.array(case.values)[np.where(case.truth == IGNORE, 0, case.truth)]
    known = case.truth.numpy() != IGNORE
    for name, value in (("a", case.values[1]), ("b", case.values[2])):
        a, b = (predicted == value) & known, (truth == value) & known
        label = restored(first, medseg).domain.task.classes[1 if name == "a" else 2]
        assert dice.loc[label, "value"] == pytest.approx(2 * (a & b).sum() / (a.sum() + b.sum()))


def test_an_evaluation_of_other_predictions_never_overwrites(two_runs, tmp_path):
    first, second = two_runs
    said = diagnosed.command(medseg, "evaluate", first, "--also", second)
    assert said.code == 2
    assert "needs a folder of its own. Name it with --output" in " ".join(said.err.split())
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    said = diagnosed.command(
        medseg, "evaluate", first, "--also", second, "--output", tmp_path / "full"
    )
    assert said.code == 2
    assert "holds something else" in " ".join(said.err.split())
