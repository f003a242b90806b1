"""How a network is asked for a pseudo-label. One file, one source."""

from typing import Annotated

from pydantic import Field

from common.sources.asked import asked
from common.sources.base import COMBINED, Combine, Mirrors, Source
from common.sources.mc_dropout import MCDropout
from common.sources.mirrored import Mirrored
from common.sources.plain import Plain
from common.sources.propagation import Propagation
from common.sources.prototypes import Prototypes
from common.sources.sharpened import Sharpened

AnySource = Annotated[
    MCDropout | Mirrored | Plain | Propagation | Prototypes | Sharpened,
    Field(discriminator="name"),
]
"""What ``source:`` may say in a YAML file."""

__all__ = [
    "COMBINED",
    "AnySource",
    "Combine",
    "MCDropout",
    "Mirrored",
    "Mirrors",
    "Plain",
    "Propagation",
    "Prototypes",
    "Sharpened",
    "Source",
    "asked",
]
