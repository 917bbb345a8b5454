"""The messages, their frames, the supervisor's pipe, and which engines there are."""

from __future__ import annotations

import contextlib
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from multiprocessing import Pipe as ConnectionPair
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.engines import frames, protocol
from worker.engines.base import EngineFailed
from worker.engines.child import engine_environment
from worker.engines.frames import FRAME_TARGET_BYTES, Pipe, frames_of
from worker.engines.protocol import (
    Beat,
    Cancel,
    Cancelled,
    Fatal,
    FromEngine,
    Load,
    Loading,
    Piece,
    Ready,
    Row,
    RowDelta,
    RowResult,
    RowsDone,
    Speaking,
    Submit,
    ToEngine,
    Unload,
)
from worker.engines.registry import ENGINES, create_engine

ROOT = Path(__file__).resolve().parents[3]
LOAD = Load("m", "scripted", "/models/m", {"slots": 8})
TO_ENGINE: list[ToEngine] = [
    LOAD,
    Submit(1, 2, [Row(0, "/v1/completions", b'{"prompt":"\xc3\xa9"}')]),
    Cancel(1, 2),
    Unload(),
]
FROM_ENGINE: list[FromEngine] = [
    Speaking([RowDelta(1, 2, 0, [Piece(3, 4, "é\x00")])]),
    Loading(0.5, "weights"),
    Ready(4, 1 << 40, {"device": "cpu"}),
    RowsDone([RowResult(1, 2, 0, 200, b"{}", 3, 4)]),
    Cancelled(1, 2),
    Beat(1, 2, 3.5),
    Fatal("code", "message"),
]


@pytest.fixture
def pair() -> Iterator[tuple[Connection, Connection]]:
    left, right = ConnectionPair()
    yield left, right
    left.close()
    right.close()


# --- messages and frames


@pytest.mark.parametrize("message", TO_ENGINE, ids=lambda m: type(m).__name__)
def test_messages_reach_the_engine_unchanged(
    pair: tuple[Connection, Connection], message: ToEngine
) -> None:
    protocol.send(pair[0], message)
    assert msgspec.msgpack.Decoder(ToEngine).decode(pair[1].recv_bytes()) == message


@pytest.mark.parametrize("message", FROM_ENGINE, ids=lambda m: type(m).__name__)
def test_messages_reach_the_supervisor_unchanged(
    pair: tuple[Connection, Connection], message: FromEngine
) -> None:
    protocol.send(pair[0], message)
    assert msgspec.msgpack.Decoder(FromEngine).decode(pair[1].recv_bytes()) == message


@pytest.mark.parametrize("message", [*TO_ENGINE, {"type": "Exec", "code": "x"}, 7])
def test_the_supervisor_takes_no_message_of_another_kind(
    pair: tuple[Connection, Connection], message: Any
) -> None:
    pair[0].send_bytes(msgspec.msgpack.encode(message))
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.Decoder(FromEngine).decode(pair[1].recv_bytes())


@settings(deadline=None, database=None)
@given(st.lists(st.integers(0, FRAME_TARGET_BYTES + 100), max_size=30))
def test_frames_keep_every_row_in_order_and_stay_small(sizes: list[int]) -> None:
    blob = memoryview(bytes(FRAME_TARGET_BYTES + 100))
    rows = [Row(i, "/v1/embeddings", blob[:size]) for i, size in enumerate(sizes)]  # type: ignore[arg-type]
    batches = list(frames_of(rows))
    assert [row.index for batch in batches for row in batch] == list(range(len(sizes)))
    for batch in batches:
        size = sum(len(row.body) + frames.FRAME_OVERHEAD_BYTES for row in batch)
        assert len(batch) == 1 or size <= FRAME_TARGET_BYTES
    # greedy: no two neighbours would have fitted into one frame
    for left, right in pairwise(batches):
        both = [*left, right[0]]
        assert sum(len(r.body) + frames.FRAME_OVERHEAD_BYTES for r in both) > FRAME_TARGET_BYTES


def test_the_overhead_allowed_for_is_more_than_messagepack_needs() -> None:
    rows = [Row(2**31 + i, "/v1/chat/completions", bytes(100_000)) for i in range(10)]
    results = [RowResult(2**62, 2**31, 2**31, 200, bytes(100_000), 2**40, 2**40)] * 10
    for message in (Submit(2**62, 2**31, rows), RowsDone(results)):
        encoded = msgspec.msgpack.encode(message)
        assert len(encoded) < 10 * (100_000 + frames.FRAME_OVERHEAD_BYTES)


