"""Artifacts become visible with the commit of the shard that made them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from shared.storage.base import StoredObject


@dataclass(frozen=True, slots=True)
class NewArtifact:
    """A stored file that a row made."""

    id: str
    name: str
    role: str
    media_type: str
    stored: StoredObject
    line: int = 0
    """Of the batch's input file; 0 for a job that is no batch."""
    step: str | None = None
    parent_id: str | None = None
    width: int | None = None
    height: int | None = None
    seconds: float | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
