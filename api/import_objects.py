"""The shapes of imports: models that tenants bring."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from api.objects import BatchLineError, Page, Shape, UnixSeconds


class ImportRefusal(Shape):
    """Why a package was refused; ``files`` are all reasons, the first is the error's own."""

    code: str
    message: str
    param: str | None
    files: list[BatchLineError] | None = None


class ModelImport(Shape):
    """A model on its way in."""

    id: str
    object: Literal["model.import"]
    status: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    stopping: bool = Field(description="Asked to stop, and not yet stopped")
    file: str
    suffix: str
    base_model: str | None
    model: Annotated[str | None, Field(description="The name that it is served by, once it is")]
    report: Annotated[
        dict[str, Any] | None,
        Field(description="What was found: architecture, parameters, what was left out"),
    ]
    error: ImportRefusal | None
    metadata: dict[str, str] | None
    created_at: UnixSeconds
    finished_at: UnixSeconds | None
    queue_position: int | None = None


class ModelImportList(Page):
    """A page of imports."""

    data: list[ModelImport]
