"""What no honest client sends: answered soon, by a 4xx with a code, in little memory.

Against the real server: a body is not read further than its limit, whatever its head has announced.
"""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from bench.batch_figures import _peak_mb
from bench.rig import api_workers
from tests.acceptance.malformed import (
    CEILING_SECONDS,
    Reply,
    chunked,
    exchange,
    megabytes,
    request,
)
from tests.integration.webhook_case import module_database_fixture
from tests.plant import Plant, chat_row, plant

__all__ = ["module_database_fixture"]

CHAT, JOBS, BATCHES, FILES = "/v1/chat/completions", "/v1/jobs", "/v1/batches", "/v1/files"
JSON = "Content-Type: application/json"
FORM = "Content-Type: multipart/form-data; boundary=b"
MOST_GROWTH_MB = 64
MOST_READ_BYTES = 12 * 2**20
"""Of a body that is over a limit of 1 MiB: the limit, and what the kernel's buffers take."""


@pytest.fixture(scope="module")
def running(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    with plant(tmp_path_factory.mktemp("malformed") / "plant", module_database_url) as made:
        made.start(workers=0)
        warm_up(made)
        yield made


@pytest.fixture(autouse=True)
def _memory_stays(running: Plant) -> Iterator[None]:
    before = {worker.pid: _peak_mb(worker) for worker in api_workers(running)}
    yield
    after = {worker.pid: _peak_mb(worker) for worker in api_workers(running)}
    assert set(after) == set(before), "a worker of the API was replaced"
    assert all(after[pid] - before[pid] < MOST_GROWTH_MB for pid in after)


def warm_up(running: Plant) -> None:
    """Each process has imported what it imports for its first request of a kind."""
    for _ in range(8):
        for path in (JOBS, BATCHES, CHAT):
            post(running, path, b"{}")
        post(running, FILES, b"--b--\r\n", FORM)


def post(running: Plant, path: str, body: bytes, *headers: str) -> Reply:
    about = headers or (JSON,)
    head = request(running.api_key, path, *about, f"Content-Length: {len(body)}")
    return exchange(running.port, head, [body])


def assert_refused(reply: Reply, *statuses: int) -> None:
    assert reply.status in (statuses or range(400, 500)), (reply.status, reply.body)
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.code
    assert reply.headers["x-request-id"].startswith("req_")
    assert reply.seconds < CEILING_SECONDS


# --- bodies over the limit ----------------------------------------------------------------------


@pytest.mark.parametrize("path", [CHAT, JOBS, BATCHES])
@pytest.mark.parametrize("announced", [True, False])
def test_a_hundred_megabytes_are_not_read(running: Plant, path: str, announced: bool) -> None:
    body = megabytes(100)
    how = "Transfer-Encoding: chunked"
    if announced:
        how = f"Content-Length: {100 * 2**20}"
    head = request(running.api_key, path, JSON, how)
    reply = exchange(running.port, head, body if announced else chunked(body))
    assert_refused(reply, 413)
    assert reply.code == "payload_too_large"
    assert reply.sent_bytes < MOST_READ_BYTES


def test_a_form_is_not_read_beyond_its_limit(running: Plant) -> None:
    head = request(running.api_key, FILES, FORM, f"Content-Length: {2**50}")
    reply = exchange(running.port, head, megabytes(100))
    assert_refused(reply, 413)
    assert reply.sent_bytes < MOST_READ_BYTES


def test_a_field_of_a_form_is_not_kept_in_memory(running: Plant) -> None:
    field = b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\n'
    head = request(running.api_key, FILES, FORM, "Transfer-Encoding: chunked")
    reply = exchange(running.port, head, chunked([field, *megabytes(100)]))
    assert_refused(reply, 400, 413)
    assert reply.sent_bytes < MOST_READ_BYTES


# --- bodies that are nothing --------------------------------------------------------------------

DEEP = 100_000
BODIES: dict[str, bytes] = {
    "nothing": b"",
    "a deep list": b"[" * DEEP + b"]" * DEEP,
    "a deep object": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "a list that never ends": b"[" * DEEP,
    "NaN": b'{"model": "fake", "temperature": NaN, "messages": []}',
    "Infinity": b'{"model": "fake", "temperature": -Infinity, "messages": []}',
    "a float beyond all": b'{"model": "fake", "temperature": 1e999, "messages": []}',
    "an integer of 10^5 digits": b'{"n": ' + b"9" * DEEP + b"}",
    "half a surrogate pair": b'{"model": "\\ud800", "messages": [], "endpoint": "\\udfff"}',
    "NUL in a name": b'{"model": "\\u0000", "messages": [], "endpoint": "\\u0000"}',
    "a raw NUL": b'{"model": "\0"}',
    "not UTF-8": b'{"model": "\xff\xfe"}',
    "UTF-16": '{"model": "fake"}'.encode("utf-16"),
    "a byte-order mark": b"\xef\xbb\xbf{}",
    "members without end": b"{" + b",".join(b'"m%d":1' % n for n in range(60_000)) + b"}",
    "a list of 10^5 items": b'{"messages": [' + b"0," * DEEP + b"0]}",
}


@pytest.mark.parametrize("name", BODIES)
def test_a_body_that_is_no_request(running: Plant, name: str) -> None:
    for path in (CHAT, JOBS, BATCHES):
        assert_refused(post(running, path, BODIES[name]), 400, 404)


ONE_ROW: dict[str, Any] = chat_row(0)["body"]
COUNTS = ("max_tokens", "max_completion_tokens", "n", "seed", "top_p", "temperature")


@pytest.mark.parametrize("value", [-1, -0.5, 1.5, 2**63, -(2**70), 1e308, "1", [1]])
@pytest.mark.parametrize("field", ["max_tokens", "n", "priority", "expires_in_seconds", "limit"])
def test_a_count_that_counts_nothing(running: Plant, field: str, value: Any) -> None:
    document: dict[str, Any] = {"endpoint": CHAT, "body": dict(ONE_ROW)}
    if field == "limit":
        head = request(running.api_key, f"{JOBS}?limit={json.dumps(value)}", method="GET")
        reply = exchange(running.port, head.replace(b'"', b"%22"))
    elif field in ONE_ROW | dict.fromkeys(COUNTS):
        document["body"][field] = value
        reply = post(running, JOBS, json.dumps(document).encode())
    else:
        reply = post(running, JOBS, json.dumps(document | {field: value}).encode())
    if field == "expires_in_seconds" and value == 1.5:
        assert reply.status == 202  # as good a time as any
        return
    assert_refused(reply, 400)
    assert field in str(reply.body["error"]["param"])


@pytest.mark.parametrize("path", [CHAT, JOBS, BATCHES, FILES])
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "identity, gzip"])
def test_a_compressed_body_is_not_unpacked(running: Plant, path: str, encoding: str) -> None:
    bomb = gzip.compress(b"[" * (50 * 2**20), compresslevel=1)
    about = (FORM if path == FILES else JSON, f"Content-Encoding: {encoding}")
    reply = post(running, path, bomb, *about)
    assert_refused(reply, 415)
    assert reply.code == "unsupported_media_type"


