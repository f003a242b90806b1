"""Every source, in two and in three dimensions, keeps the same promises."""

from __future__ import annotations

import re
import typing
from itertools import combinations

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from common.batch import Image
from common.errors import ConfigError
from common.filters import Confidence, Entropy
from common.fit import Learner
from common.methods import AnyMethod, Method
from common.methods.fixmatch import FixMatch
from common.sources import AnySource, MCDropout, Mirrored, Plain, Sharpened, Source, asked
from common.sources.base import SeveralLooks
from tests.toy import Net, ToyDomain, ToySettings

KINDS: tuple[type[Source], ...] = typing.get_args(typing.get_args(AnySource)[0])
WITH = {"mc_dropout": {"noise": 0.1, "times": 3}}
SOURCES = [kind(**WITH.get(kind.model_fields["name"].default, {})) for kind in KINDS]
METHODS: list[Method] = [kind() for kind in typing.get_args(typing.get_args(AnyMethod)[0])]
SIDES = {2: (8, 6), 3: (4, 6, 8)}

every_source = pytest.mark.parametrize("source", SOURCES, ids=lambda each: each.name)
each_method = pytest.mark.parametrize("method", METHODS, ids=lambda each: each.name)
dimensions = pytest.mark.parametrize("dims", [2, 3], ids=["tiles", "volumes"])


class Slope(nn.Module):
    """Sure of class 1 to one end of each axis: what it says depends on where it is said."""

    def forward(self, image: Tensor) -> Tensor:
        for axis in range(2, image.ndim):
            along = [-1 if each == axis else 1 for each in range(image.ndim)]
            image = image + torch.linspace(0, 2, image.shape[axis]).view(along)
        return torch.cat([-image, image], dim=1)


class Scripted(nn.Module):
    """Says one prepared answer after the other."""

    def __init__(self, answers: list[Tensor]) -> None:
        super().__init__()
        self.answers = [*answers]

    def forward(self, image: Tensor) -> Tensor:
        return self.answers.pop(0)


def an_image(dims: int, *, seed: int = 0) -> Image:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(2, 1, *SIDES[dims], generator=rng)


