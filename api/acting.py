"""Bodies that are made while they are sent are still for whom the request was.

A view's work in the database is for the caller's tenant (``shared.db.security``), and ends with
the view. A stream goes on after it, on whatever thread sends it, and so does what is done when it
is closed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from flask import Response, request

from shared.db.security import Acting, acting_as, acting_now

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_ENVIRON_KEY = "pressrun.acting"


def go_on_acting(response: Response) -> Response:
    """``response``, whose body, if it is a stream, is made for those for whom the view worked."""
    if response.is_streamed:
        request.environ[_ENVIRON_KEY] = acting_now()
    return response


class StillActing:
    """WSGI middleware that sends such bodies."""

    def __init__(self, app: WSGIApplication) -> None:
        self._app = app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        body = self._app(environ, start_response)
        who = environ.get(_ENVIRON_KEY)
        return body if who is None else _Sending(body, who)


class _Sending:
    def __init__(self, body: Iterable[bytes], who: Acting) -> None:
        self._body = body
        self._chunks = iter(body)
        self._who = who

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        with acting_as(self._who):
            return next(self._chunks)

    def close(self) -> None:
        with acting_as(self._who):
            if close := getattr(self._body, "close", None):
                close()
