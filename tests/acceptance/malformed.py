"""Requests written byte by byte, as no client library would send them."""

from __future__ import annotations

import json
import select
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

PIECE_BYTES = 64 * 1024
CEILING_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back, and what it took."""

    status: int
    headers: dict[str, str]
    body: Any
    sent_bytes: int
    """Of head and body, until the answer was there."""
    seconds: float

    @property
    def code(self) -> str:
        return str(self.body["error"]["code"])


def exchange(
    port: int, head: bytes, pieces: Iterable[bytes] = (), *, hang_up: bool = False
) -> Reply:
    """Sends ``head`` and then ``pieces`` until there is an answer; with ``hang_up`` the sending
    side is closed when all is sent. Raises TimeoutError when none comes."""
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=CEILING_SECONDS) as connection:
        sent = _send(connection, head, pieces)
        if hang_up:
            connection.shutdown(socket.SHUT_WR)
        received = _receive(connection)
    return _reply(received, sent, time.monotonic() - began)


def _send(connection: socket.socket, head: bytes, pieces: Iterable[bytes]) -> int:
    sent = 0
    for whole in (head, *([pieces] if isinstance(pieces, bytes) else [])):
        sent += _send_whole(connection, whole)
    if not isinstance(pieces, bytes):
        for piece in pieces:
            if select.select([connection], [], [], 0)[0]:
                break
            sent += _send_whole(connection, piece)
    return sent


def _send_whole(connection: socket.socket, data: bytes) -> int:
    """What a server takes that may have answered and hung up already."""
    sent = 0
    while sent < len(data):
        try:
            sent += connection.send(data[sent : sent + PIECE_BYTES])
        except (BrokenPipeError, ConnectionResetError):
            break
    return sent


def _receive(connection: socket.socket) -> bytes:
    """Up to the end of the first answer."""
    received = b""
    while not _whole(received):
        try:
            more = connection.recv(PIECE_BYTES)
        except ConnectionResetError:
            break
        if not more:
            break
        received += more
    return received


def _whole(received: bytes) -> bool:
    head, end, body = received.partition(b"\r\n\r\n")
    length = _headers(head).get("content-length")
    return bool(end) and length is not None and len(body) >= int(length)


def _headers(head: bytes) -> dict[str, str]:
    lines = head.decode("latin-1").split("\r\n")[1:]
    return {
        name.lower(): value.strip() for name, _, value in (each.partition(":") for each in lines)
    }


def _reply(received: bytes, sent: int, seconds: float) -> Reply:
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 "), received[:200]
    return Reply(int(head.split()[1]), _headers(head), json.loads(body), sent, seconds)


def request(key: str, path: str, *headers: str, method: str = "POST") -> bytes:
    """The head of a request; a Content-Type and all about length is in ``headers``."""
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: plant",
        f"Authorization: Bearer {key}",
        *headers,
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def megabytes(count: int, piece: bytes = b"x" * PIECE_BYTES) -> Iterable[bytes]:
    """So much in pieces of 64 KiB, never all in memory."""
    return (piece for _ in range(count * 16))


def chunked(pieces: Iterable[bytes]) -> Iterable[bytes]:
    """The pieces as a body without an announced length."""
    for piece in pieces:
        yield b"%x\r\n%s\r\n" % (len(piece), piece)
    yield b"0\r\n\r\n"