# --- heads that are nothing ---------------------------------------------------------------------

LINE = "x" * 9_000
HEADS: dict[str, tuple[str, ...]] = {
    "a header of 1 MB": (f"X-Long: {'x' * 2**20}",),
    "a header beyond its limit": (f"X-Long: {LINE}",),
    "10^4 headers": tuple(f"X-{number}: 1" for number in range(10_000)),
    "a header without a name": (": 1",),
    "a header without a colon": ("nothing",),
    "a space in a name": ("Content Length: 2",),
    "NUL in a header": ("X-Nul: a\0b",),
    "a folded header": ("X-Folded: a\r\n b",),
    "a negative length": (JSON, "Content-Length: -1"),
    "a length in words": (JSON, "Content-Length: two"),
    "two lengths": (JSON, "Content-Length: 2", "Content-Length: 3"),
    "a length and chunks": (JSON, "Content-Length: 2", "Transfer-Encoding: chunked"),
    "an unknown coding": (JSON, "Transfer-Encoding: zip"),
}


@pytest.mark.parametrize("name", HEADS)
def test_a_head_that_is_none(running: Plant, name: str) -> None:
    reply = exchange(running.port, request(running.api_key, JOBS, *HEADS[name]), [b"{}"])
    assert_refused(reply)
    assert reply.sent_bytes < MOST_READ_BYTES


