"""The shapes of models: what may be asked for by name."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from api.objects import Page, Shape, UnixSeconds


class TunedModel(Shape):
    """Where a fine-tuned model comes from."""

    base_model: str | None
    adapter: Annotated[bool, Field(description="Weights on top of `base_model`, loaded onto it")]
    recipe: str | None
    parents: Annotated[list[str], Field(description="What it was tuned from, nearest first")]
    hyperparameters: dict[str, Any]
    metrics: dict[str, Any]
    step: int | None
    bytes: int
    digest: str | None
    job_id: str | None
    created: UnixSeconds


class DeletedModel(Shape):
    """A model that is gone."""

    id: str
    object: Literal["model"]
    deleted: Literal[True]


class Model(Shape):
    """What may be asked for by name."""

    id: str
    object: Literal["model"]
    created: UnixSeconds
    owned_by: str
    endpoints: list[str]
    alias_of: Annotated[
        str | None, Field(description="Of an alias: the model that holds it, whose facts these are")
    ] = None
    pressrun: Annotated[TunedModel, Field(description="Of a tenant's own model")] | None = None


class ModelList(Page):
    """All models."""

    data: list[Model]
