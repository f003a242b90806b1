"""From a run on volumes to label maps that a person can open, and that train another run."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from common import verbs
from common.errors import ConfigError, DataError, RunError
from common.pool import RECORD
from common.trained import restored
from medseg_ssl.adapter import medseg
from medseg_ssl.export import UNMARKED, write_labels
from tests.common import diagnosed
from tests.medseg_ssl.test_domain import run_of
from tests.medseg_ssl.test_export import case_of, synthetic
from tests.medseg_ssl.volumes import oblique, plain

SPLITS = {"labeled": ["c0"], "unlabeled": ["c1", "c2"], "test": ["c3"]}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))


def a_run(folder: Path, *, filter: dict[str, object], splits=SPLITS, **changed):
    data = plain(folder / "data", affine=oblique((1.0, 1.2, 2.5), codes="LPS"))
    run = run_of(data, folder / "cache", splits=splits, spacing_mm=[2.0, 2.0, 2.0], **changed)
    values = run.model_dump(mode="json")
    values["method"]["filter"] = filter
    return medseg.schema.model_validate(values)


def trained(folder: Path, **given) -> Path:
    verbs.train(a_run(folder, **given), medseg, folder / "run")
    return folder / "run"


def voxels(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def test_pseudo_labels_lie_on_the_grid_of_the_file_and_are_unmarked_in_doubt(tmp_path):
    folder = trained(tmp_path, filter={"name": "class_ratio", "kept": 0.5})
    written = verbs.label([folder], medseg, tmp_path / "pool")

    assert [path.name for path in written] == ["c1.nii.gz", "c2.nii.gz"]
    found = restored(folder, medseg)
    for path, case in zip(written, found.domain.cases("unlabeled"), strict=True):
        image, label = nib.load(case.images[0]), nib.load(path)
        np.testing.assert_array_equal(image.affine, label.affine)
        marked = voxels(path) != UNMARKED
        assert 0.45 < marked.mean() < 0.55
        predicted = found.domain.predict(found.learner.nets.predictor.eval(), case).argmax(0)
        values = np.array(case.values)[predicted.numpy()]
        np.testing.assert_array_equal(voxels(path)[marked], values[marked])
        about = json.loads(label.header.extensions[0].get_content())["about"]
        assert about.startswith("pseudo-label of run, checkpoint ")
        sure = nib.load(tmp_path / "pool" / "confidence" / path.name)
        np.testing.assert_array_equal(image.affine, sure.affine)
        assert sure.get_data_dtype() == np.uint8
        probs = found.domain.predict(found.learner.nets.predictor.eval(), case)
        np.testing.assert_allclose(sure.get_fdata(), probs.amax(0), atol=0.51 / 255)
    record = json.loads((tmp_path / "pool" / RECORD).read_text("utf-8"))
    assert record["trust"] == "class_ratio, kept 0.5"
    assert record["cases"] == ["c1", "c2"]


def test_a_second_call_goes_on_and_leaves_what_is_there_alone(tmp_path):
    folder = trained(tmp_path, filter={"name": "all"})
    first, second = verbs.label([folder], medseg, tmp_path / "pool")
    whole = second.read_bytes()
    first.write_bytes(b"corrected by hand")
    second.unlink()
    seen = []
    again = verbs.label([folder], medseg, tmp_path / "pool", watch=lambda *said: seen.append(said))
    assert again == [first, second]
    assert seen == [("labeled", 2, 2)]
    doubts = tmp_path / "pool" / "confidence"
    (doubts / first.name).unlink()
    verbs.label([folder], medseg, tmp_path / "pool")
    assert (doubts / first.name).exists()
    assert first.read_bytes() == b"corrected by hand"
    assert second.read_bytes() == whole


def test_the_file_of_another_case_is_not_taken_for_its_own(tmp_path):
    folder = trained(tmp_path, filter={"name": "all"})
    first, _ = verbs.label([folder], medseg, tmp_path / "pool")
    first.rename(first.with_name("c1.5.nii.gz"))
    verbs.label([folder], medseg, tmp_path / "pool")
    assert first.exists()


def test_pseudo_labels_teach_another_run_as_scribbles(tmp_path):
    folder = trained(tmp_path, filter={"name": "all"})
    verbs.label([folder], medseg, tmp_path / "pool")
    weak = {"scribbles": str(tmp_path / "pool" / "labels")}
    run = a_run(tmp_path, filter={"name": "confidence", "threshold": 1.0}, weak_labels=weak)
    assert verbs.train(run, medseg, tmp_path / "second").finished
    log = (tmp_path / "second" / "log.csv").read_text("utf-8")
    coverage = [line for line in log.splitlines() if ",coverage," in line]
    assert float(coverage[-1].split(",")[2]) > 0.9  # every voxel was marked


def test_a_folder_of_something_else_is_refused(tmp_path):
    folder = trained(tmp_path, filter={"name": "all"})
    with pytest.raises(RunError, match=r"not empty and holds no pseudo_labels.json. Choose a new"):
        verbs.label([folder], medseg, tmp_path / "data")
    verbs.label([folder], medseg, tmp_path / "pool")
    record = tmp_path / "pool" / RECORD
    record.write_text(record.read_text("utf-8").replace('"all"', '"soft"'), "utf-8")
    with pytest.raises(RunError, match="pseudo-labels of another run, checkpoint or filter"):
        verbs.label([folder], medseg, tmp_path / "pool")


def test_a_run_without_unlabeled_cases_has_nothing_to_label(tmp_path):
    run = a_run(tmp_path, filter={"name": "all"}, splits={**SPLITS, "unlabeled": []})
    values = run.model_dump(mode="json") | {"method": {"name": "supervised"}}
    verbs.train(medseg.schema.model_validate(values), medseg, tmp_path / "run")
    with pytest.raises(DataError, match="has no unlabeled case to label"):
        verbs.label([tmp_path / "run"], medseg, tmp_path / "pool")


def test_the_command_says_how_to_go_on(tmp_path):
    folder = trained(tmp_path, filter={"name": "all"})
    said = diagnosed.command(medseg, "label", folder, "--output", tmp_path / "pool")
    assert said.code == 0
    assert "Wrote 2 pseudo-labels." in said.out
    assert "pool/labels}" in "".join(said.out.split())


def test_a_class_with_the_value_of_unmarked_voxels_is_refused(tmp_path):
    source = synthetic(tmp_path / "source.nii.gz")
    case = case_of(source, values=(0, 255))
    labels = np.zeros((5, 4, 3), dtype=np.int64)
    write_labels(labels, case, tmp_path / "whole.nii", names=("a", "b"))  # nothing is unmarked
    labels[0] = 255
    with pytest.raises(DataError, match="label value 255, which says that nothing is known"):
        write_labels(labels, case, tmp_path / "some.nii", names=("a", "b"))


def test_a_supervised_run_is_labeled_with_a_filter_named_afterwards(tmp_path):
    run = a_run(tmp_path, filter={"name": "all"})
    values = run.model_dump(mode="json") | {"method": {"name": "supervised"}}
    verbs.train(medseg.schema.model_validate(values), medseg, tmp_path / "run")
    half = ["filter={name: class_ratio, kept: 0.25}", "refiners=[{name: largest_component}]"]
    written = verbs.label([tmp_path / "run"], medseg, tmp_path / "pool", overrides=half)
    assert 0.2 < (voxels(written[0]) != UNMARKED).mean() < 0.3
    record = json.loads((tmp_path / "pool" / RECORD).read_text("utf-8"))
    assert record["trust"] == "class_ratio, kept 0.25; then largest_component"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("filter={name: soft}", "filter 'soft' is set while a run trains, so it cannot be chosen"),
        ("filter={name: class_calibrated}", "'class_calibrated' is set while a run trains"),
        ("filter={name: confidance}", r"filter: no 'confidance' here. Choose .* Did you mean"),
        ("filter.threshold=2", "filter.threshold: a fraction runs from 0 to 1, got 2"),
        ("source={name: mc_dropout}", "would get the same answer each time"),
        ("steps=5", "steps: unknown key"),
    ],
)
def test_what_cannot_be_chosen_afterwards_is_refused(tmp_path, override, words):
    folder = trained(tmp_path, filter={"name": "confidence", "threshold": 0.5})
    with pytest.raises(ConfigError, match=words):
        verbs.label([folder], medseg, tmp_path / "pool", overrides=[override])
    assert not (tmp_path / "pool").exists()


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory):
    """Of two seeds, and of two spacings."""
    home = tmp_path_factory.mktemp("two")
    folders = []
    for seed, spacing in ((0, 2.0), (1, 1.5)):
        run = a_run(home / str(seed), filter={"name": "all"}).model_copy(update={"seed": seed})
        values = run.model_dump(mode="json")
        values["domain"]["spacing_mm"] = [spacing] * 3
        folders.append(home / f"run{seed}")
        verbs.train(medseg.schema.model_validate(values), medseg, folders[-1])
    return folders


@pytest.mark.parametrize("combine", ["mean", "vote", "by_certainty"])
def test_several_runs_label_together(two_runs, tmp_path, combine):
    overrides = [f"combine={combine}", "filter={name: confidence, threshold: 0.6}"]
    written = verbs.label(two_runs, medseg, tmp_path / "pool", overrides=overrides)
    founds = [restored(folder, medseg) for folder in two_runs]
    for path, case in zip(written, founds[0].domain.cases("unlabeled"), strict=True):
        both = np.stack([
            found.domain.predict(found.learner.nets.predictor.eval(), case).numpy()
            for found in founds
        ])  # fmt: skip
        entropy = -(both * np.log(both)).sum(axis=1, keepdims=True)
        certainty = np.exp(-entropy) / np.exp(-entropy).sum(axis=0)
        named = both.argmax(axis=1)
        joint = {
            "mean": both.mean(axis=0),
            "vote": np.stack([(named == k).mean(axis=0) for k in range(3)]),
            "by_certainty": (certainty * both).sum(axis=0),
        }[combine]
        sure = joint.max(axis=0)
        told = np.abs(sure - 0.6) > 1e-4
        assert told.mean() > 0.9
        np.testing.assert_array_equal((voxels(path) != UNMARKED)[told], (sure >= 0.6)[told])
        marked = told & (sure >= 0.6)
        values = np.array(case.values)[joint.argmax(axis=0)]
        np.testing.assert_array_equal(voxels(path)[marked], values[marked])
    record = json.loads((tmp_path / "pool" / RECORD).read_text("utf-8"))
    assert (record["runs"], record["combine"]) == (["run0", "run1"], combine)
    assert len({*record["checkpoints"]}) == 2


def test_runs_of_other_classes_do_not_label_together(two_runs, tmp_path):
    run = a_run(tmp_path, filter={"name": "all"})
    values = run.model_dump(mode="json")
    values["domain"]["classes"][1]["name"] = "something else"
    verbs.train(medseg.schema.model_validate(values), medseg, tmp_path / "run")
    with pytest.raises(RunError, match="has other channels or classes than"):
        verbs.label([two_runs[0], tmp_path / "run"], medseg, tmp_path / "pool")
    with pytest.raises(ConfigError, match="one run has nothing to combine"):
        verbs.label(two_runs[:1], medseg, tmp_path / "pool", overrides=["combine=vote"])
