"""What the calls about uploads bring."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

from flask import Request
from pydantic import BaseModel, Field

from api import parsing
from api.multipart import FilePart, plain_filename, read_form
from api.requests import ExpiresAfter, RequestBody
from shared.errors import InvalidRequest, PayloadTooLarge
from shared.specs.uploads import MAX_PARTS, PART_BYTES

_MD5 = re.compile(r"[0-9a-fA-F]{32}", re.ASCII)


class UploadRequest(RequestBody):
    """A file that is to come in parts."""

    filename: Annotated[str, Field(min_length=1, max_length=1_024)]
    purpose: Literal["assistants", "batch", "fine-tune", "vision", "user_data", "evals", "model"]
    bytes: Annotated[int, Field(ge=1, le=2**53, description="Of the whole file")]
    mime_type: Annotated[
        str,
        Field(
            min_length=1,
            max_length=255,
            description="Not kept: a download's type goes by the file's name and purpose",
        ),
    ]
    expires_after: Annotated[ExpiresAfter | None, Field(description="Of the file")] = None


class PartForm(BaseModel):
    """The one part of the form that a part of an upload comes in."""

    data: Annotated[
        bytes,
        Field(description="At most 64 MiB", json_schema_extra={"format": "binary"}),
    ]


class CompleteRequest(RequestBody):
    """Which parts make the file."""

    part_ids: Annotated[
        list[Annotated[str, Field(max_length=64)]],
        Field(min_length=1, max_length=MAX_PARTS, description="In the order of the file"),
    ]
    md5: (
        Annotated[str, Field(max_length=32, description="Of the whole file, in hexadecimal")] | None
    ) = None


def read_upload_request(request: Request, *, body_bytes: int, most_bytes: int) -> UploadRequest:
    """Raises InvalidRequest, PayloadTooLarge for a file over ``most_bytes``, or what ``json_body``
    does. The filename is the last segment of what was given, printable."""
    asked = parsing.validate(UploadRequest, parsing.json_body(request, max_bytes=body_bytes))
    if asked.bytes > most_bytes:
        raise PayloadTooLarge(f"the file is over the limit of {most_bytes} bytes", param="bytes")
    parsing.plain_text(asked.mime_type, "mime_type")
    return asked.model_copy(update={"filename": plain_filename(asked.filename)})


def read_complete_request(request: Request, *, body_bytes: int) -> CompleteRequest:
    """Raises InvalidRequest, or what ``json_body`` does. The MD5 is in lower case."""
    asked = parsing.validate(CompleteRequest, parsing.json_body(request, max_bytes=body_bytes))
    if len(set(asked.part_ids)) < len(asked.part_ids):
        raise InvalidRequest("'part_ids' names a part twice", param="part_ids")
    if not all(parsing.is_id(part_id) for part_id in asked.part_ids):
        raise InvalidRequest("'part_ids' has what is no part's id", param="part_ids")
    if asked.md5 is None:
        return asked
    if not _MD5.fullmatch(asked.md5):
        raise InvalidRequest("'md5' must be 32 hexadecimal digits", param="md5")
    return asked.model_copy(update={"md5": asked.md5.lower()})


@contextmanager
def read_part(
    request: Request, *, scratch_dir: Path, max_bytes: int = PART_BYTES
) -> Iterator[FilePart]:
    """Receives a part; it is gone after the block. Raises what ``read_form`` does."""
    with read_form(request, scratch_dir=scratch_dir, max_bytes=max_bytes, param="data") as form:
        if len(form.files) != 1 or form.files[0].name != "data":
            raise InvalidRequest("'data' is required, once, as a file", param="data")
        if form.files[0].bytes == 0:
            raise InvalidRequest("'data' is empty", param="data")
        yield form.files[0]
