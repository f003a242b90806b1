from __future__ import annotations

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import nn

from common import config, verbs
from common.batch import check_batch
from common.errors import ConfigError, DataError
from common.parts import Parted
from common.splits import names_of
from medseg_ssl.adapter import medseg
from medseg_ssl.domain import Volumes
from medseg_ssl.settings import MedsegRun
from medseg_ssl.synthetic import CLASSES as ORGANS
from medseg_ssl.synthetic import make_volumes
from tests.medseg_ssl.volumes import CLASSES, image_and_label, oblique, plain, save
from tests.toy import briefly

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))


def run_of(folder, cache, *, method="fixmatch", **domain):
    classes = [{"name": name, "value": value} for name, value in CLASSES.items()]
    settings = {
        "data": folder,
        "cache": cache,
        "classes": classes,
        "splits": {"labeled": ["c0", "c1"], "test": ["c2", "c3"]},
        "patch": [16, 16, 16],
        "network": {"name": "unet", "features": [4, 8]},
    }
    values = {
        "domain": settings | domain,
        "method": {"name": method},
        "fit": {"steps": 2, "accelerator": "cpu"},
    }
    return MedsegRun.model_validate(values)


def opened(run) -> Volumes:
    return medseg.open(medseg.resolve(run))


class Oracle(nn.Module):
    """Tells the classes from the intensities of :func:`image_and_label`, z-scored."""

    def __init__(self, edges):
        super().__init__()
        self.edges = edges

    def forward(self, image):
        low, high = self.edges
        index = (image[:, 0] > low).long() + (image[:, 0] > high).long()
        return 20.0 * nn.functional.one_hot(index, 3).movedim(-1, 1).float()


def test_resolving_fills_in_all_that_the_data_decides(tmp_path):
    folder = plain(tmp_path / "data", affine=oblique((1.0, 1.2, 2.5), codes="LPS"))
    run = medseg.resolve(run_of(folder, tmp_path / "cache"))
    assert run.domain.spacing_mm == (1.0, 1.2, 2.5)
    assert run.domain.splits.unlabeled == ("c4", "c5")
    assert run.domain.data.is_absolute()
    assert medseg.resolve(run) == run
    path = tmp_path / "run.yaml"
    config.save(run, path)
    assert config.load(path, MedsegRun) == run


def test_wrong_splits_are_told_when_resolving(tmp_path):
    run = run_of(plain(tmp_path / "data"), tmp_path / "cache", splits={"labeled": ["c9"]})
    with pytest.raises(DataError, match="the data holds no case 'c9'"):
        medseg.resolve(run)


def test_batches_keep_the_agreement(tmp_path):
    domain = opened(run_of(plain(tmp_path / "data"), tmp_path / "cache"))
    stream = domain.batches(seed=0, first_step=0)
    for _ in range(3):
        batch = next(stream)
        check_batch(batch, 1, 3)
        assert batch.unlabeled.image.shape == (2, 1, 16, 16, 16)


def test_each_case_that_training_reads_is_preprocessed_once_and_told(tmp_path):
    told = []
    run = run_of(plain(tmp_path / "data"), tmp_path / "cache", method="supervised")
    run = run.model_copy(update={"fit": run.fit.model_copy(update={"steps": 1})})
    verbs.train(run, medseg, tmp_path / "run", prepared=lambda *said: told.append(said))
    assert sorted(what for what, _, _ in told) == ["preprocessed c0", "preprocessed c1"]
    assert [(done, total) for _, done, total in told] == [(1, 2), (2, 2)]
    verbs.check(run, medseg, watch=lambda *said: pytest.fail("made again"))


def test_training_reads_no_label_of_an_unlabeled_case(tmp_path):
    folder = plain(tmp_path / "data")
    splits = {"labeled": ["c0"], "test": ["c2"]}
    for name in ("c1", "c3"):  # annotated, but unlabeled in this run
        (folder / "labels" / f"{name}.nii.gz").write_bytes(b"reading this fails")
    run = run_of(folder, tmp_path / "cache", splits=splits)
    assert names_of(medseg.resolve(run).domain.splits, "unlabeled") == ("c1", "c3", "c4", "c5")
    assert verbs.train(run, medseg, tmp_path / "run").finished


