"""Which pixels of a pseudo-label teach. One file, one filter."""

from typing import Annotated

from pydantic import Field

from common.filters.base import Calibrated, CalibratedFilter, Filter, SeesLabels
from common.filters.class_calibrated import ClassCalibrated
from common.filters.class_confidence import ClassConfidence
from common.filters.class_prior import ClassPrior
from common.filters.class_ratio import ClassRatio
from common.filters.class_reweight import ClassReweight
from common.filters.confidence import Confidence
from common.filters.confidence_power import ConfidencePower
from common.filters.confident_share import ConfidentShare
from common.filters.conformal import Conformal
from common.filters.ema_global import EmaGlobal
from common.filters.entropy import Entropy
from common.filters.entropy_percentile import EntropyPercentile
from common.filters.equalized import Equalized
from common.filters.everything import All
from common.filters.flexible import Flexible
from common.filters.margin import Margin
from common.filters.neighbor_context import NeighborContext
from common.filters.product import Product
from common.filters.rank import Rank
from common.filters.self_adaptive import SelfAdaptive
from common.filters.soft import Soft

_Member = (
    All
    | ClassCalibrated
    | ClassConfidence
    | ClassPrior
    | ClassRatio
    | ClassReweight
    | Confidence
    | ConfidencePower
    | ConfidentShare
    | Conformal
    | EmaGlobal
    | Entropy
    | EntropyPercentile
    | Equalized
    | Flexible
    | Margin
    | NeighborContext
    | Rank
    | SelfAdaptive
    | Soft
)

AnyFilter = Annotated[_Member | Product, Field(discriminator="name")]
"""What ``filter:`` may say in a YAML file."""

# What a product is made of. No filter imports another, so it is told here.
_named = Annotated[_Member, Field(discriminator="name")]
Product.model_rebuild(_types_namespace={"Member": _named})

__all__ = [
    "All",
    "AnyFilter",
    "Calibrated",
    "CalibratedFilter",
    "ClassCalibrated",
    "ClassConfidence",
    "ClassPrior",
    "ClassRatio",
    "ClassReweight",
    "Confidence",
    "ConfidencePower",
    "ConfidentShare",
    "Conformal",
    "EmaGlobal",
    "Entropy",
    "EntropyPercentile",
    "Equalized",
    "Filter",
    "Flexible",
    "Margin",
    "NeighborContext",
    "Product",
    "Rank",
    "SeesLabels",
    "SelfAdaptive",
    "Soft",
]
