"""The answer to who reads a batch's results: lines as NDJSON, and in headers where to go on."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterator
from typing import IO, cast

from flask import Request, Response

from api import parsing
from api.batch_results import (
    MAX_BYTES,
    MAX_LINES,
    STATUSES,
    Told,
    Walk,
    read_cursor,
    write_lines,
)
from api.services import Services
from shared.db.batch_results import bytes_before, look_at_batch, slices_from
from shared.errors import NotFound, StorageFull, StorageUnavailable

CONTENT_TYPE = "application/x-ndjson"
DEFAULT_LINES = 1_000
NEXT_AFTER = "X-Next-After"
INCOMPLETE = "X-Incomplete"
LAST_LINE = "X-Last-Line"

_HELD_BYTES = 2**20
"""Of an answer's lines in memory; the rest is in the scratch folder until it is sent."""
_CHUNK_BYTES = 256 * 1024
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def answer_results(services: Services, tenant_id: str, batch_id: str, request: Request) -> Response:
    """Lines that come after the cursor. They are gathered before the answer begins, so that its
    headers are right and no outage of the store breaks it off.

    Raises NotFound, InvalidRequest, StorageUnavailable or StorageFull.
    """
    status = parsing.choice(request, "status", STATUSES)
    limit = parsing.integer(request, "limit", default=DEFAULT_LINES, least=1, most=MAX_LINES)
    cursor = read_cursor(request.args.get("after"), status)
    # In this order: whatever is committed before the end was seen, is seen as well.
    with services.autocommit.connect() as connection:
        look = look_at_batch(connection, tenant_id, parsing.one_id(batch_id, "batch"))
        if look is None:
            raise NotFound("there is no such batch")
        before = bytes_before(connection, tenant_id, batch_id, cursor.ordinal)
    slices = slices_from(services.autocommit.connect, tenant_id, batch_id, cursor.ordinal)
    walk = Walk(look, slices, before, cursor, status)
    lines, told = _gather(services, walk, limit)
    after = walk.cursor_after(told)
    headers = {
        NEXT_AFTER: after.token(status),
        INCOMPLETE: "true" if told.cut or not look.ended else "false",
        LAST_LINE: str(after.lines),
        "Content-Length": str(told.bytes),
        "Cache-Control": "no-store",
    }
    response = Response(_sent(lines), 200, headers, content_type=CONTENT_TYPE)
    response.call_on_close(lines.close)
    return response


def _gather(services: Services, walk: Walk, limit: int) -> tuple[IO[bytes], Told]:
    file = tempfile.SpooledTemporaryFile(_HELD_BYTES, dir=str(services.settings.scratch_dir))  # noqa: SIM115
    lines = cast("IO[bytes]", file)
    try:
        told = write_lines(walk, services.store.read, lines, most_lines=limit, most_bytes=MAX_BYTES)
        lines.seek(0)
    except OSError as error:
        lines.close()
        if error.errno in _FULL:
            raise StorageFull("there is no room to gather these lines") from None
        raise StorageUnavailable("these lines can't be gathered at the moment") from None
    except BaseException:
        lines.close()
        raise
    return lines, told


def _sent(lines: IO[bytes]) -> Iterator[bytes]:
    while chunk := lines.read(_CHUNK_BYTES):
        yield chunk
