"""The shapes of evaluations."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from api.alias_objects import EvaluationGate
from api.fine_tuning_objects import TuningError
from api.objects import Page, Shape, UnixSeconds


class MeasuredModel(Shape):
    """What an evaluation has found about one model."""

    model: str
    value: Annotated[
        float | None, Field(description="Of the metric; null when it is no finite number")
    ]
    values: Annotated[dict[str, float | None], Field(description="All that was measured")]
    examples: int
    tokens: int
    seconds: float


class EvaluationResult(Shape):
    """The numbers, once they are all there."""

    metric: str
    direction: Literal["min", "max"]
    best: Annotated[str | None, Field(description="The model with the best value")]
    examples: int
    seconds: float
    models: list[MeasuredModel]


class Evaluation(Shape):
    """A job that measures models on a file of examples."""

    id: str
    object: Literal["evaluation"]
    created_at: UnixSeconds
    ended_at: UnixSeconds | None
    status: Literal["queued", "running", "succeeded", "failed", "cancelled", "expired"]
    stopping: Annotated[bool, Field(description="Asked to stop, and not yet stopped")]
    models: list[str]
    aliases: Annotated[dict[str, str], Field(description="Models that were named by an alias")]
    gate: Annotated[EvaluationGate | None, Field(description="The alias that waits for it")]
    file: str
    metric: str
    direction: Literal["min", "max"]
    max_examples: int | None
    progress: Annotated[float, Field(ge=0, le=1)]
    queue_position: int | None = None
    error: TuningError | None
    result: EvaluationResult | None


class EvaluationList(Page):
    """A page of evaluations."""

    data: list[Evaluation]
