"""Downloads from the local directory store; a bucket signs URLs of its own."""

from __future__ import annotations

import time
from collections.abc import Iterator

from flask import Response, request
from werkzeug.exceptions import RequestedRangeNotSatisfiable
from werkzeug.http import dump_options_header

from api.routing import RouteTable, header
from api.services import Services
from shared.errors import Forbidden, NotFound, StorageUnavailable
from shared.storage.local import LocalStore

routes = RouteTable("Downloads", "Contents of files, by signed URL")


@routes.get(
    "/v1/downloads/<token>",
    access="open",
    parameters=(header("Range", "One range of bytes", type="string"),),
    answers={200: "The content", 206: "A part of the content"},
    refusals={416: "range_not_satisfiable"},
    errors=(Forbidden, StorageUnavailable),
)
def download(services: Services, token: str) -> Response:
    """The content of a file. The URL itself is the permission, until it expires."""
    store = services.store
    if not isinstance(store, LocalStore):
        raise NotFound("downloads are served by the bucket")
    what = store.verify_download(token, time.time())
    size = store.size(what.key)
    part = _asked_range(size)
    start, end = part or (0, size)
    headers = {
        "Accept-Ranges": "bytes",
        "Content-Disposition": dump_options_header(
            "inline" if what.inline else "attachment", {"filename": what.filename}
        ),
        "Content-Length": str(end - start),
    }
    if part:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    is_head = request.method == "HEAD"
    content: Iterator[bytes] = iter(()) if is_head else store.read(what.key, start, end)
    return Response(content, 206 if part else 200, headers, content_type=what.media_type)


def _asked_range(size: int) -> tuple[int, int] | None:
    """The bytes ``[start, end)`` asked for; None, meaning all, for no range or several."""
    asked = request.range
    if asked is None or asked.units != "bytes" or len(asked.ranges) != 1:
        return None
    found = asked.range_for_length(size)
    if found is None:
        raise RequestedRangeNotSatisfiable(size)
    return found
