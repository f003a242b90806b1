"""What every test of scenes may rely on."""

from __future__ import annotations

import pytest

from tests.rsseg_ssl.weak import make_folder


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path_factory):
    """Nothing that a test sees is remembered beyond it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Where a user works."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def folder(home):
    """A small world with weak labels of each kind, ``home / "data"``."""
    return make_folder(home)
