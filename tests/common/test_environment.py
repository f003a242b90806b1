"""The record of what a run ran on."""

from __future__ import annotations

import json
from pathlib import Path

from common.environment import ENDS, digest, record_environment


def test_the_digest_follows_names_sizes_and_both_ends_and_not_the_order(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(b"1" * (3 * ENDS))
    b.write_bytes(b"2")
    first = digest([a, b])
    assert digest([b, a]) == first
    a.write_bytes(b"1" * (3 * ENDS - 1) + b"0")
    assert digest([a, b]) != first
    a.write_bytes(b"1" * (3 * ENDS + 1))
    assert digest([a, b]) != first
    a.write_bytes(b"1" * (3 * ENDS))
    assert digest([a, b]) == first
    assert digest([a]) != first


def test_the_record_names_versions_device_and_data(tmp_path: Path) -> None:
    record_environment(tmp_path, "cpu", [])
    record = json.loads((tmp_path / "environment.json").read_text())
    assert {"python", "device", "commit", "packages", "data_digest"} <= record.keys()
    assert record["packages"]["torch"]