@pytest.mark.parametrize(
    "line",
    ["GET /" + "x" * 9_000 + " HTTP/1.1", "GET / HTTP/9.9", "ge\0t / HTTP/1.1", "hello", "\0" * 99],
)
def test_a_first_line_that_is_none(running: Plant, line: str) -> None:
    reply = exchange(running.port, line.encode() + b"\r\nHost: plant\r\n\r\n")
    assert_refused(reply)
    assert line[:20] not in json.dumps(reply.body)


# --- bodies that end too early, or never --------------------------------------------------------


@pytest.mark.parametrize("path", [CHAT, JOBS, FILES])
@pytest.mark.parametrize("how", ["Content-Length: 1000", "Transfer-Encoding: chunked"])
def test_half_a_body(running: Plant, path: str, how: str) -> None:
    about = FORM if path == FILES else JSON
    half = b'{"half": ' if "Length" in how else b'10\r\n{"half"'
    reply = exchange(running.port, request(running.api_key, path, about, how), [half], hang_up=True)
    assert_refused(reply, 400)


def test_slow_bodies_keep_nobody_waiting(running: Plant) -> None:
    """Some of the server's threads wait for bodies that don't come; others are served."""
    head = request(running.api_key, JOBS, JSON, "Content-Length: 1000")
    slow = [socket.create_connection(("127.0.0.1", running.port)) for _ in range(12)]
    try:
        for connection in slow:
            connection.sendall(head + b"{")
        for _ in range(4):
            assert_refused(post(running, JOBS, b"{}"), 400)
    finally:
        for connection in slow:
            connection.close()
    assert_refused(post(running, JOBS, b"{}"), 400)


# --- bad lines of a file ------------------------------------------------------------------------


def line(number: int, **changed: Any) -> bytes:
    return json.dumps(chat_row(number) | changed).encode()


BAD_LINES: list[tuple[bytes, str]] = [
    (b"[" * DEEP + b"]" * DEEP, "invalid_request"),
    (b'{"custom_id": "nan", "body": NaN}', "invalid_json_line"),
    (b'{"custom_id": "\\ud800"}', "invalid_json_line"),
    (b'{"custom_id": "\xff"}', "invalid_encoding"),
    (b"\0" * 1_000, "invalid_json_line"),
    (line(0), "duplicate_custom_id"),
    (line(7, body=ONE_ROW | {"max_tokens": -1}), "invalid_request"),
    (line(8, body=ONE_ROW | {"n": 1.5}), "invalid_request"),
]
LONG_LINE_MEGABYTES = 50


def file_of_bad_lines() -> Iterable[bytes]:
    yield b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="r.jsonl"\r\n\r\n'
    yield b"\xef\xbb\xbf" + line(30) + b"\r\n" + line(0) + b"\r\n"
    for bad, _ in BAD_LINES:
        yield bad + b"\r\n"
    yield b'{"custom_id": "'
    yield from megabytes(LONG_LINE_MEGABYTES)
    yield b'"}\n' + line(20) + b"\n--b--\r\n"


def test_each_bad_line_of_a_file_is_told_and_costs_no_memory(running: Plant) -> None:
    upkeep = _process(running, "upkeep")
    head = request(running.api_key, FILES, FORM, "Transfer-Encoding: chunked")
    uploaded = exchange(running.port, head, chunked(file_of_bad_lines()))
    assert uploaded.status == 200, uploaded.body
    before = _peak_mb(upkeep)
    body = {
        "input_file_id": uploaded.body["id"],
        "endpoint": CHAT,
        "completion_window": "24h",
    }
    batch_id = post(running, BATCHES, json.dumps(body).encode()).body["id"]

    batch = running.wait_batch(batch_id, 60)

    assert batch.status == "failed"
    assert batch.errors is not None
    told = {error.line: error.code for error in batch.errors.data or []}
    expected = {number: code for number, (_, code) in enumerate(BAD_LINES, start=3)}
    long_line = len(BAD_LINES) + 3
    assert told.pop(1) == "invalid_encoding"  # the byte-order mark
    assert told.pop(long_line) in {"line_too_long", "invalid_json_line"}
    assert told == expected
    assert _peak_mb(upkeep) - before < MOST_GROWTH_MB


def _process(running: Plant, name: str) -> Any:
    import psutil

    return psutil.Process(running.processes[name].pid)
