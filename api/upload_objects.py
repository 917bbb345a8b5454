"""The shapes of uploads: files in parts."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from api.objects import File, Shape, UnixSeconds


class Upload(Shape):
    """A file that comes in parts, or has come."""

    id: str
    object: Literal["upload"]
    bytes: int
    created_at: UnixSeconds
    expires_at: UnixSeconds
    filename: str
    purpose: str
    status: Literal["pending", "completed", "cancelled", "expired"]
    file: Annotated[File | None, Field(description="Once it is completed")]


class UploadPart(Shape):
    """A part that has arrived."""

    id: str
    object: Literal["upload.part"]
    created_at: UnixSeconds
    upload_id: str
