"""Networks given away answer as those that were trained, and MONAI writes the same label maps."""

from __future__ import annotations

import json
import re
import shutil

import monai.bundle
import nibabel as nib
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from common import shipping, verbs
from common.errors import ConfigError, RunError
from common.trained import restored
from medseg_ssl.adapter import medseg
from medseg_ssl.cases import read_array
from tests.medseg_ssl.test_domain import run_of
from tests.medseg_ssl.volumes import oblique, plain


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Of one network and of two that vote; on a turned, uneven grid, resampled to 2 mm."""
    home = tmp_path_factory.mktemp("runs")
    data = plain(home / "data", affine=oblique((1.0, 1.2, 2.5), codes="LPS"))
    folders = {}
    for method in ("supervised", "cross_pseudo"):
        run = run_of(data, home / "cache", method=method, spacing_mm=[2.0, 2.0, 2.0])
        folders[method] = home / method
        verbs.train(run, medseg, folders[method])
    return folders


def asked(folder):
    """Two inputs, and what the trained network says of them."""
    found = restored(folder, medseg)
    image = torch.randn(2, 1, *found.domain.settings.patch)
    with torch.no_grad():
        return image, found.learner.nets.predictor(image).float().softmax(dim=1)


@pytest.mark.parametrize("method", ["supervised", "cross_pseudo"])
def test_pytorch_alone_answers_as_the_trained_network(runs, tmp_path, method):
    path = verbs.export(runs[method], medseg, tmp_path / "out", to="torch")
    image, probs = asked(runs[method])
    with torch.no_grad():
        answer = torch.export.load(path).module()(image)
    torch.testing.assert_close(answer, probs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", ["supervised", "cross_pseudo"])
def test_onnx_answers_as_the_trained_network(runs, tmp_path, method):
    path = verbs.export(runs[method], medseg, tmp_path / "out", to="onnx")
    image, probs = asked(runs[method])
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (answer,) = session.run(["probabilities"], {"image": image.numpy()})
    np.testing.assert_allclose(answer, probs.numpy(), atol=1e-5)


def test_what_the_network_needs_to_know_lies_beside_it_and_in_the_file(runs, tmp_path):
    path = verbs.export(runs["supervised"], medseg, tmp_path / "out", to="onnx")
    facts = json.loads((tmp_path / "out" / "model.json").read_text("utf-8"))
    assert facts["input"] == {"name": "image", "shape": ["batch", 1, 16, 16, 16], "type": "float32"}
    assert [(each["name"], each["value"]) for each in facts["classes"]] == [
        ("background", 0),
        ("organ", 1),
        ("lesion", 4),
    ]
    assert facts["spacing_mm"] == [2.0, 2.0, 2.0]
    assert facts["normalize"] == {"name": "zscore"}
    props = {each.key: each.value for each in onnx.load(path).metadata_props}
    assert json.loads(props["spacing_mm"]) == [2.0, 2.0, 2.0]
    assert props["method"] == "supervised"
    assert str(runs["supervised"].parent) not in json.dumps([facts, props])  # no path of a machine


def by_monai(bundle, images):
    """Label maps that ``monai.bundle`` writes, without any of our code."""
    with pytest.warns(UserWarning, match="parsing config_file"):
        monai.bundle.run(
            config_file=str(bundle / "configs" / "inference.json"),
            bundle_root=str(bundle),
            dataset_dir=str(images),
        )
    return sorted((bundle / "predictions").glob("*.nii.gz"))


@pytest.mark.parametrize("method", ["supervised", "cross_pseudo"])
def test_a_bundle_writes_the_label_maps_that_predict_writes(runs, tmp_path, method):
    found = restored(runs[method], medseg)
    images = tmp_path / "images"
    images.mkdir()
    for case in found.domain.cases("test"):
        shutil.copy(case.images[0], images)
    verbs.export(runs[method], medseg, tmp_path / "out", to="bundle")
    theirs = by_monai(tmp_path / "out", images)
    ours = verbs.predict([runs[method]], medseg, [images], tmp_path / "ours")
    assert [path.name for path in theirs] == sorted(path.name for path in ours)
    for one, other in zip(theirs, sorted(ours), strict=True):
        np.testing.assert_allclose(nib.load(one).affine, nib.load(other).affine, atol=1e-5)
        mine, yours = (np.asarray(nib.load(path).dataobj) for path in (other, one))
        assert {*np.unique(yours)} <= {0, 1, 4}
        assert (mine == yours).mean() > 0.98  # both resample probabilities, each in its own way


@pytest.mark.parametrize(
    "normalize",
    [{"name": "window", "window_hu": [50.0, 300.0]}, {"name": "zscore_nonzero"}],
    ids=lambda each: each["name"],
)
def test_on_the_grid_of_the_files_a_bundle_changes_no_voxel(tmp_path, normalize):
    data = plain(tmp_path / "data", affine=np.diag([1.0, 1.0, 1.0, 1.0]))
    run = run_of(
        data,
        tmp_path / "cache",
        method="supervised",
        spacing_mm=[1.0, 1.0, 1.0],
        normalize=normalize,
    )
    verbs.train(run, medseg, tmp_path / "run")
    verbs.export(tmp_path / "run", medseg, tmp_path / "out", to="bundle")
    theirs = by_monai(tmp_path / "out", data / "images")
    ours = verbs.predict([tmp_path / "run"], medseg, [data / "images"], tmp_path / "ours")
    assert len(theirs) == len(ours) == 6
    for one, other in zip(theirs, sorted(ours), strict=True):
        assert np.array_equal(read_array(one), read_array(other))


def test_an_unknown_format_and_a_folder_in_use_are_refused(runs, tmp_path):
    with pytest.raises(ConfigError, match=r"--to xml: choose one of bundle, onnx, torch\."):
        verbs.export(runs["supervised"], medseg, tmp_path / "out", to="xml")
    (tmp_path / "note.txt").write_text("mine", "utf-8")
    with pytest.raises(RunError, match=r"exists and is not empty\. Give another --output\."):
        verbs.export(runs["supervised"], medseg, tmp_path, to="torch")
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]


def test_a_missing_package_is_named(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(shipping.importlib.util, "find_spec", lambda name: None)
    words = "needs onnx, onnxscript, onnxruntime. Install them: pip install 'seg-ssl[export]'."
    with pytest.raises(ConfigError, match=re.escape(words)):
        verbs.export(runs["supervised"], medseg, tmp_path / "out", to="onnx")


class Moody(nn.Module):
    """Chooses what to do by the values of the image."""

    def forward(self, image):
        return torch.cat([image, -image], dim=1) if image.sum() > 0 else image.repeat(1, 2, 1, 1)


def a_parcel(network):
    return shipping.Parcel(shipping.Probabilities(network), (1, 8, 8), {})


def test_a_network_that_cannot_be_traced_is_refused_in_words(tmp_path):
    with pytest.raises(
        RunError, match=r"cannot be written for torch: .* by the values of an image"
    ):
        shipping.to_torch(a_parcel(Moody()), tmp_path)


def test_a_file_that_answers_differently_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(shipping, "CLOSE", -1.0)
    with pytest.raises(RunError, match=r"model\.pt2 answers differently than the trained network"):
        shipping.to_torch(a_parcel(nn.Conv2d(1, 2, 1)), tmp_path)
    assert not [*tmp_path.iterdir()]
