"""The HTTP API as a command sees it: JSON in, JSON out, failures as CommandError."""

from __future__ import annotations

import contextlib
import ipaddress
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import httpx2

from pressrun.exit_codes import CommandError, ExitCode
from shared.backoff import delay_seconds

TIMEOUT = httpx2.Timeout(60.0, connect=5.0)
"""Longer than the server's longest long-poll."""
RETRY_STATUSES = frozenset({429, 502, 503, 504})
TRIES = 4
LONGEST_RETRY_AFTER_SECONDS = 30.0

Json = dict[str, Any]


class ApiClient:
    """One server and one key. Close it, or use it as a context manager.

    Every method raises CommandError: UNREACHABLE when no answer comes (after some tries where
    repeating is harmless), AUTH for 401 and 403, REFUSED for what else the server declines.
    """

    def __init__(self, url: str, api_key: str) -> None:
        self.url = url.rstrip("/")
        if not self.url.startswith(("http://", "https://")):
            raise CommandError(f"{url!r} is no address: it starts with http://", ExitCode.USAGE)
        try:
            self._http = httpx2.Client(
                base_url=self.url,
                headers={"Authorization": f"Bearer {api_key}", "Accept": "application/json"},
                timeout=TIMEOUT,
                follow_redirects=True,
                trust_env=not is_loopback(self.url),  # a proxy knows nothing of this machine
            )
        except (httpx2.InvalidURL, UnicodeError, ValueError):
            raise CommandError(f"{url!r} or its key can't be used", ExitCode.USAGE) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def get(self, path: str, *, patience_seconds: float = 0.0, **query: Any) -> Json:
        """``patience_seconds``: how long to keep trying a server that is away."""
        params = {name: value for name, value in query.items() if value is not None}
        request = self._http.build_request("GET", path, params=params)
        return self._json(self._repeat(request, patience_seconds=patience_seconds))

    def post(self, path: str, body: Any = None, *, idempotency_key: str | None = None) -> Json:
        """Repeated only when the server says that it accepted nothing, or under a key."""
        headers = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
        request = self._http.build_request("POST", path, json=body, headers=headers)
        return self._json(self._repeat(request, unanswered=idempotency_key is not None))

    def put(self, path: str, body: Any) -> Json:
        """Repeated as long as no answer comes: again, it changes nothing."""
        return self._json(self._repeat(self._http.build_request("PUT", path, json=body)))

    def patch(self, path: str, body: Any) -> Json:
        """Repeated as ``put`` is."""
        return self._json(self._repeat(self._http.build_request("PATCH", path, json=body)))

    def delete(self, path: str) -> Json:
        return self._json(self._repeat(self._http.build_request("DELETE", path)))

    def post_file(self, path: str, fields: dict[str, str], files: dict[str, Any]) -> Json:
        """A multipart form, streamed from the open files; never repeated."""
        request = self._http.build_request("POST", path, data=fields, files=files)
        return self._json(self._send(request))

    @contextmanager
    def stream(
        self, path: str, *, headers: dict[str, str] | None = None
    ) -> Iterator[httpx2.Response]:
        """A GET whose body the caller reads. Redirects off this server lose the key."""
        with self._translated(), self._http.stream("GET", path, headers=headers) as response:
            if not response.is_success:
                response.read()
                raise refusal(response)
            yield response

    def list_all(self, path: str, *, limit: int | None = None, **query: Any) -> list[Json]:
        """Walks the pages of a list, up to ``limit`` objects."""
        found: list[Json] = []
        after: str | None = None
        while True:
            page = self.get(path, after=after, **query)
            found += page["data"]
            done = limit is not None and len(found) >= limit
            if done or not page.get("has_more") or not page["data"]:
                return found[:limit]
            after = page["data"][-1]["id"]

    def _repeat(
        self, request: httpx2.Request, *, unanswered: bool = True, patience_seconds: float = 0.0
    ) -> httpx2.Response:
        deadline = time.monotonic() + patience_seconds
        tries = 0
        while True:
            tries += 1
            last = tries >= TRIES and time.monotonic() >= deadline
            try:
                response = self._http.send(request)
            except httpx2.TransportError as error:
                never_sent = isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout)
                refused = never_sent and not patience_seconds
                if last or refused or not (unanswered or never_sent):
                    raise self._unreachable(error) from None
                time.sleep(delay_seconds(tries, base=0.25, cap=5.0))
                continue
            if response.status_code not in RETRY_STATUSES or last:
                return response
            time.sleep(_retry_after(response) or delay_seconds(tries, base=0.25, cap=5.0))

    def _send(self, request: httpx2.Request) -> httpx2.Response:
        with self._translated():
            return self._http.send(request)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except httpx2.TransportError as error:
            raise self._unreachable(error) from None

    def _unreachable(self, error: Exception) -> CommandError:
        reason = str(error) or type(error).__name__
        return CommandError(f"no answer from {self.url}: {reason}", ExitCode.UNREACHABLE)

    def _json(self, response: httpx2.Response) -> Json:
        if not response.is_success:
            raise refusal(response)
        with contextlib.suppress(ValueError):
            answer = response.json()
            if isinstance(answer, dict):
                return answer
        raise CommandError(
            f"{self.url} does not answer as a Pressrun server does", ExitCode.UNREACHABLE
        )


def is_loopback(url: str) -> bool:
    """Whether the address is one of this machine alone."""
    try:
        host = httpx2.URL(url).host
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except (httpx2.InvalidURL, ValueError):
        return False


def refusal(response: httpx2.Response) -> CommandError:
    """An error answer as one sentence; the API's own words where it sent some."""
    status = response.status_code
    message, code = f"the server answered {status}", ""
    with contextlib.suppress(ValueError, AttributeError, TypeError, KeyError):
        error = response.json()["error"]
        message, code = str(error["message"]), str(error.get("code") or "")
    if status in (401, 403):
        return CommandError(f"not authorised: {message}", ExitCode.AUTH)
    if status in RETRY_STATUSES or status >= 500:  # noqa: PLR2004
        return CommandError(f"the server can't work now: {message}", ExitCode.UNREACHABLE)
    told = f"{message} ({code})" if code else message
    return CommandError(told, ExitCode.REFUSED, code=code)


def _retry_after(response: httpx2.Response) -> float | None:
    try:
        seconds = float(response.headers["Retry-After"])
    except (KeyError, ValueError):
        return None
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER_SECONDS)
