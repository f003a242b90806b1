"""The refiner ``sam``: what it accepts, what it doubts, what it leaves alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy import ndimage
from torch import Tensor

from common.batch import Pixel, SoftPseudo, Unlabeled, one_hot
from common.errors import ConfigError
from common.promptable import Promptable, load
from common.refiners import Sam
from common.refiners import sam as module
from tests.tiny_sam import tiny_sam, tiny_sam_2
from tests.toy import any_class


class Scripted(Promptable):
    """A model that grows each region by so many pixels, and writes down what it was asked."""

    @classmethod
    def growing(cls, pixels: int) -> Scripted:
        scripted = cls(model=None, processor=None, checkpoint="")
        scripted.grow, scripted.pictures, scripted.asked = pixels, [], []
        return scripted

    def masks(self, picture, regions, prompts, *, cache=None):
        self.pictures.append(picture)
        self.asked.append((len(regions), prompts, cache))
        grown = [self._moved(each) for each in regions]
        return [[np.zeros_like(each), each] for each in grown]

    def _moved(self, region):
        if self.grow == 0:
            return region
        change = ndimage.binary_dilation if self.grow > 0 else ndimage.binary_erosion
        return change(region, np.ones((3, 3)), abs(self.grow))


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch):
    def use(grow: int) -> Scripted:
        scripted = Scripted.growing(grow)
        monkeypatch.setattr(module, "load", lambda checkpoint, device: scripted)
        return scripted

    return use


def guessed(label: Tensor, *, classes: int = 3, weight: float = 0.7) -> SoftPseudo:
    """What is trusted alike everywhere, and sure."""
    return SoftPseudo(one_hot(label, classes), torch.full(label.shape, weight))


def shown(label: Tensor, *, channels: int = 1, classes: int = 3) -> Unlabeled:
    possible = any_class(classes, label.ndim - 1).expand(len(label), *[-1] * label.ndim)
    image = torch.randn(len(label), channels, *label.shape[1:], generator=torch.manual_seed(0))
    return Unlabeled(image, torch.ones_like(label, dtype=torch.bool), possible)


def squares() -> Tensor:
    """A large and a small square on background."""
    label = torch.zeros(1, 24, 20, dtype=torch.long)
    label[0, 2:12, 2:12], label[0, 15:18, 14:17] = 1, 2
    return label


def refine(sam: Sam, label: Tensor, **world) -> SoftPseudo:
    return sam(guessed(label), shown(label, **world), Pixel())


def test_an_accepted_outline_gives_its_pixels_the_class_and_no_more_trust(model) -> None:
    model(1)  # of 10 x 10 pixels 12 x 12: alike by 0.69; of 3 x 3 5 x 5: by 0.36
    label = squares()
    refined = refine(Sam(agreement=0.6, fewest=4), label)
    wanted = label.clone()
    wanted[0, 1:13, 1:13] = 1
    assert torch.equal(refined.predicted, wanted)
    assert (refined.weight == 0.7).all()


def test_what_the_outline_leaves_of_its_piece_teaches_nothing(model) -> None:
    model(-1)  # of 10 x 10 pixels 8 x 8: alike by 0.64; of 3 x 3 1: by 0.11
    label = squares()
    refined = refine(Sam(agreement=0.6, fewest=4), label)
    assert torch.equal(refined.predicted, label)
    doubted = (label == 1)[0].clone()
    doubted[3:11, 3:11] = False
    assert torch.equal(refined.weight[0] == 0, doubted)


@pytest.mark.parametrize("grow", [-1, 1, 2])
def test_a_model_that_disagrees_changes_nothing(model, grow: int) -> None:
    model(grow)
    label = squares()
    guess = guessed(label)
    refined = Sam(agreement=0.9, fewest=4)(guess, shown(label), Pixel())
    assert torch.equal(refined.probs, guess.probs)
    assert torch.equal(refined.weight, guess.weight)


def test_a_higher_agreement_changes_no_more(model) -> None:
    model(1)
    changed = [
        int((refine(Sam(agreement=each, fewest=4), squares()).predicted != squares()).sum())
        for each in (0.3, 0.5, 0.9)
    ]
    assert changed == [44 + 16, 44, 0]


def test_where_outlines_meet_the_one_most_like_its_piece_wins(model) -> None:
    model(1)
    label = torch.zeros(1, 20, 24, dtype=torch.long)
    label[0, 2:14, 2:14], label[0, 4:9, 15:20] = 1, 2  # the larger one is changed less by a rim
    refined = refine(Sam(agreement=0.4, fewest=4), label).predicted[0]
    assert (refined[3:10, 14] == 1).all()
    assert (refined[3:10, 15:21] == 2).all()


def test_specks_and_surroundings_are_not_asked_about(model) -> None:
    scripted = model(0)
    refine(Sam(fewest=4), squares())
    refine(Sam(fewest=10), squares())
    refine(Sam(fewest=4, largest=1.0), squares())
    assert [count for count, _, _ in scripted.asked] == [2, 1, 3]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_volumes_are_asked_about_slice_by_slice(model, axis: int) -> None:
    scripted = model(1)
    label = torch.zeros(1, 10, 12, 14, dtype=torch.long)
    label[0, 3:8, 3:9, 3:10] = 1
    refined = refine(Sam(agreement=0.3, fewest=4, axis=axis), label).predicted[0]
    sides = [side for at, side in enumerate(label.shape[1:]) if at != axis]
    assert {picture.shape for picture in scripted.pictures} == {(*sides, 3)}
    wanted = label[0].numpy().copy()
    for index in range(label.shape[1 + axis]):
        place = tuple(index if at == axis else slice(None) for at in range(3))
        wanted[place] = ndimage.binary_dilation(wanted[place], np.ones((3, 3)))
    np.testing.assert_array_equal(refined.numpy(), wanted)


@pytest.mark.parametrize(
    ("channels", "chosen", "wanted"),
    [(1, (), (0, 0, 0)), (2, (), (0, 0, 0)), (5, (), (0, 1, 2)), (5, (4, 1, 2), (3, 0, 1)),
     (5, (5,), (4, 4, 4))],
)  # fmt: skip
def test_the_model_sees_the_channels_asked_for_from_percentile_to_percentile(
    model, channels: int, chosen: tuple[int, ...], wanted: tuple[int, ...]
) -> None:
    scripted, label = model(0), squares()
    weak = shown(label, channels=channels)
    Sam(channels=chosen, fewest=4)(guessed(label), weak, Pixel())
    for at, channel in enumerate(wanted):
        values = weak.image[0, channel].numpy()
        low, high = np.percentile(values, (1, 99))
        stretched = np.clip((values - low) / (high - low), 0, 1) * 255
        np.testing.assert_allclose(scripted.pictures[0][..., at], stretched, atol=0.51)


def test_only_embeddings_of_whole_cases_are_kept(model, tmp_path) -> None:
    """Cases are looked at in inference mode, patches while training."""
    scripted, sam = model(0), Sam(fewest=4, cache=tmp_path)
    refine(sam, squares())
    with torch.inference_mode():
        refine(sam, squares())
    assert [cache for _, _, cache in scripted.asked] == [None, tmp_path]


def test_channels_that_are_not_there_or_too_many_are_refused(model) -> None:
    model(0)
    with pytest.raises(ConfigError, match="to see channel 4, but images have 2"):
        refine(Sam(channels=(4,)), squares(), channels=2)
    with pytest.raises(ValidationError, match="sees 1 channel or 3, got 2"):
        Sam(channels=(1, 2))


@pytest.mark.parametrize("folder", [tiny_sam, tiny_sam_2], ids=["sam", "sam 2"])
def test_a_model_from_a_folder_draws_what_it_draws_itself(folder, tmp_path) -> None:
    """End to end with random weights: the accepted masks, painted by hand."""
    label = squares()
    weak = shown(label, channels=3)
    sam = Sam(checkpoint=folder(), agreement=0.1, fewest=4, cache=tmp_path, largest=0.3)
    refined = sam(guessed(label), weak, Pixel())
    pieces = [(label[0] == each).numpy() for each in (1, 2)]
    ((picture, _),) = sam._slices(weak.image[0], weak.valid[0])
    offers = load(folder(), torch.device("cpu")).masks(picture, pieces, sam.prompts, cache=tmp_path)
    best = [
        max((module.alike(m, p), i) for i, m in enumerate(o))
        for o, p in zip(offers, pieces, strict=True)
    ]
    wanted = label[0].numpy().copy()
    for score, which, index in sorted((best[k][0], best[k][1], k) for k in (0, 1)):
        if score >= 0.1:
            wanted[offers[index][which]] = index + 1
    assert (wanted != label[0].numpy()).any()
    np.testing.assert_array_equal(refined.predicted[0].numpy(), wanted)