def test_a_supervised_run_cuts_no_unlabeled_patches(tmp_path):
    run = run_of(plain(tmp_path / "data"), tmp_path / "cache", method="supervised")
    domain = verbs.training_domain(medseg.resolve(run), medseg)
    batch = next(domain.batches(seed=0, first_step=0))
    assert batch.unlabeled.image.shape[0] == 0
    assert len([*(tmp_path / "cache").glob("*.image.npy")]) == 2


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PSR"])
@pytest.mark.parametrize("spacing", ["median", [1.0, 1.0, 1.0]])
def test_an_oracle_predicts_the_truth_on_the_grid_of_the_file(tmp_path, codes, spacing):
    folder = plain(tmp_path / "data", affine=oblique((1.0, 1.0, 2.0), codes=codes))
    domain = opened(run_of(folder, tmp_path / "cache", spacing_mm=spacing, patch=[16, 16, 24]))
    case = next(domain.cases("test"))
    image, label = image_and_label(2)
    edges = [(at - image.mean()) / image.std() for at in (120, 200)]
    probs = domain.predict(Oracle(edges), case)
    assert probs.shape == (3, *label.shape)
    assert probs.dtype == torch.float32
    if spacing == "median":  # the same voxels, so the same answer for each of them
        expected = (image > 120).astype(int) + (image > 200)
        assert (probs.argmax(0).numpy() == expected).mean() > 0.999
    dice = {m.label: m.value for m in domain.measure(probs, case) if m.metric == "dice"}
    assert dice["organ"] > (0.9 if spacing == "median" else 0.6)


def test_truth_measures_perfect_and_summarizes_to_the_headline(tmp_path):
    import pandas as pd

    domain = opened(run_of(plain(tmp_path / "data"), tmp_path / "cache"))
    case = next(domain.cases("test"))
    probs = nn.functional.one_hot(case.truth, 3).movedim(-1, 0).float()
    rows = {(m.metric, m.label): m.value for m in domain.measure(probs, case)}
    assert rows[("dice", "organ")] == rows[("dice", "lesion")] == 1.0
    table = pd.DataFrame([rows], index=["c2"])
    assert domain.summarize(table)[domain.headline] == 1.0


def test_a_written_prediction_lies_where_its_image_lies(tmp_path):
    affine = oblique(codes="PSR")
    domain = opened(run_of(plain(tmp_path / "data", affine=affine), tmp_path / "cache"))
    case = next(domain.cases("test"))
    probs = nn.functional.one_hot(case.truth, 3).movedim(-1, 0).float()
    written = nib.load(domain.write(probs, case, tmp_path))
    original = nib.load(case.label)
    np.testing.assert_array_equal(np.asanyarray(written.dataobj), np.asanyarray(original.dataobj))
    np.testing.assert_allclose(written.affine, original.affine)
    assert domain.figure(probs, case, tmp_path).exists()


def test_cases_outside_the_data_set_are_found_in_files_and_folders(tmp_path):
    folder = plain(tmp_path / "data")
    domain = opened(run_of(folder, tmp_path / "cache"))
    image, _ = image_and_label(11)
    extra = save(tmp_path / "new_0000.nii.gz", image)
    cases = domain.find([folder / "images", extra])
    assert [case.id for case in cases] == [*(f"c{n}" for n in range(6)), "new_0000"]
    assert all(case.truth is None for case in cases)
    assert domain.predict(domain.new_network().eval(), cases[-1]).shape == (3, *image.shape)


