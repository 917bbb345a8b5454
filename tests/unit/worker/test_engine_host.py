"""The engine host in a thread, with a scripted engine, spoken to over a real pipe."""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from multiprocessing import Pipe as ConnectionPair
from typing import Any

import msgspec
import pytest

from worker.engines import protocol
from worker.engines.base import Engine, EngineFailed, OnProgress
from worker.engines.frames import FRAME_TARGET_BYTES
from worker.engines.host import Host, Inbox, fatal_of
from worker.engines.protocol import (
    DISK_FULL,
    Beat,
    Cancel,
    Cancelled,
    Fatal,
    FromEngine,
    Load,
    Loading,
    Progressing,
    Ready,
    Row,
    RowProgress,
    RowResult,
    RowsDone,
    Submit,
    ToEngine,
    Unload,
)

LOAD = Load("m", "scripted", "/models/m", {"slots": 8})


class Scripted:
    """An engine whose steps are functions."""

    capacity = 5
    resident_bytes = 6
    detail: dict[str, Any] = {"device": "paper"}  # noqa: RUF012 - never changed
    waiting_rows = 0

    def __init__(self, *steps: Callable[[], list[RowResult]]) -> None:
        self.steps = list(steps)
        self.rows: list[tuple[int, int, int]] = []

    @property
    def busy(self) -> bool:
        return bool(self.rows)

    @property
    def active_rows(self) -> int:
        return len(self.rows)

    def submit(self, shard: int, epoch: int, row: Row) -> RowResult | None:
        if row.body == b"bad":
            return RowResult(shard, epoch, row.index, 400, b"{}")
        self.rows.append((shard, epoch, row.index))
        return None

    def cancel(self, shard: int, epoch: int) -> None:
        self.rows = [row for row in self.rows if row[:2] != (shard, epoch)]

    def step(self) -> list[RowResult]:
        if self.steps:
            return self.steps.pop(0)()
        rows, self.rows = self.rows, []
        return [RowResult(*row, 200, b"{}", 1, 2) for row in rows]


class Conversation:
    """A host running in a thread, spoken to over a real pipe."""

    def __init__(self, create: Callable[[Load, OnProgress], Engine], clock: Any = None) -> None:
        self.pipe, theirs = ConnectionPair()
        self.pipe_ended = threading.Event()
        self.pipe_ended_with: int | None = None
        inbox = Inbox(theirs, self._on_end)
        clocks = {"clock": clock} if clock else {}
        self._host = Host(theirs, inbox, create=create, **clocks)
        self._exit_code: int | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _on_end(self, code: int) -> None:
        self.pipe_ended_with = code
        self.pipe_ended.set()

    def _run(self) -> None:
        self._exit_code = self._host.run()

    def say(self, *messages: ToEngine) -> None:
        for message in messages:
            protocol.send(self.pipe, message)

    def hear(self) -> FromEngine:
        """Its next message; how long rows took is looked at in ``test_working_time``."""
        assert self.pipe.poll(30), "the host says nothing"
        message = msgspec.msgpack.Decoder(FromEngine).decode(self.pipe.recv_bytes())
        if isinstance(message, RowsDone):
            assert all((row.compute_seconds or 0.0) >= 0.0 for row in message.results)
            replace = msgspec.structs.replace
            return RowsDone([replace(row, compute_seconds=None) for row in message.results])
        return message

    def exit_code(self) -> int | None:
        self._thread.join(30)
        return self._exit_code


def scripted(*steps: Callable[[], list[RowResult]]) -> Callable[[Load, OnProgress], Engine]:
    def create(load: Load, progress: OnProgress) -> Engine:
        assert load == LOAD
        progress(0.5, "half")
        return Scripted(*steps)

    return create


def completion(index: int, body: bytes = b"{}") -> Row:
    return Row(index, "/v1/completions", body)


def test_load_run_unload() -> None:
    talk = Conversation(scripted())
    talk.say(LOAD)
    assert talk.hear() == Loading(0.5, "half")
    assert talk.hear() == Ready(5, 6, {"device": "paper"})
    talk.say(Submit(3, 4, [completion(0), completion(1)]))
    assert talk.hear() == RowsDone([RowResult(3, 4, i, 200, b"{}", 1, 2) for i in range(2)])
    talk.say(Unload())
    assert talk.exit_code() == 0


