"""The only module that makes requests to addresses which tenants have chosen.

A name is resolved once, all that it stands for is judged, and the connection goes to the very
address that was judged, with the certificate checked against the name. It is written on the
standard library's ``http.client``: client libraries resolve names for themselves, behind the place
where an address could be pinned, and bring proxies, redirects and decompression to be turned off.
One deadline covers a request from its first byte to its last, however slowly they come.
"""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from shared.egress import AllowedHosts, Target, may_connect, parse_target
from shared.errors import UrlNotAllowed
from shared.version import VERSION

MAX_BODY_BYTES = 64 * 1024
"""Of an answer, read and dropped; what a receiver says beyond its status is of no consequence."""
BODY_SECONDS = 2.0
"""For reading it: the status is known by then, and a slow body should not hold a sender."""
MAX_LOOKUPS = 64
"""Names being resolved at a time: a resolver that hangs keeps its thread for as long."""
_CHUNK_BYTES = 16 * 1024

T = TypeVar("T")
Resolver = Callable[[str, int], Sequence[str]]
"""From a host and a port to addresses. Raises OSError."""


class EgressFailed(Exception):
    """No answer was had; ``reason`` is one of a few words, and nothing of the receiver's."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Answer:
    """What is kept of a receiver's answer."""

    status_code: int
    retry_after: str | None
    """The header as it came, cut to a sane length."""


@dataclass(frozen=True, slots=True)
class Page:
    """What was there; without a body unless the status is 200."""

    status_code: int
    headers: Mapping[str, str]
    """By their names in lower case."""
    body: bytes


class Egress:
    """Asks tenants' URLs. Threads share it."""

    def __init__(
        self,
        *,
        allowed: AllowedHosts = frozenset(),
        ca_file: Path | None = None,
        timeout_seconds: float = 15.0,
        resolve: Resolver | None = None,
    ) -> None:
        """``allowed`` are the hosts that operators have named, ``ca_file`` adds authorities to
        the system's. Raises OSError for a file that is none."""
        self._allowed = allowed
        self._timeout_seconds = timeout_seconds
        self._resolve = resolve or _system_resolver
        self._lookups = threading.BoundedSemaphore(MAX_LOOKUPS)
        self._tls = ssl.create_default_context()
        self._tls.minimum_version = ssl.TLSVersion.TLSv1_2
        if ca_file is not None:
            self._tls.load_verify_locations(ca_file)

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Sends ``body`` and returns the answer's status, whichever it is; redirects are answers
        like others. Raises EgressFailed."""
        return self._exchange(url, lambda target, stream: _post(target, stream, body, headers))

    def get(self, url: str, headers: Mapping[str, str], *, max_bytes: int) -> Page:
        """What is there, whole; redirects are answers like others. Raises EgressFailed, with
        ``too_large`` for more than ``max_bytes``."""
        return self._exchange(url, lambda target, stream: _get(target, stream, headers, max_bytes))

    def _exchange(self, url: str, ask: Callable[[Target, _Deadlined], T]) -> T:
        try:
            target = parse_target(url, self._allowed)
        except UrlNotAllowed:
            raise EgressFailed("url_not_allowed") from None
        deadline = time.monotonic() + self._timeout_seconds
        try:
            with _connected(target, self._addresses(target, deadline), deadline) as raw:
                return self._ask(target, raw, deadline, ask)
        except ssl.SSLCertVerificationError:
            raise EgressFailed("certificate_invalid") from None
        except TimeoutError:
            raise EgressFailed("timeout") from None
        except ssl.SSLError:
            raise EgressFailed("tls_failed") from None
        except (http.client.HTTPException, ValueError):
            raise EgressFailed("answer_invalid") from None
        except OSError:
            raise EgressFailed("connection_lost") from None

    def _addresses(self, target: Target, deadline: float) -> list[str]:
        """What the host stands for, every one of it judged: a name with one private address among
        public ones is refused."""
        found = self._lookup(target.host, target.port, deadline)
        if not found:
            raise EgressFailed("name_not_found")
        if not all(may_connect(address, allowed=target.allowed) for address in found):
            raise EgressFailed("address_not_allowed")
        return found

    def _lookup(self, host: str, port: int, deadline: float) -> list[str]:
        """The system's resolver takes no deadline, so it is waited for from here."""
        found: list[str] = []
        failed = threading.Event()
        if not self._lookups.acquire(timeout=_left(deadline)):
            raise EgressFailed("name_timeout")  # too many hang already

        def look() -> None:
            try:
                found.extend(dict.fromkeys(self._resolve(host, port)))
            except (OSError, UnicodeError):
                failed.set()
            finally:
                self._lookups.release()

        thread = threading.Thread(target=look, name="lookup", daemon=True)
        thread.start()
        thread.join(_left(deadline))
        if thread.is_alive():
            raise EgressFailed("name_timeout")
        return [] if failed.is_set() else found

    def _ask(
        self,
        target: Target,
        raw: socket.socket,
        deadline: float,
        ask: Callable[[Target, _Deadlined], T],
    ) -> T:
        if target.scheme == "https":
            raw.settimeout(_left(deadline))
            with self._tls.wrap_socket(raw, server_hostname=target.host) as secured:
                return ask(target, _Deadlined(secured, deadline))
        return ask(target, _Deadlined(raw, deadline))


