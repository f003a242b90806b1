"""Mixing: who lies where is written into the pixels, and read back after the mix."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from common.batch import IGNORE, Pseudo, SoftPseudo
from common.errors import ShapeError
from common.mixing import ClassMix, CutMix, NoMix, boxes, half_of_the_classes, partners
from common.schedules import Linear

CPU = torch.device("cpu")
SIDES = {2: (12, 9), 3: (7, 8, 6)}
dimensions = pytest.mark.parametrize("dims", [2, 3], ids=["tiles", "volumes"])


def who_and_where(batch: int, sides: tuple[int, ...]) -> Tensor:
    """``(B, 1 + axes, *S)``: the number of the sample, and the coordinates of each pixel."""
    grid = torch.meshgrid(*[torch.arange(side) for side in sides], indexing="ij")
    where = torch.stack(grid).expand(batch, -1, *sides)
    who = torch.arange(batch).view(batch, 1, *[1] * len(sides)).expand(batch, 1, *sides)
    return torch.cat([who, where], dim=1).float()


def predicted(classes: Tensor) -> Pseudo:
    return Pseudo(classes.long(), torch.ones_like(classes, dtype=torch.float32))


@given(st.integers(2, 40), st.integers(0, 10_000))
@settings(max_examples=100, deadline=None)
def test_the_partner_is_never_the_image_itself_f5(batch: int, seed: int) -> None:
    torch.manual_seed(seed)
    partner = partners(batch, CPU)
    assert (partner != torch.arange(batch)).all()
    assert sorted(partner.tolist()) == list(range(batch))


def test_every_other_image_can_be_the_partner() -> None:
    torch.manual_seed(0)
    drawn = torch.stack([partners(4, CPU) for _ in range(300)])
    for sample in range(4):
        counts = torch.bincount(drawn[:, sample], minlength=4)
        assert counts[sample] == 0
        assert (counts[torch.arange(4) != sample] > 60).all()


@pytest.mark.parametrize("batch", [0, 1])
def test_a_lone_image_is_refused_in_words(batch: int) -> None:
    message = (
        f"Mixing needs a partner for each image, but the batch holds {batch} unlabeled. "
        "Set domain.batch.unlabeled to 2 or more, or method.mix.name to none."
    )
    with pytest.raises(ShapeError, match=f"^{re.escape(message)}$"):
        CutMix().draw(torch.zeros(batch, 1, 8, 8), predicted(torch.zeros(batch, 8, 8)))


@dimensions
@given(seed=st.integers(0, 10_000), batch=st.integers(2, 5))
@settings(max_examples=30, deadline=None)
def test_image_label_and_trust_move_alike_f9(dims: int, seed: int, batch: int) -> None:
    sides = SIDES[dims]
    image = who_and_where(batch, sides)
    who = image[:, 0]
    probs = torch.stack([who, 100 - who], dim=1)
    hard, soft = Pseudo(who.long(), who / batch), SoftPseudo(probs, who / batch)

    torch.manual_seed(seed)
    cut = CutMix().draw(image, predicted(image[:, 0]))
    mixed, label, trust = cut.image(image), *cut.pseudo(hard)
    soft_label, soft_trust = cut.pseudo(soft)

    assert torch.equal(mixed[:, 1:], image[:, 1:])  # nothing moved within the image
    assert torch.equal(label, mixed[:, 0].long())
    assert torch.equal(trust, mixed[:, 0] / batch)
    assert torch.equal(soft_label, torch.stack([mixed[:, 0], 100 - mixed[:, 0]], dim=1))
    assert torch.equal(soft_trust, trust)
    for sample in range(batch):
        inside = cut.where[sample]
        assert (mixed[sample, 0][inside] == cut.partner[sample]).all()
        assert (mixed[sample, 0][~inside] == sample).all()


@dimensions
def test_the_types_of_pseudo_labels_survive(dims: int) -> None:
    image = who_and_where(2, SIDES[dims])
    who = image[:, 0]
    for kind in (CutMix(), NoMix()):
        mix = kind.draw(image, predicted(who))
        assert type(mix.pseudo(Pseudo(who.long(), who))) is Pseudo
        assert type(mix.pseudo(SoftPseudo(image, who))) is SoftPseudo


def test_no_mix_gives_back_the_very_same() -> None:
    image = who_and_where(1, SIDES[2])
    pseudo = Pseudo(image[:, 0].long(), image[:, 0])
    same = NoMix().draw(image, predicted(image[:, 0]))
    assert same.image(image) is image
    assert same.pseudo(pseudo) is pseudo


@pytest.mark.parametrize("sides", [(64, 64), (96, 40), (32, 24, 28)])
@given(
    seed=st.integers(0, 10_000),
    shares=st.tuples(st.floats(0.1, 1.0), st.floats(0.1, 1.0)).map(sorted),
)
@settings(max_examples=40, deadline=None)
def test_a_box_covers_the_share_asked_for(
    sides: tuple[int, ...], seed: int, shares: list[float]
) -> None:
    low, high = shares
    torch.manual_seed(seed)
    inside = boxes(torch.zeros(6, 1, *sides), low, high)
    for box in inside:
        share = float(box.float().mean())
        most = least = share  # before each side was rounded to whole pixels
        for length in (int(along.sum()) for along in projections(box)):
            most, least = most * (length + 0.5) / length, least * (length - 0.5) / length
        assert least <= high + 1e-6
        assert most >= low - 1e-6


def projections(box: Tensor) -> list[Tensor]:
    return [box.movedim(axis, 0).flatten(1).any(dim=1) for axis in range(box.ndim)]


@dimensions
@given(seed=st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_a_box_is_one_box(dims: int, seed: int) -> None:
    torch.manual_seed(seed)
    for box in boxes(torch.zeros(4, 2, *SIDES[dims]), 0.0, 0.6):
        along = projections(box)
        filled = torch.ones_like(box)
        for axis, hit in enumerate(along):
            assert int(hit.int().diff().abs().sum()) + int(hit[0]) + int(hit[-1]) == 2  # one run
            filled &= hit.view([-1 if a == axis else 1 for a in range(box.ndim)])
        assert torch.equal(filled, box)


@dimensions
def test_boxes_reach_every_pixel_and_every_border(dims: int) -> None:
    torch.manual_seed(0)
    inside = boxes(torch.zeros(400, 1, *SIDES[dims]), 0.25, 0.5)
    assert inside.any(dim=0).all()
    assert not inside.all(dim=0).any()
    for axis in range(1, inside.ndim):
        along = inside.movedim(axis, -1).flatten(1, -2).any(dim=1)
        assert float(along[:, 0].float().mean()) == pytest.approx(
            float(along[:, -1].float().mean()), abs=0.1
        )


def test_each_sample_gets_its_own_box() -> None:
    torch.manual_seed(0)
    inside = boxes(torch.zeros(8, 1, 32, 32), 0.25, 0.5)
    assert len({tuple(box.flatten().tolist()) for box in inside}) == 8


def test_the_whole_share_is_the_whole_image() -> None:
    assert boxes(torch.zeros(3, 1, 5, 6), 1.0, 1.0).all()


def test_mixing_waits_for_no_device() -> None:
    image = torch.zeros(4, 2, 8, 8, device="meta")  # a value asked of it would raise
    pseudo = Pseudo(image[:, 0].long(), image[:, 0])
    cut = CutMix().draw(image, predicted(image[:, 0]))
    assert cut.image(image).shape == image.shape
    assert cut.pseudo(pseudo).weight.shape == pseudo.weight.shape


@given(st.integers(0, 10_000), st.integers(1, 7))
@settings(max_examples=50, deadline=None)
def test_half_of_the_classes_of_each_sample_are_pasted_whole(seed: int, classes: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (3, 6, 5), generator=rng)
    labels[:, 0] = IGNORE
    torch.manual_seed(seed)
    chosen = half_of_the_classes(labels)
    for sample, where in zip(labels, chosen, strict=True):
        present = set(sample.unique().tolist()) - {IGNORE}
        pasted = set(sample[where].tolist())
        assert len(pasted) == len(present) // 2
        assert not pasted & set(sample[~where].tolist())  # a class is pasted whole or not at all


@pytest.mark.parametrize("chance", [0.0, 0.5, 1.0])
def test_each_image_is_cut_by_chance_or_stays_whole(chance: float) -> None:
    torch.manual_seed(0)
    image = torch.zeros(400, 1, 8, 8)
    cut = CutMix(chance=chance).draw(image, predicted(torch.zeros(400, 8, 8)))
    touched = cut.where.flatten(1).any(dim=1).float().mean()
    assert float(touched) == pytest.approx(chance, abs=0.08)


@dimensions
def test_where_there_is_anything_to_see_moves_with_the_image(dims: int) -> None:
    torch.manual_seed(0)
    image = who_and_where(5, SIDES[dims])
    valid = torch.rand(image[:, 0].shape) < 0.5
    cut = CutMix().draw(image, predicted(image[:, 0]))
    assert torch.equal(cut.valid(valid), cut.image(valid[:, None].float())[:, 0].bool())
    uncut = NoMix().draw(image, predicted(image[:, 0]))
    assert torch.equal(uncut.valid(valid), valid)


def test_each_class_is_as_likely_to_be_pasted() -> None:
    torch.manual_seed(0)
    labels = torch.tensor([[0, 1, 2, 3]]).repeat(400, 1)
    share = half_of_the_classes(labels).float().mean(dim=0)
    assert ((share - 0.5).abs() < 0.1).all()


def test_classmix_takes_pixels_of_the_partner_where_the_partner_shows_the_class() -> None:
    torch.manual_seed(0)
    labels = torch.randint(0, 4, (4, 8, 8))
    image = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 8, 8)
    cut = ClassMix().draw(image, predicted(labels))
    mixed, pseudo = cut.image(image), cut.pseudo(predicted(labels))
    for sample in range(4):
        partner, inside = cut.partner[sample], cut.where[sample]
        assert inside.any()
        assert not inside.all()
        assert (mixed[sample, 0][inside] == partner).all()
        assert torch.equal(pseudo.target[sample][inside], labels[partner][inside])
        assert torch.equal(pseudo.target[sample][~inside], labels[sample][~inside])


def test_how_often_and_how_much_is_cut_may_change_while_training() -> None:
    image = torch.zeros(64, 1, 16, 16)
    pseudo = Pseudo(torch.zeros(64, 16, 16).long(), torch.ones(64, 16, 16))
    mix = CutMix(chance=Linear(end=1.0), share_low=0.2, share_high=Linear(start=0.2, end=0.8))
    never, half, always = (mix.draw(image, pseudo, at).where.flatten(1) for at in (0, 0.5, 1))
    assert not never.any()
    assert 16 < half.any(dim=1).sum() < 48
    assert always.any(dim=1).all()
    assert half.float().mean(dim=1).max() < 0.6 < always.float().mean(dim=1).max()


def test_a_chance_above_1_is_refused_in_a_schedule_too() -> None:
    with pytest.raises(ValidationError, match="less than or equal to 1"):
        CutMix(chance={"name": "linear", "end": 1.5})
