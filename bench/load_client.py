"""One process of load: keep-alive connections that send ready-made HTTP/1.1 requests.

    python -m bench.load_client < plan.json

The plan names ``port``, ``connections``, ``requests`` (texts, taken in turn), and either
``seconds`` or ``count`` as the end. Prints one JSON object. It imports nothing but the standard
library's sockets, so that little of the machine goes to the load itself.
"""

from __future__ import annotations

import json
import selectors
import socket
import statistics
import sys
import time
from itertools import cycle
from typing import Any

HEAD_END = b"\r\n\r\n"
LENGTH = b"content-length:"
NOT_MODIFIED = 304
"""Has no body, and says nothing of its length."""
RECEIVE_BYTES = 65_536
SILENCE_SECONDS = 30.0


class LoadError(Exception):
    """The server hung up, fell silent or spoke no HTTP/1.1 with a length."""


class Link:
    """One connection with one request under way."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=SILENCE_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sent_at = 0.0
        self._received = b""

    def send(self, request: bytes) -> None:
        self.sent_at = time.perf_counter()
        self.socket.sendall(request)

    def receive(self) -> int | None:
        """The status once the response is whole. Raises LoadError."""
        data = self.socket.recv(RECEIVE_BYTES)
        if not data:
            raise LoadError("the server hung up")
        self._received += data
        head, found, body = self._received.partition(HEAD_END)
        if not found:
            return None
        status = int(head[9:12])
        if status != NOT_MODIFIED and len(body) < _length(head):
            return None
        self._received = b""
        return status


def _length(head: bytes) -> int:
    lowered = head.lower()
    at = lowered.find(LENGTH)
    if at < 0:
        raise LoadError("a response without Content-Length")
    return int(lowered[at + len(LENGTH) :].partition(b"\r\n")[0])


def run(plan: dict[str, Any]) -> dict[str, Any]:
    """Sends until the end of the plan; every request that was sent is waited for."""
    requests = cycle([text.encode("latin-1") for text in plan["requests"]])
    count = plan.get("count") or sys.maxsize
    links = [Link(plan["port"]) for _ in range(min(plan["connections"], count))]
    statuses: dict[int, int] = {}
    latencies: list[float] = []
    began = time.perf_counter()
    deadline = began + (plan.get("seconds") or 1e9)
    sent = under_way = len(links)
    with selectors.DefaultSelector() as selector:
        for link in links:
            selector.register(link.socket, selectors.EVENT_READ, link)
            link.send(next(requests))
        while under_way:
            for link in _ready(selector):
                status = link.receive()
                if status is None:
                    continue
                now = time.perf_counter()
                statuses[status] = statuses.get(status, 0) + 1
                latencies.append(now - link.sent_at)
                if now < deadline and sent < count:
                    sent += 1
                    link.send(next(requests))
                else:
                    under_way -= 1
    seconds = time.perf_counter() - began
    for link in links:
        link.socket.close()
    return {
        "completed": len(latencies),
        "seconds": seconds,
        "statuses": statuses,
        "p50_ms": statistics.median(latencies) * 1000,
        "p99_ms": statistics.quantiles([*latencies, latencies[-1]], n=100)[98] * 1000,
    }


def _ready(selector: selectors.BaseSelector) -> list[Link]:
    events = selector.select(SILENCE_SECONDS)
    if not events:
        raise LoadError(f"no answer in {SILENCE_SECONDS} s")
    return [key.data for key, _ in events]


if __name__ == "__main__":
    print(json.dumps(run(json.load(sys.stdin))))
