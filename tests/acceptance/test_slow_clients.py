"""Clients that let their requests drip, against the real server: they are given up, and what they
sent is in no log."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.acceptance.malformed import request
from tests.integration.webhook_case import module_database_fixture
from tests.plant import Plant, plant

__all__ = ["module_database_fixture"]

PATIENCE_SECONDS = "2"
GENEROUS_SECONDS = 120.0
JOBS, FILES = "/v1/jobs", "/v1/files"
JSON = "Content-Type: application/json"
FORM = "Content-Type: multipart/form-data; boundary=b"
SECRET = "a-word-of-the-callers-own"


@pytest.fixture(scope="module")
def running(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    folder = tmp_path_factory.mktemp("slow clients") / "plant"
    settings = {"API_PATIENCE_SECONDS": PATIENCE_SECONDS}
    with plant(folder, module_database_url, settings=settings) as made:
        made.start_api("--workers", "1")
        made.wait_ready(GENEROUS_SECONDS)
        made.api_key = made.new_key(made.new_tenant("first"))
        yield made


def answer_to(port: int, sent: bytes, drop: bytes = b"") -> bytes:
    """All that comes back before the server hangs up, while a ``drop`` is sent again and again."""
    over = threading.Event()
    with socket.create_connection(("127.0.0.1", port), timeout=GENEROUS_SECONDS) as connection:
        connection.sendall(sent)

        def drip() -> None:
            with contextlib.suppress(OSError):
                while not over.wait(0.1):
                    connection.sendall(drop)

        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            received = b""
            with contextlib.suppress(ConnectionResetError):  # of drops that nobody read
                while data := connection.recv(65_536):
                    received += data
            return received
        finally:
            over.set()
            dripping.join()


@pytest.mark.parametrize(
    ("path", "head", "begun"),
    [
        (JOBS, f"{JSON}\r\nContent-Length: 100000", b'{"endpoint": "'),
        (JOBS, f"{JSON}\r\nTransfer-Encoding: chunked", b"5\r\n"),
        (FILES, f"{FORM}\r\nContent-Length: 100000", b"--b\r\n"),
    ],
    ids=["json", "chunks", "form"],
)
@pytest.mark.parametrize("drop", [b"", b"x"], ids=["stalls", "drips"])
def test_a_body_that_does_not_come_is_given_up(
    running: Plant, path: str, head: str, begun: bytes, drop: bytes
) -> None:
    received = answer_to(running.port, request(running.api_key, path, head) + begun, drop)
    assert received.startswith(b"HTTP/1.1 400 "), received
    assert b"invalid_request" in received
    assert running.http().get("/v1/jobs").status_code == 200


def test_a_head_that_does_not_end_is_given_up(running: Plant) -> None:
    assert answer_to(running.port, b"GET /v1/jobs HTTP/1.1\r\nHost: x\r\nX-A: ", b"y") == b""


def test_a_head_that_cannot_be_read_is_not_quoted_in_the_log(running: Plant) -> None:
    for line in (f"X {SECRET}: 1", f"X-A: {SECRET}\x01", f"Content-Length: {SECRET}"):
        received = answer_to(running.port, f"GET /healthz HTTP/1.1\r\n{line}\r\n\r\n".encode())
        assert received.startswith(b"HTTP/1.1 400 "), received
    received = answer_to(running.port, f"{SECRET}\r\n\r\n".encode())
    assert received.startswith(b"HTTP/1.1 400 "), received
    log = running.processes["api"].log()
    assert "A request could not be read" in log
    assert SECRET not in log
