"""Which shapes of a pseudo-label are right. One file, one refiner."""

from typing import Annotated

from pydantic import Field

from common.refiners.base import Refiner, chained
from common.refiners.boundary_band import BoundaryBand
from common.refiners.dense_crf import DenseCRF
from common.refiners.fill_holes import FillHoles
from common.refiners.largest_component import LargestComponent
from common.refiners.majority import Majority
from common.refiners.minimum_component import MinimumComponent
from common.refiners.opening import Opening
from common.refiners.random_walker import RandomWalker
from common.refiners.sam import Sam
from common.refiners.superpixels import Superpixels

AnyRefiner = Annotated[
    BoundaryBand
    | DenseCRF
    | FillHoles
    | LargestComponent
    | Majority
    | MinimumComponent
    | Opening
    | RandomWalker
    | Sam
    | Superpixels,
    Field(discriminator="name"),
]
"""What an entry of ``refiners:`` may say in a YAML file."""

__all__ = [
    "AnyRefiner",
    "BoundaryBand",
    "DenseCRF",
    "FillHoles",
    "LargestComponent",
    "Majority",
    "MinimumComponent",
    "Opening",
    "RandomWalker",
    "Refiner",
    "Sam",
    "Superpixels",
    "chained",
]
