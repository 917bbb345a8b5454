"""What every response carries: a request id of our own, and the security headers.

As WSGI middleware it also covers what Flask answers by itself, at the price of one list.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_ENVIRON_KEY = "pressrun.request_id"

SECURITY_HEADERS = [
    ("X-Content-Type-Options", "nosniff"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "private, no-cache"),
]


def request_id(environ: dict[str, Any]) -> str:
    """The id of the request being served."""
    return str(environ.get(_ENVIRON_KEY, ""))


def new_request_id() -> str:
    """An id for a request that has just come."""
    return "req_" + secrets.token_hex(12)


class ResponseHeaders:
    """Gives each request an id and each response the headers that all of them have."""

    def __init__(self, app: WSGIApplication) -> None:
        self._app = app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        number = new_request_id()
        environ[_ENVIRON_KEY] = number
        added = [("x-request-id", number), *SECURITY_HEADERS]

        def start(status: str, headers: list[tuple[str, str]], *error: Any) -> Any:
            return start_response(status, headers + added, *error)

        return self._app(environ, start)
