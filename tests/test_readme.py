"""The commands of the README do what it says, on data made here."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from medseg_ssl.synthetic import make_volumes
from rsseg_ssl.synthetic import make_scenes

README = Path(__file__).parents[1] / "README.md"
SHORT = {
    "medseg-ssl": ["fit.steps=3", "domain.network.features=[4, 8]", "domain.patch=[16, 16, 16]"],
    "rsseg-ssl": ["fit.steps=3", "domain.network.encoder=mobilenet_v2", "domain.tile=64"],
}


def commands(name: str) -> list[list[str]]:
    """The calls of one command in the README, without their comments."""
    lines = README.read_text(encoding="utf-8").splitlines()
    calls = [line.split("#")[0].split() for line in lines if line.startswith(name)]
    assert len(calls) >= 5, f"the README calls {name} {len(calls)} times"
    return calls


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "folder", "make", "new"),
    [
        ("medseg-ssl", "my_mri", make_volumes, "images/{}.nii.gz"),
        ("rsseg-ssl", "my_scenes", make_scenes, "images/{}.tif"),
    ],
)
def test_the_commands_of_the_readme_work_in_their_order(name, folder, make, new, tmp_path):
    here = tmp_path / "here"
    here.mkdir()
    data = make(tmp_path / folder, cases=24, labeled=14, seed=0)
    stem = sorted(path.name.split(".")[0] for path in (data / "images").iterdir())[0]
    source = data / new.format(stem)
    for call in commands(name):
        image = next((word for word in call if re.fullmatch(r"(new_case|scene)\..*", word)), None)
        if image:
            (here / image).write_bytes(source.read_bytes())
        changes = SHORT[name] if call[1] in ("train", "check") else []
        sets = [word for change in changes for word in ("--set", change)]
        script = Path(sys.executable).parent / name
        done = subprocess.run(
            [str(script), *call[1:], *sets], cwd=here, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{call}: {done.stdout}\n{done.stderr}"
    assert list((here / "out").iterdir())
    assert list(here.glob("runs/*/report.html"))
