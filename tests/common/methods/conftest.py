"""What tests of single methods share."""

from __future__ import annotations

import pytest

from tests.common.methods.watch import Seven
from tests.toy import ToySettings


@pytest.fixture(params=[2, 3], ids=["tiles", "volumes"])
def domain(request: pytest.FixtureRequest) -> Seven:
    return Seven(ToySettings(dims=request.param, side=8))
