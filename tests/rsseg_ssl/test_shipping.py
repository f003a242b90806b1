"""Networks of scenes, given away."""

from __future__ import annotations

import json

import numpy as np
import onnxruntime
import torch

from common import verbs
from common.adapter import Wish
from common.trained import restored
from rsseg_ssl.adapter import rsseg
from rsseg_ssl.synthetic import Landscape, make_scenes
from tests.rsseg_ssl.test_domain import drafted


def test_onnx_answers_as_the_trained_network_and_knows_its_bands(tmp_path):
    data = make_scenes(tmp_path / "data", cases=6, labeled=4, seed=0, landscape=Landscape(side=64))
    run = drafted(tmp_path, data, Wish(labeled=2), "method.name=supervised")
    verbs.train(run, rsseg, tmp_path / "run")
    path = verbs.export(tmp_path / "run", rsseg, tmp_path / "out", to="onnx")
    found = restored(tmp_path / "run", rsseg)
    side, bands = found.domain.settings.tile, found.domain.task.channels
    image = torch.randn(3, bands, side, side)
    with torch.no_grad():
        probs = found.learner.nets.predictor(image).float().softmax(dim=1)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (answer,) = session.run(["probabilities"], {"image": image.numpy()})
    np.testing.assert_allclose(answer, probs.numpy(), atol=1e-5)
    facts = json.loads((tmp_path / "out" / "model.json").read_text("utf-8"))
    assert facts["bands"] == [*found.domain.settings.bands]
    assert len(facts["normalize"]["mean"]) == bands
    assert facts["window"]["sides"] == [side, side]
