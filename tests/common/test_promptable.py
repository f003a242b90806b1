"""Foundation models that draw masks: loaded, asked, and kept on disk."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import ConfigError
from common.promptable import Promptable, box_of, innermost, load
from tests.tiny_sam import tiny_sam, tiny_sam_2

CPU = torch.device("cpu")
PROMPTS = [("box",), ("point",), ("mask",), ("box", "point"), ("box", "point", "mask")]

each_model = pytest.mark.parametrize("folder", [tiny_sam, tiny_sam_2], ids=["sam", "sam 2"])


def a_picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (40, 30, 3)).astype(np.uint8)


def regions(count: int = 2) -> list[np.ndarray]:
    """Rectangles on the grid of the picture."""
    found = np.zeros((count, 40, 30), dtype=bool)
    for index in range(count):
        found[index, 3 + index : 20 + index, 2 * index : 2 * index + 9] = True
    return [*found]


@each_model
@pytest.mark.parametrize("prompts", PROMPTS, ids="+".join)
def test_each_region_is_offered_masks_on_the_grid_whatever_else_is_asked(folder, prompts) -> None:
    model, asked = load(folder(), CPU), regions(10)  # more than go into one pass
    offers = model.masks(a_picture(), asked, prompts)
    assert [len(offer) for offer in offers] == [3] * 10
    assert all(mask.shape == (40, 30) and mask.dtype == bool for offer in offers for mask in offer)
    alone = model.masks(a_picture(), asked[7:8], prompts)
    np.testing.assert_array_equal(alone[0], offers[7])


@each_model
def test_the_masks_of_a_box_are_those_of_the_library_itself(folder) -> None:
    model, picture, (region, *_) = load(folder(), CPU), a_picture(), regions()
    ours = model.masks(picture, [region], ("box",))[0]
    told = model.processor(
        images=picture, input_boxes=[[[0.0, 3.0, 8.0, 19.0]]], return_tensors="pt"
    )
    sizes = [told.pop(key) for key in ("original_sizes", "reshaped_input_sizes") if key in told]
    out = model.model(**{key: value.float() for key, value in told.items()})
    theirs = model.processor.post_process_masks(out.pred_masks, *sizes)[0]
    np.testing.assert_array_equal(ours, theirs.reshape(3, 40, 30).numpy())


@each_model
def test_prompts_change_what_is_drawn(folder) -> None:
    model, (region, *_) = load(folder(), CPU), regions()
    drawn = [model.masks(a_picture(), [region], each)[0] for each in PROMPTS[:3]]
    assert not np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])


@each_model
def test_embeddings_are_computed_once_per_picture(folder, tmp_path: Path, monkeypatch) -> None:
    model, asked, computed = load(folder(), CPU), regions(), []
    embed = type(model.model).get_image_embeddings

    def counted(self: object, pixels: torch.Tensor) -> object:
        computed.append(len(pixels))
        return embed(self, pixels)

    monkeypatch.setattr(type(model.model), "get_image_embeddings", counted)
    first = model.masks(a_picture(), asked, ("box",), cache=tmp_path)
    again = model.masks(a_picture(), asked, ("box",), cache=tmp_path)
    np.testing.assert_array_equal(first, again)
    assert computed == [1]
    model.masks(a_picture(seed=1), asked, ("box",), cache=tmp_path)
    model._replace(checkpoint="other").masks(a_picture(), asked, ("box",), cache=tmp_path)
    assert computed == [1, 1, 1]
    assert len([*tmp_path.glob("*.pt")]) == 3
    assert len([*tmp_path.iterdir()]) == 3


def test_a_torn_embedding_is_computed_again(tmp_path: Path) -> None:
    model, asked = load(tiny_sam(), CPU), regions()
    whole = model.masks(a_picture(), asked, ("box",), cache=tmp_path)
    (kept,) = tmp_path.iterdir()
    kept.write_bytes(kept.read_bytes()[:100])
    np.testing.assert_array_equal(model.masks(a_picture(), asked, ("box",), cache=tmp_path), whole)
    assert kept.stat().st_size > 100


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot keep embeddings in '.*file': .*another folder"):
        load(tiny_sam(), CPU).masks(a_picture(), regions(), ("box",), cache=tmp_path / "file")


@pytest.mark.parametrize("name", ["facebook/sam-vit-base", "no/such/folder", "empty"])
def test_a_missing_model_is_one_clear_sentence(name: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    with pytest.raises(
        ConfigError, match=f"finds no model '{name}' that draws masks. Give"
    ) as told:
        load(name, CPU)
    assert "\n" not in str(told.value)


def test_a_missing_package_is_one_clear_sentence(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    load.cache_clear()
    with pytest.raises(ConfigError, match=r"needs the package transformers.*seg-ssl\[sam\]"):
        load(tiny_sam(), CPU)


masks = (
    st.integers(0, 10_000)
    .map(lambda seed: np.random.default_rng(seed).random((7, 5)) < 0.3)
    .filter(np.any)
)


@given(masks)
@settings(max_examples=50, deadline=None)
def test_the_box_is_tight_and_the_innermost_pixel_is_the_deepest(region: np.ndarray) -> None:
    left, top, right, bottom = (int(each) for each in box_of(region))
    rows, columns = np.nonzero(region)
    assert (top, bottom) == (rows.min(), rows.max())
    assert (left, right) == (columns.min(), columns.max())

    x, y = (int(each) for each in innermost(region))
    assert region[y, x]
    outside = np.argwhere(~np.pad(region, 1)) - 1
    depths = [np.hypot(*(outside - (r, c)).T).min() for r, c in zip(rows, columns, strict=True)]
    assert np.hypot(*(outside - (y, x)).T).min() == pytest.approx(max(depths))


def test_a_model_is_loaded_once() -> None:
    assert load(tiny_sam(), CPU) is load(tiny_sam(), CPU)
    assert isinstance(load(tiny_sam(), CPU), Promptable)