def network(dims: int, *, dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(3)
    net = Net(dims, 1, 2)
    if dropout:
        net.head = nn.Sequential(nn.Dropout(dropout), net.head)
    return net


@every_source
@dimensions
def test_an_answer_is_one_for_each_pixel_of_the_image_and_leaves_the_network_as_it_was(
    source: Source, dims: int
) -> None:
    image, net = an_image(dims), network(dims, dropout=0.5).eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    answer = source(net, image, range(dims))
    assert answer.shape == (2, 2, *SIDES[dims])
    assert answer.isfinite().all()
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not any(module.training for module in net.modules())


@every_source
def test_a_network_in_training_remembers_the_statistics_of_one_look(source: Source) -> None:
    image, net, once = an_image(2), network(2).train(), network(2).train()
    if isinstance(source, MCDropout):
        source = source.model_copy(update={"noise": 0.0})  # so that its first look is the plain one
    source(net, image, (0, 1))
    once(image)
    pairs = zip(net.state_dict().items(), once.state_dict().values(), strict=True)
    assert all(torch.equal(mine, other) for (_, mine), other in pairs)
    tracked = [each for each in net.modules() if isinstance(each, nn.BatchNorm2d)]
    assert tracked
    assert all(each.track_running_stats for each in tracked)


@dimensions
@pytest.mark.parametrize("at_once", [1, 2, 9])
def test_mirrored_is_the_mean_over_mirror_images(dims: int, at_once: int) -> None:
    image, net = an_image(dims), Slope()
    answer = Mirrored(axes_at_once=at_once)(net, image, range(dims)).softmax(dim=1)

    looks = []
    for count in range(min(at_once, dims) + 1):
        for axes in combinations(range(2, 2 + dims), count):
            said = net(torch.from_numpy(np.flip(image.numpy(), axes).copy()))
            looks.append(np.flip(said.softmax(dim=1).numpy(), axes))
    assert len(looks) == {1: 1 + dims, 2: 4 + 3 * (dims - 2), 9: 2**dims}[at_once]
    np.testing.assert_allclose(answer.numpy(), np.mean(looks, axis=0), rtol=1e-5, atol=1e-7)


def test_only_axes_that_the_domain_mirrors_are_mirrored() -> None:
    image, net = an_image(2), Slope()
    none = Mirrored()(net, image, ()).softmax(dim=1)
    torch.testing.assert_close(none, net(image).softmax(dim=1))
    of_one = Mirrored()(net, image, (1,)).softmax(dim=1)
    looks = [net(image), net(image.flip(3)).flip(3)]
    torch.testing.assert_close(of_one, torch.stack([each.softmax(1) for each in looks]).mean(0))


@pytest.mark.parametrize("temperature", [0.25, 0.5, 1.0, 2.0])
def test_sharpened_raises_probabilities_to_a_power(temperature: float) -> None:
    image, net = an_image(3), network(3).eval()
    answer = Sharpened(temperature=temperature)(net, image, ()).softmax(dim=1)
    powers = net(image).double().softmax(dim=1).detach().numpy() ** (1 / temperature)
    wanted = powers / powers.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(answer.detach().numpy(), wanted, rtol=1e-4, atol=1e-6)


def several(*, combine: str, classes: int = 3, count: int = 4) -> tuple[Tensor, np.ndarray]:
    """What a source makes of prepared answers, and their probabilities."""
    rng = torch.Generator().manual_seed(classes)
    answers = [3 * torch.randn(2, classes, *SIDES[2], generator=rng) for _ in range(count)]
    source = MCDropout(times=count, combine=combine)
    combined = source(Scripted(answers), an_image(2), ()).softmax(dim=1)
    return combined, torch.stack(answers).softmax(dim=2).double().numpy()


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_the_mean_of_several_looks(classes: int) -> None:
    combined, probs = several(combine="mean", classes=classes)
    np.testing.assert_allclose(combined.numpy(), probs.mean(axis=0), atol=1e-6)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_a_vote_is_the_share_of_looks_that_name_a_class(classes: int) -> None:
    combined, probs = several(combine="vote", classes=classes)
    named = probs.argmax(axis=2)
    share = np.stack([(named == index).mean(axis=0) for index in range(classes)], axis=1)
    np.testing.assert_allclose(combined.numpy(), share, atol=1e-6)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_by_certainty_a_look_of_low_entropy_counts_for_more(classes: int) -> None:
    combined, probs = several(combine="by_certainty", classes=classes)
    entropy = -(probs * np.log(probs)).sum(axis=2, keepdims=True)
    shares = np.exp(-entropy) / np.exp(-entropy).sum(axis=0)
    np.testing.assert_allclose(combined.numpy(), (shares * probs).sum(axis=0), atol=1e-6)


def test_a_unanimous_vote_is_what_a_high_threshold_keeps() -> None:
    """Agreement of several looks: the filter ``confidence`` on the shares of a vote."""
    combined, probs = several(combine="vote", count=3)
    named = probs.argmax(axis=2)
    kept = Confidence(threshold=0.99)(combined).numpy() > 0
    np.testing.assert_array_equal(kept, (named == named[0]).all(axis=0))
    assert kept.any()
    assert not kept.all()


def test_dropout_makes_looks_differ_and_the_ceiling_of_ua_mt_drops_where_they_do() -> None:
    image, net = an_image(2), network(2, dropout=0.5).eval()
    one = MCDropout(times=1)(net, image, ()).softmax(dim=1)
    many = MCDropout(times=64)(net, image, ()).softmax(dim=1)
    assert not torch.allclose(one, net(image).softmax(dim=1), atol=1e-3)
    again = MCDropout(times=64)(net, image, ()).softmax(dim=1)
    assert (many - again).abs().mean() < (one - again).abs().mean() / 2
    kept = Entropy(ceiling=0.9)(many).mean()
    assert kept <= Entropy(ceiling=1.0)(many).mean()


@every_source
def test_outside_of_training_the_answer_is_the_same_each_time(source: Source) -> None:
    image, net = an_image(2), network(2, dropout=0.5).eval()
    torch.manual_seed(11)
    first = asked(net, source, (0, 1))(image)
    drawn = torch.rand(3)
    torch.manual_seed(11)
    assert torch.equal(torch.rand(3), drawn)  # nothing was drawn from the generator in between
    assert torch.equal(asked(net, source, (0, 1))(image), first)


def test_the_plain_source_is_the_network_itself() -> None:
    net = network(2)
    assert asked(net, Plain(), (0,)) is net


@every_source
@each_method
def test_a_method_is_asked_by_its_source_or_refuses_it(method: Method, source: Source) -> None:
    values = method.model_dump() | {"source": source.model_dump()}
    if method.takes_source or isinstance(source, Plain):
        assert type(method).model_validate(values).source == source
        return
    with pytest.raises(
        ValidationError, match=re.escape(f"so source '{source.name}' would do nothing. Remove")
    ):
        type(method).model_validate(values)


class Flat(Source):
    """Never sure of anything."""

    name: str = "flat"

    def __call__(self, network: nn.Module, image: Image, mirrors: typing.Sequence[int]) -> Tensor:
        return 0 * network(image)


@pytest.mark.parametrize(
    "method", [each for each in METHODS if each.takes_source], ids=lambda each: each.name
)
@dimensions
def test_what_the_source_says_is_what_is_judged(method: Method, dims: int) -> None:
    domain = ToyDomain(ToySettings(side=8, dims=dims))
    sure = Confidence(threshold=0.51)
    flat = method.model_copy(update={"filter": sure, "source": Flat()})
    torch.manual_seed(0)
    batch = next(domain.batches(seed=0, first_step=0))
    pseudo = Learner(flat, domain)(batch, 0.9).pseudo
    assert pseudo is not None
    assert not pseudo.weight.any()
    torch.manual_seed(0)
    plain = Learner(method.model_copy(update={"filter": sure}), domain)(batch, 0.9).pseudo
    assert plain is not None
    assert plain.weight.any()


class Unmirrored(ToyDomain):
    @property
    def mirrors(self) -> tuple[int, ...]:
        return ()


@pytest.mark.parametrize(
    ("source", "domain", "words"),
    [
        (MCDropout(), ToyDomain, "network has no dropout. Choose a network with dropout, or set"),
        (Mirrored(), Unmirrored, "domain.weak mirrors none. Choose another source, or let"),
    ],
    ids=lambda each: getattr(each, "name", ""),
)
def test_a_source_that_would_change_nothing_is_refused(
    source: SeveralLooks, domain: type[ToyDomain], words: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        Learner(FixMatch(source=source), domain(ToySettings()))
    assert not MCDropout(noise=0.1).unfit(network(2), ())
    assert not MCDropout().unfit(network(2, dropout=0.1), ())
    assert not Mirrored().unfit(network(2), (0,))
