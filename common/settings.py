"""The base of everything a YAML file can describe."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
NonNegative = Annotated[float, Field(ge=0.0)]
PositiveReal = Annotated[float, Field(gt=0.0)]


class Settings(BaseModel):
    """Typed, frozen values. An unknown key is an error, never a silent no-op."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
