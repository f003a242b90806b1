"""Which pixels of a pseudo-label teach. One file, one filter."""

from typing import Annotated

from pydantic import Field

from common.filters.base import Filter
from common.filters.class_calibrated import Calibrated, ClassCalibrated
from common.filters.confidence import Confidence
from common.filters.confident_share import ConfidentShare
from common.filters.ema_global import EmaGlobal
from common.filters.entropy import Entropy
from common.filters.entropy_percentile import EntropyPercentile
from common.filters.everything import All
from common.filters.rank import Rank

AnyFilter = Annotated[
    All
    | ClassCalibrated
    | Confidence
    | ConfidentShare
    | EmaGlobal
    | Entropy
    | EntropyPercentile
    | Rank,
    Field(discriminator="name"),
]
"""What ``filter:`` may say in a YAML file."""

__all__ = [
    "All",
    "AnyFilter",
    "Calibrated",
    "ClassCalibrated",
    "Confidence",
    "ConfidentShare",
    "EmaGlobal",
    "Entropy",
    "EntropyPercentile",
    "Filter",
    "Rank",
]
