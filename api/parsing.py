"""From a request to values, with errors that name the field. Nothing a client sends is a 500."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from hashlib import sha256
from typing import Any, NamedTuple, NoReturn, TypeVar

from flask import Request
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge

from api.errors import InvalidFields
from api.limits import MAX_DEADLINE_SECONDS
from shared.errors import InvalidRequest, NotFound, PayloadTooLarge, UnsupportedMediaType
from shared.specs.parsing import MAX_COUNTED_MISTAKES

T = TypeVar("T", bound=BaseModel)

MAX_KEY_CHARACTERS = 255
MAX_LISTED_FIELDS = 20

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_CLIENT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}", re.ASCII)
_CURSOR = re.compile(r"[a-z]{2,8}[_-][0-9a-z]{26}", re.ASCII)
_WINDOW = re.compile(r"([1-9][0-9]{0,5})([mhd])", re.ASCII)
# No character of it gives JSON its structure; "\\/" is how some clients write a slash.
_DATA_URL = re.compile(rb'"data:[a-z]{1,32}/[a-z0-9.+-]{1,64};base64,[A-Za-z0-9+/=\\]*+"')
_WINDOW_SECONDS = {"m": 60, "h": 3_600, "d": 86_400}


def json_body(request: Request, *, max_bytes: int, besides: int | None = None) -> Any:
    """The decoded JSON body; of its ``max_bytes`` at most ``besides`` may be anything else than
    ``data:`` URLs, since other JSON takes many times its length once it is decoded.

    Raises UnsupportedMediaType, PayloadTooLarge or InvalidRequest.
    """
    if request.mimetype != "application/json":
        raise UnsupportedMediaType("send the body as Content-Type: application/json")
    plain_encoding(request)
    # One more than may come: a body without an announced length is cut there, without an error.
    request.max_content_length = max_bytes + 1
    too_large = PayloadTooLarge(f"the body is over the limit of {max_bytes} bytes")
    try:
        data = request.get_data(cache=False)
    except RequestEntityTooLarge:
        raise too_large from None
    except (ClientDisconnected, OSError):
        raise InvalidRequest("the body ended, or stalled, before its announced length") from None
    except Exception as error:
        refuse_chunks(error)
        raise
    if len(data) > max_bytes:
        raise too_large
    if besides is not None and _bytes_besides_data_urls(data, besides) > besides:
        raise PayloadTooLarge(f"the body is over the limit of {besides} bytes beside data: URLs")
    return decode_json(data)


def refuse_chunks(error: Exception) -> None:
    """Raises InvalidRequest if ``error`` is gunicorn's way to say that a body in chunks is not what
    it should be."""
    if type(error).__module__.startswith("gunicorn.http."):
        raise InvalidRequest("the body does not come in well-formed chunks") from None


def plain_encoding(request: Request) -> None:
    """Raises UnsupportedMediaType for a compressed body: nobody knows what it would grow to."""
    if request.headers.get("Content-Encoding", "identity").strip().lower() not in {"", "identity"}:
        raise UnsupportedMediaType("send the body as it is, without a Content-Encoding")


def _bytes_besides_data_urls(data: bytes, enough: int) -> int:
    """Of a body that is no longer than ``enough`` all bytes count: nobody has to look."""
    if len(data) <= enough:
        return len(data)
    return len(data) - sum(len(found[0]) for found in _DATA_URL.finditer(data))


def decode_json(data: bytes) -> Any:
    """Strict JSON in UTF-8: no NaN, no Infinity, no member twice. Raises InvalidRequest."""
    try:
        return json.loads(
            data.decode(), parse_constant=_refuse_constant, object_pairs_hook=_unique_members
        )
    except RecursionError:
        raise InvalidRequest("the body is nested too deeply") from None
    except UnicodeDecodeError:
        raise InvalidRequest("the body is not UTF-8") from None
    except json.JSONDecodeError as error:
        # Its text holds no input, only what was expected and where.
        raise InvalidRequest(f"the body is not JSON: {error}") from None
    except ValueError:
        raise InvalidRequest("the body holds a number with too many digits") from None


def validate(model: type[T], document: Any) -> T:
    """The document as ``model``. Raises InvalidFields with every field at fault."""
    if not isinstance(document, dict):
        raise InvalidRequest("the body must be a JSON object")
    try:
        return model.model_validate(document)
    except ValidationError as error:
        if error.error_count() > MAX_COUNTED_MISTAKES:
            raise InvalidRequest(f"the body has {error.error_count()} mistakes") from None
        details = error.errors(include_url=False, include_context=False, include_input=False)
        fields = [_field(item) for item in details[:MAX_LISTED_FIELDS]]
        raise InvalidFields(fields) from None


def canonical(document: Any) -> bytes:
    """The same bytes for the same JSON, however it was written. Raises InvalidRequest."""
    try:
        return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()
    except RecursionError:
        raise InvalidRequest("the body is nested too deeply") from None


def fingerprint(document: Any) -> bytes:
    """What tells one JSON document from another, for Idempotency-Key. Raises InvalidRequest."""
    return sha256(canonical(document)).digest()


def is_id(value: str) -> bool:
    """Whether ``value`` could be an id of ours."""
    return _ID.fullmatch(value) is not None


def one_id(value: str, what: str) -> str:
    """``value`` if it could be an id of ours. Raises NotFound: others exist for nobody."""
    if not is_id(value):
        raise NotFound(f"there is no such {what}")
    return value


def is_client_id(value: str) -> bool:
    """Whether ``value`` could be a caller's own id of a job."""
    return _CLIENT_ID.fullmatch(value) is not None


