"""How unlabeled images teach. One file, one method."""

from typing import Annotated

from pydantic import Field

from common.methods.base import Card, Kit, Method, NewNetwork, Outcome
from common.methods.cross_pseudo import CrossPseudo
from common.methods.dst import DebiasedSelfTraining
from common.methods.fixmatch import FixMatch
from common.methods.mean_teacher import MeanTeacher
from common.methods.supervised import Supervised

AnyMethod = Annotated[
    Supervised | MeanTeacher | FixMatch | CrossPseudo | DebiasedSelfTraining,
    Field(discriminator="name"),
]
"""What ``method:`` may say in a YAML file."""

__all__ = [
    "AnyMethod",
    "Card",
    "CrossPseudo",
    "DebiasedSelfTraining",
    "FixMatch",
    "Kit",
    "MeanTeacher",
    "Method",
    "NewNetwork",
    "Outcome",
    "Supervised",
]
