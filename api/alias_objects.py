"""The shapes of aliases and their histories."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from api.objects import Page, Shape, UnixSeconds


class ModelAlias(Shape):
    """A name that a tenant moves from model to model."""

    id: Annotated[str, Field(description="Its name")]
    object: Literal["model_alias"]
    name: str
    model: Annotated[str | None, Field(description="Who holds it; null: nobody yet")]
    version: Annotated[int, Field(description="How often it was moved")]
    gate_job_id: Annotated[str | None, Field(description="The evaluation of its newest gate")]
    created_at: UnixSeconds
    moved_at: UnixSeconds | None


Reason = Literal[
    "better", "not_better", "not_measured", "holder_changed", "candidate_gone", "alias_gone"
]
Holder = Annotated[str | None, Field(description="Who held the alias when it was asked for")]


class GateResult(Shape):
    """What a gate asked for, and what it found."""

    metric: str
    direction: Literal["min", "max"]
    min_improvement: float
    holder: Holder
    holder_value: float | None
    candidate_value: float | None
    reason: Reason


class EvaluationGate(Shape):
    """The gate that an evaluation is for, and what it decided once the evaluation had succeeded."""

    alias: str
    candidate: str
    holder: Holder
    min_improvement: float
    outcome: Literal["moved", "kept", "superseded"] | None
    reason: Reason | None
    holder_value: float | None
    candidate_value: float | None


class ModelAliasMove(Shape):
    """A row of an alias' history: a move, or a gate that stayed shut."""

    id: str
    object: Literal["model_alias.move"]
    alias: str
    version: Annotated[int | None, Field(description="Counts moves; null: it was not moved")]
    from_model: str | None
    to_model: Annotated[str, Field(description="Or the candidate that did not get it")]
    by: Literal["hand", "gate", "rollback"]
    outcome: Literal["moved", "kept", "superseded"]
    job_id: Annotated[str | None, Field(description="The evaluation of a gate")]
    evaluation: GateResult | None
    created_at: UnixSeconds


class DeletedModelAlias(Shape):
    """An alias that is gone."""

    id: str
    object: Literal["model_alias"]
    deleted: Literal[True]


class ModelAliasList(Page):
    """A page of aliases."""

    data: list[ModelAlias]


class ModelAliasMoveList(Page):
    """A page of an alias' history."""

    data: list[ModelAliasMove]