class Tireless(Scripted):
    """Never finishes a row."""

    def step(self) -> list[RowResult]:
        time.sleep(0.001)
        return []


def test_rows_refused_by_submit_are_answered_before_cancelled() -> None:
    talk = Conversation(lambda load, progress: Tireless(), clock=lambda: 0.0)
    talk.say(LOAD, Submit(1, 1, [completion(0)]))
    talk.say(Submit(2, 1, [completion(0, b"bad"), completion(1)]), Cancel(2, 1), Cancel(1, 1))
    heard = [talk.hear() for _ in range(4)]
    assert heard[1:] == [
        RowsDone([RowResult(2, 1, 0, 400, b"{}")]),
        Cancelled(2, 1),
        Cancelled(1, 1),
    ]
    talk.say(Unload())
    assert talk.exit_code() == 0


def test_large_results_come_in_several_frames() -> None:
    body = bytes(3 << 20)
    results = [RowResult(1, 1, i, 200, body) for i in range(7)]
    talk = Conversation(scripted(lambda: results))
    talk.say(LOAD, Submit(1, 1, [completion(0)]))
    talk.hear(), talk.hear()
    sizes: list[int] = []
    while sum(sizes) < 7:
        data = talk.pipe.recv_bytes()
        assert len(data) < FRAME_TARGET_BYTES
        sizes.append(len(msgspec.msgpack.decode(data, type=RowsDone).results))
    assert sizes == [2, 2, 2, 1]
    talk.say(Unload())


def test_a_result_that_no_frame_can_hold_becomes_a_row_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("worker.engines.host.FRAME_LIMIT_BYTES", 10_000)
    talk = Conversation(scripted(lambda: [RowResult(1, 1, 0, 200, bytes(10_000), 8, 9)]))
    talk.say(LOAD, Submit(1, 1, [completion(0)]))
    heard = [talk.hear() for _ in range(3)][-1]
    assert isinstance(heard, RowsDone)
    [result] = heard.results
    assert result.status == 500
    assert msgspec.json.decode(result.body)["error"]["code"] == "result_too_large"
    talk.say(Unload())


def test_beats_come_once_a_second_with_the_rate() -> None:
    ticks = iter(range(1_000_000))

    def quarter_seconds() -> float:
        return next(ticks) / 4

    def five_tokens() -> list[RowResult]:
        return [RowResult(1, 1, 0, 200, b"{}", 0, 5)]

    talk = Conversation(scripted(*[five_tokens] * 40), clock=quarter_seconds)
    talk.say(LOAD, Submit(1, 1, [completion(0)]), Submit(2, 1, [completion(1)]))
    heard = [talk.hear() for _ in range(30)][2:]
    beats = [i for i, message in enumerate(heard) if isinstance(message, Beat)]
    assert len(beats) >= 3
    assert all(later - earlier > 2 for earlier, later in pairwise(beats))
    assert all(heard[i].tokens_per_second >= 15 for i in beats)  # type: ignore[union-attr]
    talk.say(Unload())


def explode() -> list[RowResult]:
    raise RuntimeError("the tenant's secret prompt")


def lose_device() -> list[RowResult]:
    raise EngineFailed("device_lost", "sticky")


class OutOfMemoryError(RuntimeError):
    """Named as torch names its own."""


def run_out() -> list[RowResult]:
    raise OutOfMemoryError


class Talkative(Scripted):
    """An engine that tells a word of progress with each step."""

    def __init__(self, *words: list[RowProgress]) -> None:
        super().__init__(*([lambda: []] * (len(words) - 1)))
        self.words = list(words)

    def progress(self) -> list[RowProgress]:
        return self.words.pop(0) if self.words else []


