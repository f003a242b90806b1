"""MONAI's dictionary transforms in the strong view: repeatable, in place, refused in words."""

from __future__ import annotations

import pickle

import pytest
import torch

from common import config
from common.errors import ConfigError
from medseg_ssl.augment import StrongView
from medseg_ssl.monai_transform import MonaiTransform
from medseg_ssl.settings import MedsegRun

TRANSFORMS = {
    "RandBiasFieldd": {"prob": 1.0},
    "RandHistogramShiftd": {"prob": 1.0, "num_control_points": [3, 6]},
    "RandCoarseDropoutd": {"prob": 1.0, "holes": 2, "spatial_size": [3, 3, 1]},
    "RandGaussianNoised": {"prob": 1.0},
    "RandSmoothFieldAdjustContrastd": {
        "prob": 1.0,
        "spatial_size": [8, 7, 1],
        "rand_size": [3, 3, 1],
    },
}
every = pytest.mark.parametrize(("target", "arguments"), TRANSFORMS.items(), ids=TRANSFORMS.keys())
CALM = {each: {"share": 0} for each in StrongView.model_fields if each != "monai"}
RUN = """
domain:
  data: somewhere
  channels: [MRI]
  classes: [{name: background, value: 0}, {name: organ, value: 1}]
  splits: {labeled: [a], unlabeled: rest, test: [b]}
  patch: [8, 8, 4]
  strong:
    monai:
      - TRANSFORM
method: {name: fixmatch}
fit: {steps: 2}
"""


def images():
    return torch.randn(3, 2, 8, 7, 1, generator=torch.Generator().manual_seed(0))


def view(strong, seed=0):
    torch.manual_seed(seed)
    return strong(images())


@every
def test_a_transform_is_a_function_of_torch_s_seed_and_keeps_the_grid(target, arguments):
    strong = StrongView.model_validate(
        CALM | {"monai": [{"target": target, "arguments": arguments}]}
    )
    changed = view(strong)
    assert type(changed) is torch.Tensor
    assert changed.shape == (3, 2, 8, 7, 1)
    assert changed.dtype == torch.float32
    assert changed.isfinite().all()
    assert not torch.equal(changed, images())
    assert torch.equal(changed, view(strong))
    assert not torch.equal(changed, view(strong, 1))
    assert torch.equal(changed, view(pickle.loads(pickle.dumps(strong))))


def test_each_image_has_a_draw_of_its_own_and_the_batch_stays_as_it_was():
    noise = MonaiTransform(target="RandGaussianNoised", arguments={"prob": 1.0})
    twins = torch.zeros(4, 1, 6, 6, 6)
    changed = noise(twins)
    assert len({tuple(each.flatten().tolist()) for each in changed}) == 4
    assert (twins == 0).all()


def test_transforms_follow_each_other():
    both = [
        {"target": "ShiftIntensityd", "arguments": {"offset": 1.0}},
        {"target": "ThresholdIntensityd", "arguments": {"threshold": 0.5, "cval": 7.0}},
    ]
    strong = StrongView.model_validate(CALM | {"monai": both})
    expected = torch.where(images() + 1 > 0.5, images() + 1, 7.0)
    torch.testing.assert_close(view(strong), expected)


def refusal(tmp_path, transform):
    path = tmp_path / "a.yaml"
    path.write_text(RUN.replace("TRANSFORM", transform), encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        config.load(path, MedsegRun)
    first, *problems = str(error.value).splitlines()
    assert first == f"{path}: 1 problem"
    (problem,) = problems
    return problem.strip()


@pytest.mark.parametrize(
    ("transform", "problem"),
    [
        (
            "{target: RandBiasFeildd}",
            "domain.strong.monai.0 (line 10): monai.transforms has no dictionary transform "
            "'RandBiasFeildd'. Did you mean 'RandBiasFieldd'?",
        ),
        (
            "{target: RandGibbsNoise}",
            "domain.strong.monai.0 (line 10): monai.transforms has no dictionary transform "
            "'RandGibbsNoise'. Did you mean 'RandGibbsNoised'?",
        ),
        (
            "{target: RandFlipd, arguments: {prob: 0.5}}",
            "domain.strong.monai.0 (line 10): 'RandFlipd' is no transform of intensities, and in "
            "the strong view voxels stay where their pseudo-labels are. Choose one of "
            "monai.transforms.intensity, and let domain.weak move voxels.",
        ),
        (
            "{target: RandGibbsNoised, arguments: {keys: label}}",
            "domain.strong.monai.0 (line 10): arguments: the strong view sees the image alone. "
            "Remove 'keys'.",
        ),
        (
            "{target: RandGibbsNoised, arguments: {alpha: 7.0}}",
            "domain.strong.monai.0 (line 10): monai.transforms.RandGibbsNoised cannot be made with "
            "{'alpha': 7.0}: alpha must take values in the interval [0, 1]",
        ),
        (
            "{target: MaskIntensityd}",
            "domain (line 3): strong.monai.0: MaskIntensityd fails on a patch of (1, 8, 8, 4): "
            "must provide the mask_data when initializing the transform or at runtime.",
        ),
    ],
)
def test_a_mistake_is_told_when_the_file_is_read(tmp_path, transform, problem):
    assert refusal(tmp_path, transform) == problem


@pytest.mark.parametrize("target", ["Rand3DElasticd", "SpatialPadd", "RandSmoothDeformd", "MixUpd"])
def test_what_moves_voxels_is_refused_by_name(target):
    with pytest.raises(ValueError, match=f"'{target}' is no transform of intensities"):
        MonaiTransform(target=target)


def test_what_changes_a_shape_is_refused():
    mask = MonaiTransform(target="ForegroundMaskd")
    assert mask.unfit(2, (8, 8, 5)) == (
        "ForegroundMaskd makes (1, 8, 8, 5) of a patch of (2, 8, 8, 5), but a strong view has the "
        "voxels of its image. Change its arguments, or remove it."
    )


def test_a_rare_transform_is_tried_all_the_same():
    rare = {"prob": 0.0, "holes": 1, "spatial_size": [2, 2, 2, 2]}
    assert "fails on a patch of" in str(
        MonaiTransform(target="RandCoarseDropoutd", arguments=rare).unfit(1, (8, 8, 4))
    )


def test_a_run_gives_its_transforms_back(tmp_path):
    path, again = tmp_path / "a.yaml", tmp_path / "run.yaml"
    text = RUN.replace("TRANSFORM", "{target: RandBiasFieldd, arguments: {prob: 0.3}}")
    path.write_text(text, encoding="utf-8")
    run = config.load(path, MedsegRun)
    config.save(run, again)
    assert config.load(again, MedsegRun) == run