def job_name(value: str) -> str:
    """``value`` if a job could be called so, by us or by a caller. Raises NotFound."""
    if not is_id(value) and not is_client_id(value):
        raise NotFound("there is no such job")
    return value


def plain_text(value: str, param: str) -> None:
    """Raises InvalidRequest for text with control characters, which no column or log should
    hold."""
    if not value.isprintable():
        raise InvalidRequest(f"'{param}' must be printable text", param=param)


def cursor(request: Request) -> str | None:
    """The id after which a page starts."""
    value = request.args.get("after")
    if value is not None and not _CURSOR.fullmatch(value):
        raise InvalidRequest("'after' must be the id of the last item seen", param="after")
    return value


class Page(NamedTuple):
    """The part of a list that is asked for."""

    limit: int
    after: str | None
    """The id of the last item seen."""


def page(request: Request) -> Page:
    """`limit` and `after`, as most lists take them (``routing.LIMIT`` and ``AFTER``)."""
    return Page(integer(request, "limit", default=20, least=1, most=100), cursor(request))


def integer(request: Request, name: str, *, default: int, least: int, most: int) -> int:
    """A whole number from the query."""
    value = request.args.get(name)
    if value is None:
        return default
    if not re.fullmatch(r"[0-9]{1,18}", value, re.ASCII) or not least <= int(value) <= most:
        raise InvalidRequest(f"'{name}' must be a whole number from {least} to {most}", param=name)
    return int(value)


def choice(request: Request, name: str, allowed: Collection[str]) -> str | None:
    """A query parameter that names one of few things; None when it is not given."""
    value = request.args.get(name)
    if value is not None and value not in allowed:
        raise InvalidRequest(f"'{name}' must be one of {', '.join(allowed)}", param=name)
    return value


def wait_seconds(request: Request, most: float) -> float:
    """How long a long-poll may last; more than ``most`` means ``most``."""
    value = request.args.get("wait")
    if value is None:
        return 0.0
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", value, re.ASCII):
        raise InvalidRequest("'wait' must be a number of seconds", param="wait")
    return min(float(value), most)


def idempotency_key(request: Request) -> str | None:
    """The Idempotency-Key header: 1 to 255 visible characters."""
    value = request.headers.get("Idempotency-Key")
    if value is None:
        return None
    if not (0 < len(value) <= MAX_KEY_CHARACTERS and value.isascii() and value.isprintable()):
        raise InvalidRequest(
            f"Idempotency-Key must be 1 to {MAX_KEY_CHARACTERS} visible ASCII characters",
            param="Idempotency-Key",
        )
    return value


def window_seconds(text: str) -> int:
    """``30m``, ``24h`` or ``7d`` in seconds, up to 30 days. Raises InvalidRequest."""
    match = _WINDOW.fullmatch(text)
    seconds = int(match[1]) * _WINDOW_SECONDS[match[2]] if match else 0
    if not 0 < seconds <= MAX_DEADLINE_SECONDS:
        raise InvalidRequest(
            "'completion_window' must be whole minutes, hours or days up to 30 days, such as "
            "'30m', '24h' or '7d'",
            param="completion_window",
        )
    return seconds


def _refuse_constant(name: str) -> NoReturn:
    raise InvalidRequest(f"the body is not JSON: {name} is not a JSON number")


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise InvalidRequest("the body has an object with the same member twice")
    return members


def _field(details: ErrorDetails) -> tuple[str | None, str]:
    path = ".".join(str(part) for part in details["loc"] if part != "[key]")
    # A member's name is the caller's text: say where only if it could be a name.
    param = path if path.isprintable() and len(path) <= MAX_KEY_CHARACTERS else None
    if details["type"] == "missing":
        return param, f"'{param}' is required"
    if details["type"] == "extra_forbidden":
        return param, f"'{param}' is not a parameter of this call"
    return param, f"'{param}': {details['msg'].removeprefix('Value error, ')}"
