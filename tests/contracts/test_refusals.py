"""What a method cannot use is refused by name, with the remedy, before anything trains."""

from __future__ import annotations

import re
import typing

import pytest
from pydantic import ValidationError
from torch import Tensor, nn

from common.errors import ConfigError, ShapeError
from common.filters import Confidence
from common.fit import FitSettings, Learner
from common.methods import AnyMethod, Method
from common.mixing import CutMix
from common.sampling import BatchSize
from common.splits import Splits
from tests.toy import Net, ToyDomain, ToyRun, ToySettings

METHODS = [kind() for kind in typing.get_args(typing.get_args(AnyMethod)[0])]
each_method = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)


class OnePiece(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = Net(2, 1, 2)

    def forward(self, image: Tensor) -> Tensor:
        return self.net(image)


class Whole(ToyDomain):
    def new_network(self, peer: int = 0) -> nn.Module:
        return OnePiece()


def run(method: Method, **domain: object) -> ToyRun:
    settings = ToySettings(splits=Splits(labeled=("a", "b")), **domain)
    return ToyRun(domain=settings, method=method.model_dump(), fit=FitSettings(steps=10))


@each_method
def test_who_needs_features_says_so_and_refuses_a_network_in_one_piece(method: Method) -> None:
    domain = Whole(ToySettings(side=8))
    if method.card.needs != "features":
        Learner(method, domain)(next(domain.batches(seed=0, first_step=0)), 0.5)
        return
    with pytest.raises(ConfigError, match=r"OnePiece is in one piece\. Let it be a common\.parts"):
        Learner(method, domain)


@each_method
def test_a_filter_that_would_do_nothing_is_refused(method: Method) -> None:
    values = method.model_dump() | {"filter": Confidence().model_dump()}
    if method.makes_pseudo_labels:
        assert type(method).model_validate(values).filter == Confidence()
        return
    with pytest.raises(
        ValidationError,
        match=re.escape(f"method '{method.name}' drops no pixels, so filter 'confidence' would"),
    ):
        type(method).model_validate(values)


@each_method
def test_networks_for_peers_are_refused_where_there_are_none(method: Method) -> None:
    if method.takes_partners:
        assert run(method, partners=("group",)).domain.partners == ("group",)
        return
    with pytest.raises(ValidationError, match=f"method '{method.name}' has no peers of different"):
        run(method, partners=("group",))


@pytest.mark.parametrize(
    "method", [m for m in METHODS if "mix" in type(m).model_fields], ids=lambda m: m.name
)
def test_a_batch_of_one_cannot_be_mixed(method: Method) -> None:
    lone = ToyDomain(ToySettings(side=8, batch=BatchSize(labeled=2, unlabeled=1)))
    batch = next(lone.batches(seed=0, first_step=0))
    with pytest.raises(ShapeError, match="needs a partner for each image, but the batch holds 1"):
        Learner(method.model_copy(update={"mix": CutMix()}), lone)(batch, 1.0)