def test_progress_comes_before_the_results_of_its_step_and_not_too_often() -> None:
    ticks = iter([n * 0.1 for n in range(1_000)])
    words = [[RowProgress(1, 1, 0, step, 9)] for step in range(1, 9)]
    engine = Talkative(*words)
    talk = Conversation(lambda load, progress: engine, clock=lambda: next(ticks))
    talk.say(LOAD)
    assert isinstance(talk.hear(), Ready)
    talk.say(Submit(1, 1, [completion(0)]))
    heard: list[FromEngine] = []
    while not heard or not isinstance(heard[-1], RowsDone):
        heard.append(talk.hear())
    told = [word.step for m in heard if isinstance(m, Progressing) for word in m.rows]
    assert told[0] == 1  # at once
    assert told == sorted(set(told))
    assert 1 < len(told) < len(words)  # a clock that ticks 0.1 s apart, words 0.25 s apart
    talk.say(Unload())


@pytest.mark.parametrize(
    ("step", "code"),
    [(explode, "engine_error"), (lose_device, "device_lost"), (run_out, "out_of_memory")],
)
def test_a_failing_step_is_fatal_and_quotes_no_prompt(
    step: Callable[[], list[RowResult]], code: str
) -> None:
    talk = Conversation(scripted(step))
    talk.say(LOAD, Submit(1, 1, [completion(0)]))
    fatal = [talk.hear() for _ in range(3)][-1]
    assert isinstance(fatal, Fatal)
    assert fatal.code == code
    assert "secret" not in fatal.message
    assert talk.exit_code() == 1


def test_a_failing_load_is_fatal_with_its_reason() -> None:
    def create(load: Load, progress: OnProgress) -> Engine:
        raise FileNotFoundError("no config.json")

    talk = Conversation(create)
    talk.say(LOAD)
    fatal = talk.hear()
    assert isinstance(fatal, Fatal)
    assert fatal.code == "engine_error"
    assert "no config.json" in fatal.message
    assert talk.exit_code() == 1


@pytest.mark.parametrize("first", [Unload(), Cancel(1, 1), Submit(1, 1, [])])
def test_anything_before_load_is_fatal(first: ToEngine) -> None:
    talk = Conversation(scripted())
    talk.say(first)
    fatal = talk.hear()
    assert isinstance(fatal, Fatal)
    assert fatal.code == "protocol_error"
    assert talk.exit_code() == 1


@pytest.mark.parametrize("garbage", [b"\x7f\xff\xff\xff" + bytes(99), b"\0\0\0\x01\xc1"])
def test_garbage_is_fatal_and_the_end_is_still_noticed(garbage: bytes) -> None:
    talk = Conversation(scripted())
    talk.say(LOAD)
    talk.hear(), talk.hear()
    with socket.socket(fileno=talk.pipe.fileno()) as raw:
        raw.sendall(garbage)
        fatal = talk.hear()
        assert isinstance(fatal, Fatal)
        assert fatal.code == "protocol_error"
        assert talk.exit_code() == 1
        raw.detach()
    talk.pipe.close()
    assert talk.pipe_ended.wait(30)
    assert talk.pipe_ended_with == 1


def test_the_supervisor_leaving_mid_step_is_noticed_during_the_step() -> None:
    go_on = threading.Event()

    def blocked() -> list[RowResult]:
        assert go_on.wait(30)
        return [RowResult(1, 1, 0, 200, b"{}")]

    talk = Conversation(scripted(blocked))
    talk.say(LOAD, Submit(1, 1, [completion(0)]))
    talk.hear(), talk.hear()
    talk.pipe.close()
    assert talk.pipe_ended.wait(30), "the end was not noticed during the step"
    assert talk.pipe_ended_with == 1
    go_on.set()
    assert talk.exit_code() == 1


def test_the_end_of_the_pipe_after_unload_is_no_failure() -> None:
    talk = Conversation(scripted())
    talk.say(LOAD, Unload())
    assert talk.exit_code() == 0
    talk.pipe.close()
    assert talk.pipe_ended.wait(30)
    assert talk.pipe_ended_with == 0


def test_fatal_names_where_it_happened() -> None:
    try:
        explode()
    except RuntimeError as error:
        said = fatal_of(error, quote=False).message
    assert said.startswith("RuntimeError at test_engine_host.py:")
    assert said.endswith("explode")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_apart_from_what_a_row_did(number: int) -> None:
    assert fatal_of(OSError(number, "no room"), quote=False).code == DISK_FULL
    assert fatal_of(OSError(errno.EIO, "broken"), quote=False).code == "engine_error"
