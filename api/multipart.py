"""Reading a multipart body: its files streamed to disk, in memory never whole."""

from __future__ import annotations

import errno
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

from flask import Request
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge
from werkzeug.formparser import MultiPartParser

from api.parsing import plain_encoding, refuse_chunks
from shared.errors import (
    InvalidRequest,
    PayloadTooLarge,
    StorageFull,
    StorageUnavailable,
    UnsupportedMediaType,
)

MAX_BOUNDARY_CHARACTERS = 200
"""RFC 2046 allows 70, which some clients exceed by a few."""
MAX_FORM_BYTES = 2**20
"""Werkzeug holds its read buffer to the same limit, so this is larger than ``BUFFER_BYTES``."""
MAX_PARTS = 128
MAX_FILENAME_CHARACTERS = 255
BUFFER_BYTES = 256 * 1024
ABANDONED_SECONDS = 86_400.0

_TEMPORARY_PREFIX = "upload-"
_SEPARATORS = re.compile(r"[/\\]")


@dataclass(frozen=True, slots=True)
class FilePart:
    """A file that has arrived whole, on disk until the block that read it ends."""

    name: str
    """Of the form's field."""
    filename: str
    path: Path
    bytes: int


@dataclass(frozen=True, slots=True)
class Form:
    """A multipart body, its parts in the order in which they came."""

    fields: list[tuple[str, str]]
    files: list[FilePart]


@contextmanager
def read_form(
    request: Request, *, scratch_dir: Path, max_bytes: int, param: str = "file"
) -> Iterator[Form]:
    """Receives a form of up to ``max_bytes`` of files; they are gone after the block.

    Raises UnsupportedMediaType, PayloadTooLarge (blaming ``param``), InvalidRequest, StorageFull
    when the scratch folder is full, or StorageUnavailable when it can't be written.
    """
    if request.mimetype != "multipart/form-data":
        raise UnsupportedMediaType("send the file as Content-Type: multipart/form-data")
    plain_encoding(request)
    limit = max_bytes + MAX_FORM_BYTES
    if request.content_length is not None and request.content_length > limit:
        _refuse_size(max_bytes, param)
    boundary = request.mimetype_params.get("boundary", "")
    if not boundary.isascii() or not 0 < len(boundary) <= MAX_BOUNDARY_CHARACTERS:
        raise InvalidRequest("the multipart body has no usable boundary")
    request.max_content_length = limit
    paths: list[Path] = []
    try:
        with _scratch_errors():
            fields, parts = _receive(request, boundary, scratch_dir, paths)
        files = [_part(name, part) for name, part in parts.items(multi=True)]
        if sum(file.bytes for file in files) > max_bytes:
            _refuse_size(max_bytes, param)
        yield Form(list(fields.items(multi=True)), files)
    finally:
        for path in paths:
            path.unlink(missing_ok=True)


def sweep_abandoned(scratch_dir: Path) -> None:
    """Makes the scratch folder and removes what killed processes left in it."""
    scratch_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    oldest = time.time() - ABANDONED_SECONDS
    for path in scratch_dir.glob(_TEMPORARY_PREFIX + "*"):
        with suppress(FileNotFoundError):
            if path.stat().st_mtime < oldest:
                path.unlink()


def _receive(
    request: Request, boundary: str, scratch_dir: Path, paths: list[Path]
) -> tuple[Any, Any]:
    opened: list[IO[bytes]] = []

    def make_file(*_: Any, **__: Any) -> IO[bytes]:
        # Not a with block: the parser writes to it, and the finally below closes it.
        file = tempfile.NamedTemporaryFile(  # noqa: SIM115
            dir=scratch_dir, prefix=_TEMPORARY_PREFIX, delete=False
        )
        paths.append(Path(file.name))
        opened.append(file)
        return file

    parser = MultiPartParser(
        stream_factory=make_file,
        max_form_memory_size=MAX_FORM_BYTES,
        buffer_size=BUFFER_BYTES,
        max_form_parts=MAX_PARTS,
    )
    try:
        return parser.parse(request.stream, boundary.encode(), request.content_length)
    except RequestEntityTooLarge:
        raise PayloadTooLarge("the upload is over the limit") from None
    except ClientDisconnected:
        raise InvalidRequest("the upload ended, or stalled, before its announced length") from None
    except ValueError:
        raise InvalidRequest("the body is not well-formed multipart/form-data") from None
    except Exception as error:
        refuse_chunks(error)
        raise
    finally:
        for file in opened:
            file.close()


def _part(name: str, part: Any) -> FilePart:
    path = Path(part.stream.name)
    return FilePart(name, plain_filename(part.filename), path, path.stat().st_size)


def plain_filename(given: str | None) -> str:
    """The last segment of what the client calls it, without what a terminal would obey."""
    last = _SEPARATORS.split(given or "")[-1]
    encodable = last.encode("utf-8", "replace").decode()
    printable = "".join(letter for letter in encodable if letter.isprintable()).strip()
    return printable[:MAX_FILENAME_CHARACTERS] or "file"


@contextmanager
def _scratch_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise StorageFull("there is no room for this upload") from None
        if error.errno in {errno.EACCES, errno.ENOENT, errno.EROFS, errno.EIO}:
            raise StorageUnavailable("uploads can't be received at the moment") from None
        raise InvalidRequest("the upload broke off") from None


def _refuse_size(max_bytes: int, param: str) -> NoReturn:
    raise PayloadTooLarge(f"the file is over the limit of {max_bytes} bytes", param=param)
