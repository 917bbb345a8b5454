"""Polls by callers who know the job already, answered before Flask is asked.

A 304 has no body, and its headers are one narrow statement away: finding a route, making a request
and a response around that took as long as the rest of it (``polls_304_vs_200``). Whatever is not
plainly such a poll, or whose job has changed, goes on to the application.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from api import parsing
from api.services import LateServices
from api.showing import known_as_it_is
from shared.db.security import acting_for

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from flask import Flask

_JOBS = "/v1/jobs/"
_NOT_MODIFIED = "304 NOT MODIFIED"


class PollingAgain:
    """``GET /v1/jobs/{id}`` with ``If-None-Match`` and nothing else to decide."""

    def __init__(self, app: Flask, wsgi_app: WSGIApplication, services: LateServices) -> None:
        """``wsgi_app`` answers all else; ``app`` knows how errors are answered."""
        self._app = app
        self._wsgi_app = wsgi_app
        self._services = services

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        name = _polled_again(environ)
        if name is None:
            return self._wsgi_app(environ, start_response)
        try:
            services = self._services()
            tenant_id = services.auth.tenant(environ.get("HTTP_AUTHORIZATION"))
            if not services.gate.stands_open(tenant_id):
                return self._wsgi_app(environ, start_response)
            with acting_for(tenant_id):
                headers = known_as_it_is(services, tenant_id, name, environ["HTTP_IF_NONE_MATCH"])
        except Exception as error:  # said as Flask says it, without asking a second time
            with self._app.request_context(environ):
                reply = self._app.make_response(self._app.handle_user_exception(error))
                return reply(environ, start_response)
        if headers is None:
            return self._wsgi_app(environ, start_response)
        start_response(_NOT_MODIFIED, [*headers.items()])
        return ()


def _polled_again(environ: dict[str, Any]) -> str | None:
    """The job's name, ours or the caller's own."""
    if (
        "HTTP_IF_NONE_MATCH" not in environ
        or environ["REQUEST_METHOD"] != "GET"
        or environ.get("QUERY_STRING")
    ):
        return None
    path: str = environ["PATH_INFO"]
    name = path[len(_JOBS) :]
    if not path.startswith(_JOBS) or not (parsing.is_id(name) or parsing.is_client_id(name)):
        return None
    return name
