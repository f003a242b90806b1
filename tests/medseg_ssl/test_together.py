"""Predicting with mirror images, with several runs, and with refiners."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from torch import nn

from common import verbs
from common.errors import ConfigError, RunError
from common.trained import restored
from medseg_ssl.domain import medseg
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
    assert "Wrote 1 label map." in said.out
