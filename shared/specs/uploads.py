"""Uploads: how a file in parts may look, and what a job that joins the parts is asked."""

from __future__ import annotations

from dataclasses import dataclass

KIND = "upload"
"""Of jobs that join the parts of an upload. They are looked at by way of the upload alone."""
ENDPOINT = "/v1/uploads"

PART_BYTES = 64 * 2**20
"""Largest part."""
MAX_PARTS = 10_000
LIFE_SECONDS = 3_600
"""After which an upload that is not completed has expired."""


@dataclass(frozen=True, slots=True)
class JoinSpec:
    """What a job that joins parts does."""

    upload_id: str
    part_ids: list[str]
    """In the order of the file."""
    md5: str | None
    """Of the whole file, in hexadecimal; None: nobody said."""