def test_peers_are_partners_in_turn_and_errors_name_the_partner(tmp_path):
    partners = [{"name": "basic_unet", "features": [4, 4, 4, 4, 4]}, {"name": "vnet"}]
    folder = plain(tmp_path / "data")
    run = run_of(folder, tmp_path / "cache", method="cross_pseudo", partners=partners)
    assert MedsegRun.model_validate(run.model_dump(mode="json")) == run
    domain = opened(run)
    weights = [sum(p.numel() for p in domain.new_network(peer).parameters()) for peer in (0, 1, 3)]
    assert weights[0] != weights[1] == weights[2]
    assert isinstance(domain.new_network(1), Parted)
    bad = [{"name": "swin_unetr", "features": 13}]
    domain = opened(run_of(folder, tmp_path / "cache", method="cross_pseudo", partners=bad))
    assert isinstance(domain.new_network(), Parted)
    with pytest.raises(ConfigError, match=r"^domain\.partners\.0 'swin_unetr' cannot be made"):
        domain.new_network(1)


def test_every_path_that_cannot_be_predicted_is_named(tmp_path):
    domain = opened(run_of(plain(tmp_path / "data"), tmp_path / "cache"))
    image, _ = image_and_label()
    two = save(tmp_path / "two.nii.gz", np.stack([image, image], axis=-1))
    nan = save(tmp_path / "nan.nii.gz", np.full_like(image, np.nan))
    torn = tmp_path / "torn.nii.gz"
    torn.write_bytes(two.read_bytes()[:100])
    empty = tmp_path / "empty"
    empty.mkdir()
    other = save(tmp_path / "other" / "two.nii.gz", image)
    with pytest.raises(DataError) as error:
        domain.find([two, nan, torn, empty, tmp_path / "gone.nii", Path(__file__), other])
    text = str(error.value)
    for words in (
        "case 'two' has 2 channels, the run was trained on 1 (image)",
        "NaN or infinite voxels",
        "torn.nii.gz cannot be read",
        "empty holds no volume: expected a file in .nii",
        "gone.nii does not exist",
        "test_domain.py is no volume",
        "two inputs are called 'two'",
    ):
        assert words in text


def test_channels_are_gathered_when_the_run_has_several(tmp_path):
    image, _ = image_and_label()
    for case in ("a", "b"):
        for channel in range(2):
            save(tmp_path / "in" / f"{case}_{channel:04d}.nii.gz", image)
    run = run_of(plain(tmp_path / "data"), tmp_path / "cache", channels=["T1", "T2"])
    domain = opened(run)
    assert [(c.id, len(c.images)) for c in domain.find([tmp_path / "in"])] == [("a", 2), ("b", 2)]


def test_a_case_that_is_gone_is_named(tmp_path):
    folder = plain(tmp_path / "data")
    run = medseg.resolve(run_of(folder, tmp_path / "cache"))
    for path in folder.glob("*/c2.nii.gz"):
        path.unlink()
    with pytest.raises(DataError, match=r"no longer holds case 'c2' of splits\.test"):
        [*medseg.open(run).cases("test")]


def test_prediction_needs_no_training_data(tmp_path):
    folder = plain(tmp_path / "data")
    run = run_of(folder, tmp_path / "cache")
    assert verbs.train(run, medseg, tmp_path / "run").finished
    image = shutil.copy(folder / "images" / "c5.nii.gz", tmp_path / "x.nii.gz")
    shutil.rmtree(folder)
    shutil.rmtree(tmp_path / "cache")
    (written,) = verbs.predict(tmp_path / "run", medseg, [Path(image)], tmp_path / "out")
    assert set(np.unique(nib.load(written).get_fdata())) <= {0, 1, 4}


def test_the_report_names_splits_rules_and_what_is_not_known(tmp_path):
    domain = opened(run_of(plain(tmp_path / "data"), tmp_path / "cache"))
    text = domain.describe()
    assert text.splits["unlabeled"] == ("c4", "c5")
    assert dict(text.data)["classes"] == "background (0), organ (1), lesion (4)"
    assert any("Dice" in rule for rule in text.rules)
    assert "nothing says which cases are of one patient" in text.warnings[0]


