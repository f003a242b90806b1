"""A network of the user's own, and what is said where it cannot be made."""

from __future__ import annotations

import re

import pytest
from torch import nn

from common.errors import ConfigError
from common.networks import Custom, blaming, of_peer
from tests.toy import Net

ARGUMENTS = {"dims": 2, "channels": 1, "classes": 3}


def not_a_network() -> str:
    return "I am a string"


def a_function(classes: int) -> nn.Module:
    return nn.Conv2d(1, classes, 1)


def broken(size: int) -> nn.Module:
    raise ValueError(f"size must be even, got {size}")


def refused(custom: Custom, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        custom.build()


def test_a_class_is_made_with_its_arguments() -> None:
    network = Custom(target="tests.toy:Net", arguments=ARGUMENTS).build()
    assert isinstance(network, Net)
    assert network.num_classes == 3


def test_a_function_may_make_it() -> None:
    made = Custom(target=f"{__name__}:a_function", arguments={"classes": 2}).build()
    assert isinstance(made, nn.Conv2d)


def test_partners_take_turns_after_the_first_peer() -> None:
    keys = [of_peer(peer, "a", ["b", "c"]) for peer in range(4)]
    first, second = ("domain.partners.0", "b"), ("domain.partners.1", "c")
    assert keys == [("domain.network", "a"), first, second, first]
    assert {of_peer(peer, "a", ()) for peer in range(3)} == {("domain.network", "a")}


def test_an_error_about_a_partner_names_the_partner() -> None:
    with (
        pytest.raises(ConfigError, match=r"^domain\.partners\.1\.target: expected"),
        blaming("domain.partners.1"),
    ):
        Custom(target="nowhere").build()
    with (
        pytest.raises(ConfigError, match=r"^domain\.network\.target: expected"),
        blaming("domain.network"),
    ):
        Custom(target="nowhere").build()


def test_every_build_is_fresh() -> None:
    custom = Custom(target="tests.toy:Net", arguments=ARGUMENTS)
    assert custom.build() is not custom.build()


@pytest.mark.parametrize("target", ["tests.toy.Net", "tests.toy:", ":Net", ""])
def test_a_target_of_another_form_is_refused(target: str) -> None:
    refused(
        Custom(target=target),
        f"domain.network.target: expected 'package.module:Name', got {target!r}.",
    )


@pytest.mark.parametrize(
    ("target", "arguments", "why"),
    [
        ("no_such_package:Net", {}, "No module named 'no_such_package'"),
        ("tests.toy:Nett", {}, "module 'tests.toy' has no attribute 'Nett'"),
        (
            f"{__name__}:a_function",
            {"clases": 2},
            "a_function() got an unexpected keyword argument 'clases'",
        ),
        (f"{__name__}:broken", {"size": 3}, "size must be even, got 3"),
    ],
)
def test_what_cannot_be_made_is_named_with_its_reason(
    target: str, arguments: dict[str, object], why: str
) -> None:
    refused(
        Custom(target=target, arguments=arguments),
        f"domain.network.target {target!r} with arguments {arguments} cannot be made: {why}. "
        "It must be importable from where you run the command.",
    )


def test_what_is_no_network_is_named() -> None:
    refused(
        Custom(target=f"{__name__}:not_a_network"),
        f"domain.network.target '{__name__}:not_a_network' made a str, expected a torch.nn.Module.",
    )
