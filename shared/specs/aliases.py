"""What may be asked of aliases: names such as ``news-writer@production`` that move from model to
model."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from shared.specs.model_jobs import MOST_EXAMPLES, Direction, FileId, MetricName

NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,63}@[a-z0-9][a-z0-9._-]{0,31}$"
MOST_IMPROVEMENT = 1e9

_NAME = re.compile(NAME_PATTERN[1:-1], re.ASCII)

AliasName = Annotated[
    str,
    Field(pattern=NAME_PATTERN, max_length=97, description="Such as `news-writer@production`"),
]
ModelId = Annotated[str, Field(min_length=1, max_length=256, description="No alias")]


def is_alias_name(text: str) -> bool:
    """Whether ``text`` could be an alias; what could be none is a model's name or nothing."""
    return _NAME.fullmatch(text) is not None


class _Part(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, defer_build=True, allow_inf_nan=False
    )


class GateSpec(_Part):
    """What a model has to prove before the alias moves to it."""

    evaluation_file: FileId
    metric: MetricName
    direction: Annotated[
        Direction | None, Field(description="Which way is better; left out: the metric's own")
    ] = None
    min_improvement: Annotated[
        float,
        Field(
            ge=-MOST_IMPROVEMENT,
            le=MOST_IMPROVEMENT,
            description="Better than the holder by more than this; below zero: worse by less",
        ),
    ] = 0.0
    max_examples: Annotated[int, Field(ge=1, le=MOST_EXAMPLES)] | None = None


class AliasSpec(_Part):
    """The body of ``POST /v1/model_aliases``."""

    name: AliasName
    model: Annotated[
        ModelId | None,
        Field(description="Who holds it; left out: nobody yet, so nothing is served"),
    ] = None


class AliasMoveSpec(_Part):
    """The body of ``POST /v1/model_aliases/{alias_name}``."""

    model: ModelId
    gate: GateSpec | None = None
    expected_model: Annotated[
        str | None,
        Field(max_length=256, description="409 unless this model holds it; null: unless none does"),
    ] = None


class AliasRollbackSpec(_Part):
    """The body of ``POST /v1/model_aliases/{alias_name}/rollback``."""

    expected_model: Annotated[
        str | None, Field(max_length=256, description="409 unless this model holds it")
    ] = None
