"""What the parts of a fine-tuning job's body have in common."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

MetricName = Annotated[str, Field(pattern=r"^[a-z0-9_]{1,64}$")]
"""Recipes name what they measure."""


class Part(BaseModel):
    """An object that knows all its members; null means their default."""

    # JSON has no infinity, but a reader of 1e999 does; what is stored must be JSON again.
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _null_means_default(cls, data: Any) -> Any:
        if isinstance(data, dict) and None in data.values():
            return {name: value for name, value in data.items() if value is not None}
        return data
