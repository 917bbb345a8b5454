"""How long a request is waited for: what drips is given up, what flows is not."""

from __future__ import annotations

import logging
import socket

import pytest

from api.patience import LEAST_BYTES_A_SECOND, Patience, patient, renew
from api.unreadable import NothingQuoted

SECONDS = 30.0


class Line:
    """A connection on which pieces come after so many seconds each, by a clock of its own."""

    def __init__(self, *pieces: tuple[float, bytes]) -> None:
        self.now = 0.0
        self.is_shut = False
        self.options: list[tuple[int, int]] = []
        self.sock = self
        self._pieces = list(pieces)

    def setsockopt(self, level: int, name: int, _value: bytes) -> None:
        self.options.append((level, name))

    def clock(self) -> float:
        return self.now

    def shutdown(self, how: int) -> None:
        assert how == socket.SHUT_RD
        self.is_shut = True

    def chunk(self, _size_hint: int | None = None) -> bytes:
        if self._pieces and self._pieces[0][0] <= 1:
            after, data = self._pieces.pop(0)
            self.now += after
            return data
        self.now += 1
        if self._pieces:
            after, data = self._pieces[0]
            self._pieces[0] = (after - 1, data)
        raise BlockingIOError


def read_all(line: Line) -> bytes:
    read = patient(Line.chunk, SECONDS, line.clock)
    found = b""
    while data := read(line, None):
        found += data
    return found


def test_what_comes_in_time_is_read_to_its_end() -> None:
    line = Line((20.0, b"head"), (9.0, b"body"), (0.0, b""))
    assert read_all(line) == b"headbody"
    assert not line.is_shut
    assert line.options == [(socket.SOL_SOCKET, socket.SO_RCVTIMEO)]


def test_nothing_for_too_long_is_as_if_the_client_had_hung_up() -> None:
    line = Line((1.0, b"head"), (1_000.0, b"body"))
    assert read_all(line) == b"head"
    assert SECONDS <= line.now < SECONDS + 2
    assert line.is_shut


def test_dripping_is_no_way_to_go_on() -> None:
    line = Line(*[(1.0, b"x")] * 1_000)
    assert len(read_all(line)) < 40
    read = patient(Line.chunk, SECONDS, line.clock)
    assert read(line, None) == b"", "given up once, given up for good"


def test_a_slow_line_has_the_time_that_it_takes() -> None:
    pieces = [(1.0, b"x" * 2 * LEAST_BYTES_A_SECOND)] * 1_000
    assert len(read_all(Line(*pieces, (0.0, b"")))) == 2_000 * LEAST_BYTES_A_SECOND


def test_each_request_has_its_own() -> None:
    line = Line((29.0, b"first"), (29.0, b"second"), (100.0, b"third"))
    read = patient(Line.chunk, SECONDS, line.clock)
    assert read(line, None) == b"first"
    renew(line, SECONDS)
    assert read(line, None) == b"second"
    assert read(line, None) == b""
    renew(line, SECONDS)
    assert read(line, None) == b"", "whose last request was given up has no next one"


def test_time_that_is_not_waited_counts_for_nothing() -> None:
    patience = Patience(1.0)
    for _ in range(1_000):
        patience.note(0.001, 10)
    assert not patience.is_lost


@pytest.mark.parametrize(
    ("message", "arguments", "logged"),
    [
        ("Invalid request from ip=1.2.3.4: Invalid HTTP Header: 'X: secret'", (),
         "A request could not be read"),
        ("Error handling request %s %s", ("GET", "/v1/x?token=secret"),
         "Error handling request GET /v1/x"),
        ("Booting worker with pid: %s", (7,), "Booting worker with pid: 7"),
    ],
)  # fmt: skip
def test_the_log_quotes_nobody(message: str, arguments: tuple[object, ...], logged: str) -> None:
    record = logging.LogRecord("gunicorn.error", logging.WARNING, "", 1, message, arguments, None)
    assert NothingQuoted().filter(record)
    assert record.getMessage() == logged