def _request(
    method: str, target: Target, stream: _Deadlined, body: bytes | None, headers: Mapping[str, str]
) -> http.client.HTTPConnection:
    """A connection whose request was sent."""
    connection = http.client.HTTPConnection(target.host, target.port)
    connection.sock = stream
    connection.putrequest(method, target.path, skip_host=True, skip_accept_encoding=True)
    fixed = {
        "Host": target.authority,
        "User-Agent": f"Pressrun/{VERSION}",
        "Accept-Encoding": "identity",
        "Connection": "close",
    }
    length = {} if body is None else {"Content-Length": str(len(body))}
    for name, value in (fixed | length | dict(headers)).items():
        connection.putheader(name, value)
    connection.endheaders(body)
    return connection


def _post(target: Target, stream: _Deadlined, body: bytes, headers: Mapping[str, str]) -> Answer:
    with _request("POST", target, stream, body, headers).getresponse() as response:
        retry_after = response.getheader("Retry-After")
        stream.hurry(BODY_SECONDS)
        with suppress(OSError, http.client.HTTPException, ValueError):
            _drop(response)
        return Answer(response.status, retry_after[:64] if retry_after else None)


def _get(target: Target, stream: _Deadlined, headers: Mapping[str, str], max_bytes: int) -> Page:
    with _request("GET", target, stream, None, headers).getresponse() as response:
        told = {name.lower(): value for name, value in response.getheaders()}
        if response.status != http.client.OK:
            return Page(response.status, told, b"")
        if told.get("content-encoding", "identity").lower() != "identity":
            raise EgressFailed("answer_invalid")
        content = bytearray()
        while chunk := response.read1(_CHUNK_BYTES):
            content += chunk
            if len(content) > max_bytes:
                raise EgressFailed("too_large")
        if response.length:  # it said that there would be more
            raise EgressFailed("connection_lost")
        return Page(response.status, told, bytes(content))


def _drop(response: http.client.HTTPResponse) -> None:
    """Reads what a receiver sent, up to the cap, undecoded: it may close in peace then."""
    left = MAX_BODY_BYTES
    while left > 0 and (chunk := response.read1(min(left, _CHUNK_BYTES))):
        left -= len(chunk)


class _Deadlined:
    """As much of a socket as ``http.client`` uses, each operation with what is left of the time.

    A socket's own timeout is one for each operation, and a peer that sends a byte now and then
    never meets it.
    """

    def __init__(self, wrapped: socket.socket, deadline: float) -> None:
        self._wrapped = wrapped
        self._deadline = deadline

    def hurry(self, seconds: float) -> None:
        """Brings the deadline nearer."""
        self._deadline = min(self._deadline, time.monotonic() + seconds)

    def sendall(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            self._wrapped.settimeout(_left(self._deadline))
            view = view[self._wrapped.send(view) :]

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self))

    def recv_into(self, buffer: Any) -> int:
        self._wrapped.settimeout(_left(self._deadline))
        return self._wrapped.recv_into(buffer)

    def close(self) -> None:
        """Closed by whoever opened it."""


class _Reader(io.RawIOBase):
    def __init__(self, stream: _Deadlined) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._stream.recv_into(buffer)


def _left(deadline: float) -> float:
    """Seconds until the deadline. Raises TimeoutError when there are none."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _connected(target: Target, addresses: Sequence[str], deadline: float) -> socket.socket:
    """A connection to the first address that takes one. Raises EgressFailed."""
    for place, address in enumerate(addresses):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        made = socket.socket(family, socket.SOCK_STREAM)
        try:
            made.settimeout(_left(deadline) / (len(addresses) - place))
            made.connect((address, target.port))
        except OSError as error:
            made.close()
            if place == len(addresses) - 1:
                timed_out = isinstance(error, TimeoutError)
                raise EgressFailed("timeout" if timed_out else "connection_refused") from None
            continue
        return made
    raise EgressFailed("name_not_found")


def _system_resolver(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for _, _, _, _, address in found]