def test_the_default_colors_differ_and_given_ones_are_kept(tmp_path):
    classes = [
        {"name": "background", "value": 0},
        {"name": "organ", "value": 1, "color": [1, 2, 3]},
        {"name": "lesion", "value": 4},
    ]
    run = run_of(plain(tmp_path / "data"), tmp_path / "cache", classes=classes)
    assert run.domain.colors[:2] == ((0, 0, 0), (1, 2, 3))
    assert len(set(run.domain.colors)) == 3


def test_two_classes_cannot_share_a_value(tmp_path):
    classes = [{"name": "a", "value": 0}, {"name": "b", "value": 0}]
    with pytest.raises(ValueError, match="each needs a name and a value of its own"):
        run_of(tmp_path, tmp_path, classes=classes)


def test_phantoms_are_sound_and_the_same_each_time(tmp_path):
    one = make_volumes(tmp_path / "a", cases=4, labeled=3, seed=1)
    other = make_volumes(tmp_path / "b", cases=4, labeled=3, seed=1)
    found = medseg.inspect(one)
    assert found.problems == []
    assert dict(found.facts)["cases"] == "4: 3 with a label, 1 without"
    for path in sorted(one.glob("*/*.nii.gz")):
        again = nib.load(other / path.relative_to(one))
        np.testing.assert_array_equal(nib.load(path).dataobj, again.dataobj)
    label = np.asanyarray(nib.load(one / "labels" / "phantom_000.nii.gz").dataobj)
    assert set(np.unique(label)) == set(range(len(ORGANS)))


def test_a_run_on_the_hippocampus_goes_from_a_draft_to_a_prediction(tmp_path, data):
    from common.adapter import Wish

    path = tmp_path / "hippo.yaml"
    path.write_text(medseg.draft(data / "hippocampus", Wish(labeled=2)), encoding="utf-8")
    splits = "domain.splits.unlabeled=[hippocampus_003, hippocampus_004]"
    overrides = [f"domain.cache={tmp_path}", "fit.steps=2", "fit.accelerator=cpu", splits]
    run = verbs.load(path, medseg, [*overrides, "domain.network={name: unet, features: [4, 8]}"])
    assert verbs.train(run, medseg, tmp_path / "run").finished
    image = data / "hippocampus" / "imagesTr" / "hippocampus_001.nii.gz"
    (written,) = verbs.predict(tmp_path / "run", medseg, [image], tmp_path / "out")
    assert nib.load(written).shape == nib.load(image).shape


CONFIGS = [  # the recipes of papers bring their own data: test_protocols.py
    path
    for path in sorted((ROOT / "configs" / "medseg").glob("*.yaml"))
    if not path.stem.startswith(("la_", "acdc_", "pancreas_", "brats_"))
]


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """Headers and volumes are read once for all configs: they lie on the same data."""
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_checks_out_on_the_hippocampus(cache, data, path, monkeypatch):
    monkeypatch.chdir(ROOT)
    overrides = [f"domain.data={data / 'hippocampus'}", f"domain.cache={cache}"]
    run = verbs.load(path, medseg, overrides)
    assert path.read_text(encoding="utf-8").startswith("# ")
    assert medseg.check(run).problems == []
    splits = medseg.resolve(run).domain.splits
    assert [len(names_of(splits, s)) for s in ("labeled", "unlabeled", "test")] == [4, 172, 44]


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=pytest.mark.slow) if path.stem == "ctct" else path
        for path in CONFIGS
    ],
    ids=lambda path: path.stem,
)
def test_every_config_takes_two_steps(cache, data, path, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    overrides = [
        f"domain.data={data / 'hippocampus'}",
        f"domain.cache={cache}",
        "domain.splits.unlabeled=[hippocampus_003, hippocampus_004]",
        "domain.splits.test=[]",
        "fit.steps=2",
        "fit.accelerator=cpu",
    ]
    run = verbs.load(path, medseg, overrides)
    assert verbs.train(briefly(run), medseg, tmp_path / "run").finished
