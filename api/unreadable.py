"""What is said to requests that gunicorn can't read: the same kind of problem as to all others.

Gunicorn would answer with HTML that repeats what it was sent.
"""

from __future__ import annotations

import json
import logging
import socket
from http import HTTPStatus

from api.request_ids import SECURITY_HEADERS, new_request_id

_MESSAGES = {
    HTTPStatus.REQUEST_URI_TOO_LONG: "the address is too long",
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: "the headers are too large",
    HTTPStatus.FORBIDDEN: "this connection is not served",
    HTTPStatus.INTERNAL_SERVER_ERROR: "something went wrong here; it has been logged",
}
_CODES = {HTTPStatus.FORBIDDEN: "forbidden", HTTPStatus.INTERNAL_SERVER_ERROR: "internal_error"}


class NothingQuoted(logging.Filter):
    """Keeps what strangers sent out of gunicorn's log: heads that it can't read, queries."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.msg.startswith("Invalid request from ip="):
            record.msg = "A request could not be read"
        elif record.msg == "Error handling request %s %s" and isinstance(record.args, tuple):
            method, uri = record.args
            record.args = (method, str(uri).partition("?")[0])
        return True


def write_problem(client: socket.socket, status: int, _reason: str, _message: str) -> None:
    """Stands for ``gunicorn.util.write_error``. A coding that we don't know (gunicorn: 501) is the
    caller's mistake here."""
    found = HTTPStatus.BAD_REQUEST if status == HTTPStatus.NOT_IMPLEMENTED else HTTPStatus(status)
    client.setblocking(False)
    client.send(problem_bytes(found))


def problem_bytes(status: HTTPStatus) -> bytes:
    """The whole response."""
    code = _CODES.get(status, "invalid_request")
    message = _MESSAGES.get(status, "the request could not be read")
    number = new_request_id()
    is_ours = status >= HTTPStatus.INTERNAL_SERVER_ERROR
    kind = "server_error" if is_ours else "invalid_request_error"
    body = json.dumps(
        {
            "type": f"urn:pressrun:error:{code}",
            "title": status.phrase,
            "status": status.value,
            "detail": message,
            "instance": f"urn:pressrun:request:{number}",
            "error": {"message": message, "type": kind, "param": None, "code": code},
        }
    ).encode()
    headers = [
        ("Connection", "close"),
        ("Content-Type", "application/problem+json"),
        ("Content-Length", str(len(body))),
        ("x-request-id", number),
        *SECURITY_HEADERS,
    ]
    head = f"HTTP/1.1 {status.value} {status.phrase}\r\n"
    return (
        head + "".join(f"{name}: {value}\r\n" for name, value in headers) + "\r\n"
    ).encode() + body
