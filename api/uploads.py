"""The form of ``POST /v1/files``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from flask import Request

from api import parsing
from api.idempotency import sha256_of
from api.multipart import read_form
from shared.errors import InvalidRequest

PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals", "model")
LEAST_LIFE_SECONDS = 3_600
MOST_LIFE_SECONDS = 2_592_000


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that has arrived whole, on disk until the block that read it ends."""

    path: Path
    filename: str
    purpose: str
    expires_in_seconds: int | None

    def fingerprint(self) -> bytes:
        """The same for the same content and fields."""
        fields = [self.filename, self.purpose, self.expires_in_seconds]
        return parsing.fingerprint([*fields, sha256_of(self.path)])

    @property
    def media_type(self) -> str:
        is_lines = self.purpose == "batch" or self.filename.endswith(".jsonl")
        return "application/jsonl" if is_lines else "application/octet-stream"


@contextmanager
def read_upload(request: Request, *, scratch_dir: Path, max_bytes: int) -> Iterator[Upload]:
    """Receives the upload; its file is gone after the block. Raises what ``read_form`` does."""
    with read_form(request, scratch_dir=scratch_dir, max_bytes=max_bytes) as form:
        part = next((part for part in form.files if part.name == "file"), None)
        if part is None:
            raise InvalidRequest("'file' is required", param="file")
        fields = dict(reversed(form.fields))
        yield Upload(part.path, part.filename, _purpose(fields), _life(fields))


def _purpose(fields: Mapping[str, str]) -> str:
    purpose = fields.get("purpose", "")
    if purpose not in PURPOSES:
        raise InvalidRequest(f"'purpose' must be one of {', '.join(PURPOSES)}", param="purpose")
    return purpose


def _life(fields: Mapping[str, str]) -> int | None:
    anchor = fields.get("expires_after[anchor]")
    seconds = fields.get("expires_after[seconds]")
    if anchor is None and seconds is None:
        return None
    if anchor != "created_at":
        raise InvalidRequest(
            "'expires_after[anchor]' must be 'created_at'", param="expires_after[anchor]"
        )
    if not re.fullmatch(r"[0-9]{1,9}", seconds or "", re.ASCII) or not (
        LEAST_LIFE_SECONDS <= int(seconds or 0) <= MOST_LIFE_SECONDS
    ):
        raise InvalidRequest(
            f"'expires_after[seconds]' must be a whole number from {LEAST_LIFE_SECONDS} to "
            f"{MOST_LIFE_SECONDS}",
            param="expires_after[seconds]",
        )
    return int(seconds or 0)
