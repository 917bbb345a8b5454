"""Every error as HTTP: one table from code to status, one body for all of them.

The body is RFC 9457 problem+json with an ``error`` member beside it, which OpenAI's SDKs read.
"""

from __future__ import annotations

import json
import math
from http import HTTPStatus
from traceback import format_tb
from typing import Any

import structlog
from flask import Flask, Request, Response, request
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import HTTPException

from api.request_ids import request_id
from shared.db.session import is_outage
from shared.errors import (
    Conflict,
    DatabaseUnavailable,
    InvalidRequest,
    PressrunError,
    QuotaExceeded,
    RateLimitExceeded,
)

log = structlog.get_logger()

SERVER_ERROR = 500

STATUS: dict[str, int] = {
    "internal_error": 500,
    "invalid_request": 400,
    "unsupported_parameter": 400,
    "unsupported_endpoint": 400,
    "streaming_unsupported": 400,
    "context_length_exceeded": 400,
    "invalid_schema": 400,
    "checksum_mismatch": 400,
    "model_not_tunable": 400,
    "model_not_measurable": 400,
    "model_not_optimizable": 400,
    "unsupported_media": 400,
    "url_not_allowed": 400,
    "signing_secret_missing": 400,
    "invalid_api_key": 401,
    "budget_exceeded": 402,
    "forbidden": 403,
    "tenant_disabled": 403,
    "model_not_found": 404,
    "moderation_not_configured": 404,
    "not_found": 404,
    "method_not_allowed": 405,
    "conflict": 409,
    "request_under_way": 409,
    "payload_too_large": 413,
    "media_too_large": 413,
    "unsupported_media_type": 415,
    "range_not_satisfiable": 416,
    "idempotency_mismatch": 422,
    "receiver_unreachable": 424,
    "too_many_requests": 429,
    "rate_limit_exceeded": 429,
    "quota_exceeded": 429,
    "storage_unavailable": 503,
    "storage_full": 507,
    "database_unavailable": 503,
    "sender_unavailable": 503,
    "sweeps_unavailable": 503,
    "still_running": 504,
}
"""HTTP status of every error code; a test walks the subclasses of PressrunError."""

RETRY_AFTER_SECONDS: dict[str, int] = {
    "too_many_requests": 2,
    "request_under_way": 1,
    "storage_unavailable": 5,
    "database_unavailable": 2,
}

LONG_SECONDS = 60.0
"""OpenAI's SDKs wait for no longer, and would only ask again."""

_ERROR_TYPES = {
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    429: "rate_limit_error",
}

_CODES_OF_HTTP = {
    400: "invalid_request",
    404: "not_found",
    405: "method_not_allowed",
    413: "payload_too_large",
    415: "unsupported_media_type",
    416: "range_not_satisfiable",
}

_MESSAGES_OF_HTTP = {
    400: "the request could not be read",
    404: "there is no such address",
    405: "this address does not take this method",
    413: "the request is too large",
    415: "this content type is not read here",
    416: "the range lies outside the file",
}


class InvalidFields(InvalidRequest):
    """Several fields are wrong; ``fields`` lists them, the first is the error's own."""

    def __init__(self, fields: list[tuple[str | None, str]]) -> None:
        param, message = fields[0]
        super().__init__(message, param=param)
        self.fields = fields


class StillRunning(PressrunError):
    """A direct call's time is up; its job goes on."""

    code = "still_running"


def problem(
    caller: Request,
    code: str,
    message: str,
    *,
    param: str | None = None,
    fields: list[tuple[str | None, str]] | None = None,
    status: int | None = None,
) -> Response:
    """The response for ``code``, with its status unless another is given. ``message`` reaches the
    tenant: never a trace, never a prompt."""
    status = status or STATUS[code]
    listed = fields or ([(param, message)] if param else [])
    body: dict[str, Any] = {
        "type": f"urn:pressrun:error:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": message,
        "instance": f"urn:pressrun:request:{request_id(caller.environ)}",
    }
    if listed:
        body["errors"] = [{"detail": text, "param": where} for where, text in listed]
    body["error"] = error_object(code, message, param=param, status=status)
    response = Response(json.dumps(body), status, content_type="application/problem+json")
    if code in RETRY_AFTER_SECONDS:
        response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS[code])
    return response


def error_object(
    code: str, message: str, *, param: str | None = None, status: int
) -> dict[str, Any]:
    """The error as OpenAI's SDKs read it."""
    other = "server_error" if status >= SERVER_ERROR else "invalid_request_error"
    kind = _ERROR_TYPES.get(status, other)
    return {"message": message, "type": kind, "param": param, "code": code}


def register_errors(app: Flask) -> None:
    """Makes every way out of a view that is not a response a problem."""
    app.register_error_handler(PressrunError, _domain_error)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(Exception, _unexpected_error)


def _domain_error(error: PressrunError) -> Response:
    if STATUS[error.code] >= SERVER_ERROR:
        log.warning("request_failed", code=error.code, request_id=request_id(request.environ))
    fields = error.fields if isinstance(error, InvalidFields) else None
    response = problem(request, error.code, error.message, param=error.param, fields=fields)
    if isinstance(error, RateLimitExceeded | QuotaExceeded):
        _say_when(response, error.retry_after_seconds)
    if error.code == Conflict.code:
        # OpenAI's SDKs retry a 409; the object's state will not change back.
        response.headers["x-should-retry"] = "false"
    if response.status_code == HTTPStatus.UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def _say_when(response: Response, seconds: float | None) -> None:
    """Asking again is of use then; None: not at all by itself."""
    if seconds is not None:
        response.headers["Retry-After"] = str(max(1, math.ceil(seconds)))
    if seconds is None or seconds > LONG_SECONDS:
        response.headers["x-should-retry"] = "false"


def _http_error(error: HTTPException) -> Response:
    status = error.code or HTTPStatus.INTERNAL_SERVER_ERROR
    if status < HTTPStatus.BAD_REQUEST:
        # Werkzeug raises its redirects.
        return Response(status=status, headers=error.get_response().headers)
    other = "internal_error" if status >= SERVER_ERROR else "invalid_request"
    code = _CODES_OF_HTTP.get(status, other)
    response = problem(request, code, _MESSAGES_OF_HTTP.get(status, "the request failed"))
    for name, value in error.get_headers(request.environ):
        if name in {"Allow", "Content-Range"}:
            response.headers[name] = value
    return response


def _unexpected_error(error: Exception) -> Response:
    if isinstance(error, PoolTimeout) or is_outage(error):
        log.warning("database_unavailable", error=type(error).__name__)
        code = DatabaseUnavailable.code
        return problem(request, code, "the database does not answer; try again")
    # Messages of errors, and statements, may hold a tenant's words: log where and what kind.
    log.error(
        "request_crashed",
        error=type(error.orig if isinstance(error, DBAPIError) else error).__name__,
        request_id=request_id(request.environ),
        where="".join(format_tb(error.__traceback__)),
    )
    return problem(request, "internal_error", "something went wrong here; it has been logged")