# --- the supervisor's pipe


@pytest.fixture
def sockets() -> Iterator[tuple[Pipe, socket.socket]]:
    ours, theirs = socket.socketpair()
    pipe = Pipe(ours)
    yield pipe, theirs
    pipe.close()
    theirs.close()


def framed(message: FromEngine) -> bytes:
    body = msgspec.msgpack.encode(message)
    return struct.pack("!i", len(body)) + body


def test_a_half_frame_is_kept_until_the_rest_comes(sockets: tuple[Pipe, socket.socket]) -> None:
    pipe, theirs = sockets
    data = framed(Loading(0.1, "a")) + framed(Loading(0.2, "b"))
    for cut in (2, 4, 9, len(data) - 1):
        theirs.sendall(data[:cut])
        first = pipe.read()
        theirs.sendall(data[cut:])
        assert first + pipe.read() == [Loading(0.1, "a"), Loading(0.2, "b")]
    assert pipe.read() == []
    assert not pipe.ended


def test_what_was_said_before_the_end_is_read_first(sockets: tuple[Pipe, socket.socket]) -> None:
    pipe, theirs = sockets
    pipe.put(Unload())
    pipe.flush()
    theirs.sendall(framed(Fatal("a", "b")))
    theirs.close()  # with an unread frame in it: the kernel reports a reset
    assert pipe.read() == [Fatal("a", "b")]
    assert pipe.ended
    pipe.put(Unload())
    pipe.flush()  # writing to nobody is no error either


@pytest.mark.parametrize(
    "garbage",
    [b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", bytes(4), b"\0\0\0\x02\xc1\xc1", framed(Unload())],  # type: ignore[arg-type]
)
def test_garbage_ends_the_pipe_after_the_good_frames(
    sockets: tuple[Pipe, socket.socket], garbage: bytes
) -> None:
    pipe, theirs = sockets
    theirs.sendall(framed(Beat(1, 1)) + garbage)
    assert pipe.read() == [Beat(1, 1)]
    assert pipe.garbled
    assert pipe.ended


def test_a_full_pipe_wakes_the_waiter_when_there_is_room(
    sockets: tuple[Pipe, socket.socket],
) -> None:
    pipe, theirs = sockets
    body = bytes(4 << 20)
    pipe.put(Submit(1, 1, [Row(0, "/v1/completions", body)]))
    pipe.flush()
    assert pipe.unsent_bytes > 0
    assert not wait([pipe], timeout=0)  # type: ignore[list-item]
    received = bytearray()
    theirs.setblocking(False)
    while pipe.unsent_bytes:
        received += theirs.recv(1 << 20)
        assert wait([pipe], timeout=30)  # type: ignore[list-item]
        pipe.flush()
    with contextlib.suppress(BlockingIOError):
        while True:
            received += theirs.recv(1 << 20)
    assert msgspec.msgpack.decode(received[4:], type=Submit).rows[0].body == body
    assert not wait([pipe], timeout=0)  # type: ignore[list-item]


# --- registry and environment


def test_an_unknown_engine_is_told_by_code() -> None:
    with pytest.raises(EngineFailed) as caught:
        create_engine(Load("m", "quantum", ""), lambda *_: None)
    assert caught.value.code == "unknown_engine"


def test_the_registry_reaches_the_fake_engine() -> None:
    assert {"text", "embedding", "fake"} <= set(ENGINES)
    assert create_engine(Load("m", "fake", "", {"capacity": 3}), lambda *_: None).capacity == 3


@pytest.mark.parametrize("module", ["child", "registry", "host", "fake", "protocol"])
def test_no_module_of_the_supervisors_side_imports_torch(module: str) -> None:
    heavy = ("torch", "transformers", "numpy", "flask")
    script = (
        f"import sys, worker.engines.{module}\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_the_environment_of_an_engine_holds_no_credentials() -> None:
    base = {
        "PATH": "/bin",
        "CUDA_VISIBLE_DEVICES": "0",
        "PRESSRUN_DATABASE_URL": "postgresql://u:p@h/d",
        "AWS_SECRET_ACCESS_KEY": "x",
        "HF_TOKEN": "x",
    }
    passed = {"PATH": "/bin", "CUDA_VISIBLE_DEVICES": "0"}
    assert engine_environment(base) == {**passed, "HF_HUB_OFFLINE": "1"}
    assert engine_environment(base, offline=False) == passed
