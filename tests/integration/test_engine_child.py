"""Real engine children: their lives, and above all their deaths."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import psutil
import pytest

from worker.engines import frames
from worker.engines.child import ChildDied, EngineChild
from worker.engines.fake import fake_response
from worker.engines.protocol import (
    Cancelled,
    Fatal,
    FromEngine,
    Load,
    Loading,
    Ready,
    Row,
    RowResult,
    RowsDone,
)

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {"PATH": os.defpath, "PRESSRUN_TEST_MARK": "only this"}
PATIENCE_SECONDS = 60
CHAT = "/v1/chat/completions"
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="asks /proc and the kernel")

Spawn = Callable[..., EngineChild]


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    children: list[EngineChild] = []

    def start(engine: str = "fake", **settings: Any) -> EngineChild:
        load = Load("m", engine, "", settings)
        children.append(EngineChild.spawn(load, environment=ENVIRONMENT))
        return children[-1]

    yield start
    for child in children:
        child.kill()
        assert not psutil.pid_exists(child.pid)


def chat_row(text: str, index: int = 0) -> Row:
    return Row(index, CHAT, json.dumps({"messages": [{"role": "user", "content": text}]}).encode())


def listen(child: EngineChild, until: Callable[[list[FromEngine]], bool]) -> list[FromEngine]:
    """Receives until the condition holds, as a supervisor does."""
    heard: list[FromEngine] = []
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not until(heard):
        assert time.monotonic() < deadline, f"heard only {heard[-3:]}"
        wait([child.pipe], timeout=1)  # type: ignore[list-item]
        heard += child.receive()
    return heard


def results_of(heard: list[FromEngine]) -> list[RowResult]:
    return [
        result for message in heard if isinstance(message, RowsDone) for result in message.results
    ]


def await_ready(child: EngineChild) -> None:
    listen(child, lambda _: child.state == "ready")


def await_results(child: EngineChild, count: int) -> list[RowResult]:
    return results_of(listen(child, lambda heard: len(results_of(heard)) >= count))


def await_death(child: EngineChild) -> tuple[list[FromEngine], ChildDied]:
    heard: list[FromEngine] = []
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        wait([child.pipe], timeout=1)  # type: ignore[list-item]
        try:
            heard += child.receive()
        except ChildDied as death:
            return heard, death
    raise AssertionError("the child lives on")


def await_true(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.01)


def burns_cpu(pid: int) -> Callable[[], bool]:
    """Whether the process has used 0.3 s of CPU since this was called."""
    process = psutil.Process(pid)
    before = sum(process.cpu_times()[:2])
    return lambda: sum(process.cpu_times()[:2]) - before > 0.3


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def hang(child: EngineChild) -> None:
    """Leaves the child in a loop in C that holds the interpreter's lock."""
    burning = burns_cpu(child.pid)
    child.submit(9, 9, [chat_row("[[hang]]")])
    await_true(burning, "the child hangs")


# --- life


def test_ready_results_unload(spawn: Spawn) -> None:
    child = spawn(capacity=77, resident_bytes=88)
    unready = (child.state, child.capacity, child.resident_bytes, child.ready)
    assert unready == ("loading", 0, 0, None)
    heard = listen(child, lambda _: child.state == "ready")
    assert isinstance(heard[0], Loading)
    assert isinstance(heard[-1], Ready)
    assert (child.capacity, child.resident_bytes) == (77, 88)

    rows = [chat_row(f"row {i}", i) for i in range(20)]
    child.submit(5, 2, rows)
    assert child.rows_in_flight == {(5, 2): set(range(20))}
    results = await_results(child, 20)
    assert {(r.shard, r.epoch, r.index, r.body) for r in results} == {
        (5, 2, row.index, fake_response(CHAT, row.body, "m")) for row in rows
    }
    assert child.rows_in_flight == {}

    child.unload()
    _, death = await_death(child)
    assert (death.exit_code, death.signal, death.fatal) == (0, None, None)
    assert child.state == "dead"


def test_rows_submitted_while_it_loads_are_kept(spawn: Spawn) -> None:
    child = spawn(load_seconds=0.2)
    child.submit(1, 1, [chat_row("early")])
    assert [result.status for result in await_results(child, 1)] == [200]


def test_cancel_drops_delayed_rows_and_spares_the_others(spawn: Spawn) -> None:
    child = spawn()
    child.submit(1, 1, [chat_row("[[sleep-forever]]", i) for i in range(3)])
    child.submit(2, 1, [chat_row("[[delay 0.3]]")])
    child.cancel(1, 1)
    heard = listen(child, lambda heard: Cancelled(1, 1) in heard and bool(results_of(heard)))
    assert [result.shard for result in results_of(heard)] == [2]
    assert child.rows_in_flight == {}


def test_the_same_row_twice_is_refused(spawn: Spawn) -> None:
    child = spawn()
    child.submit(1, 1, [chat_row("[[sleep-forever]]", 4)])
    for rows in ([chat_row("x", 4)], [chat_row("x", 5), chat_row("x", 5)]):
        with pytest.raises(ValueError, match="twice"):
            child.submit(1, 1, rows)
    assert child.rows_in_flight == {(1, 1): {4}}


def test_it_speaks_up_when_heard(spawn: Spawn) -> None:
    child = spawn()
    spawned_at = child.last_heard
    await_ready(child)
    ready_at = child.last_heard
    assert spawned_at < ready_at
    assert child.receive() == []
    assert child.last_heard == ready_at


def test_ten_thousand_large_rows_both_ways(spawn: Spawn) -> None:
    child = spawn(rows_per_step=100)
    text = "x" * 20_000
    rows = [
        Row(i, "/v1/completions", json.dumps({"prompt": f"{i} {text}", "echo": True}).encode())
        for i in range(10_000)
    ]
    began = time.monotonic()
    child.submit(1, 1, rows)
    assert time.monotonic() - began < PATIENCE_SECONDS
    assert child.pipe.unsent_bytes > 0  # far more than the pipe holds, and submit came back
    seen = [False] * len(rows)
    while not all(seen):
        for result in await_results(child, 1):
            assert result.status == 200
            assert len(result.body) > 20_000
            assert not seen[result.index]
            seen[result.index] = True
    assert child.rows_in_flight == {}
    assert child.pipe.unsent_bytes == 0


def test_a_supervisor_that_writes_before_it_reads_meets_no_deadlock(spawn: Spawn) -> None:
    child = spawn()
    body = json.dumps({"prompt": "y" * 200_000, "echo": True}).encode()
    for shard in range(200):  # 40 MB each way; nothing is received meanwhile
        child.submit(shard, 1, [Row(0, "/v1/completions", body)])
        child.pipe.flush()
    assert len(await_results(child, 200)) == 200


def test_a_single_row_larger_than_a_usual_frame(spawn: Spawn) -> None:
    child = spawn()
    body = json.dumps({"prompt": "z" * (frames.FRAME_TARGET_BYTES + 1), "echo": True}).encode()
    child.submit(1, 1, [Row(0, "/v1/completions", body), chat_row("small", 1)])
    sizes = {result.index: len(result.body) for result in await_results(child, 2)}
    assert sizes[0] > frames.FRAME_TARGET_BYTES > sizes[1]


def test_signals_are_the_supervisors_business(spawn: Spawn) -> None:
    child = spawn()
    await_ready(child)
    os.kill(child.pid, signal.SIGTERM)
    os.kill(child.pid, signal.SIGINT)
    child.submit(1, 1, [chat_row("still here")])
    assert len(await_results(child, 1)) == 1


@linux_only
def test_its_environment_is_what_was_passed(spawn: Spawn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESSRUN_SECRET_KEY", "hidden")
    child = spawn()
    await_ready(child)
    pairs = Path(f"/proc/{child.pid}/environ").read_text().rstrip("\0").split("\0")
    assert dict(pair.split("=", 1) for pair in pairs) == ENVIRONMENT


@linux_only
def test_it_holds_no_descriptor_of_its_supervisor(spawn: Spawn, tmp_path: Path) -> None:
    with (tmp_path / "open").open("w") as held:
        os.set_inheritable(held.fileno(), True)
        child = spawn()
        await_ready(child)
        names = [os.readlink(fd) for fd in Path(f"/proc/{child.pid}/fd").iterdir() if fd.name > "2"]
    assert all(name.startswith("socket:") for name in names), names


@linux_only
def test_it_dumps_no_core_and_goes_first_when_memory_ends(spawn: Spawn) -> None:
    child = spawn()
    await_ready(child)
    assert Path(f"/proc/{child.pid}/oom_score_adj").read_text().strip() == "500"
    limits = Path(f"/proc/{child.pid}/limits").read_text()
    [core] = [line.split() for line in limits.splitlines() if line.startswith("Max core")]
    assert core[4] == "0"


# --- death


@pytest.mark.parametrize(
    ("directive", "exit_code", "died_by"),
    [("[[crash]]", None, signal.SIGSEGV), ("[[exit 3]]", 3, None)],
)
def test_a_death_is_reported_with_its_cause(
    spawn: Spawn, directive: str, exit_code: int | None, died_by: int | None
) -> None:
    child = spawn(rows_per_step=1)
    child.submit(1, 1, [chat_row("before"), chat_row(directive, 1), chat_row("after", 2)])
    heard, death = await_death(child)
    assert [result.index for result in results_of(heard)] == [0]
    assert (death.exit_code, death.signal, death.fatal) == (exit_code, died_by, None)
    assert child.rows_in_flight == {(1, 1): {1, 2}}  # the suspects
    for call in (child.receive, child.unload, lambda: child.submit(2, 1, [chat_row("x")])):
        with pytest.raises(ChildDied):
            call()


def test_crash_once_crashes_once(spawn: Spawn, tmp_path: Path) -> None:
    first, second = (spawn(scratch=str(tmp_path)) for _ in range(2))
    first.submit(1, 1, [chat_row("[[crash-once a]]")])
    assert await_death(first)[1].signal == signal.SIGSEGV
    second.submit(1, 2, [chat_row("[[crash-once a]]")])
    assert await_results(second, 1)[0].status == 200


def test_a_kill_from_outside_is_reported_as_its_signal(spawn: Spawn) -> None:
    child = spawn()
    await_ready(child)
    os.kill(child.pid, signal.SIGKILL)
    _, death = await_death(child)
    assert death.signal == signal.SIGKILL
    assert str(death) == "the engine child died by SIGKILL"


@pytest.mark.parametrize(
    ("directive", "code"),
    [("[[oom]]", "out_of_memory"), ("[[fatal device_lost]]", "device_lost")],
)
def test_a_failed_step_says_why_and_exits(spawn: Spawn, directive: str, code: str) -> None:
    child = spawn()
    child.submit(1, 1, [chat_row(directive)])
    heard, death = await_death(child)
    assert isinstance(heard[-1], Fatal)
    assert (heard[-1].code, death.exit_code, death.fatal) == (code, 1, heard[-1])


@pytest.mark.parametrize(
    ("engine", "settings", "code"),
    [
        ("fake", {"load_error": "no_weights"}, "no_weights"),
        ("fake", {"capacity": "many"}, "invalid_settings"),
        ("quantum", {}, "unknown_engine"),
    ],
)
def test_a_failed_load_says_why_and_exits(
    spawn: Spawn, engine: str, settings: dict[str, Any], code: str
) -> None:
    _, death = await_death(spawn(engine, **settings))
    assert death.fatal is not None
    assert (death.fatal.code, death.exit_code) == (code, 1)


def test_garbage_ends_it(spawn: Spawn) -> None:
    child = spawn()
    await_ready(child)
    child.pipe._socket.send(b"\x7f\xff\xff\xffGET / HTTP/1.1\r\n")
    _, death = await_death(child)
    assert death.fatal is not None
    assert (death.fatal.code, death.exit_code) == ("protocol_error", 1)


def test_kill_ends_a_child_that_hangs_with_the_lock_held(spawn: Spawn) -> None:
    child = spawn()
    await_ready(child)
    hang(child)
    child.submit(1, 1, [Row(0, CHAT, bytes(4 << 20))])  # nobody reads it; this must not wait
    assert child.receive() == []
    began = time.monotonic()
    child.kill()
    assert time.monotonic() - began < 5  # in practice some ms
    assert not psutil.pid_exists(child.pid)
    assert child.state == "dead"
    with pytest.raises(ChildDied) as caught:
        child.receive()
    assert caught.value.signal == signal.SIGKILL
    child.kill()


def test_a_stopped_child_holds_nobody_up(spawn: Spawn) -> None:
    child = spawn()
    await_ready(child)
    os.kill(child.pid, signal.SIGSTOP)
    child.submit(1, 1, [Row(0, CHAT, bytes(8 << 20))])
    child.cancel(1, 1)
    assert child.receive() == []
    child.kill()
    assert not psutil.pid_exists(child.pid)


SUPERVISOR = """
import sys, time
from multiprocessing.connection import wait
from worker.engines.child import EngineChild
from worker.engines.protocol import Load, Row

child = EngineChild.spawn(Load("m", "fake", ""), environment={})
while child.state != "ready":
    wait([child.pipe], 1)
    child.receive()
body = b'{"prompt": "%s"}' % sys.argv[1].encode()
child.submit(1, 1, [Row(0, "/v1/completions", body)])
print(child.pid, flush=True)
time.sleep(600)
"""


@linux_only
@pytest.mark.parametrize("doing", ["nothing", "[[sleep-forever]]", "[[hang]]"])
def test_no_child_outlives_a_killed_supervisor(doing: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, doing], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as supervisor:
        assert supervisor.stdout is not None
        lines = (line for line in supervisor.stdout if line.strip().isdecimal())
        pid = int(next(lines))
        try:
            if doing == "[[hang]]":
                await_true(burns_cpu(pid), "the child hangs")
            supervisor.kill()
            supervisor.wait()
            await_true(lambda: gone(pid), "the child dies")
        finally:
            supervisor.kill()
            if not gone(pid):
                os.kill(pid, signal.SIGKILL)


def open_descriptors() -> int:
    gc.collect()  # what other tests left to be closed shall not be counted
    return psutil.Process().num_fds()


def test_a_python_that_is_not_there_leaves_nothing_open() -> None:
    before = open_descriptors()
    with pytest.raises(OSError, match="no-such-python") as caught:
        EngineChild.spawn(Load("m", "fake", ""), environment={}, python="/no-such-python")
    assert caught.tb is not None  # which keeps every local of spawn alive
    assert open_descriptors() <= before


def test_a_dead_child_leaves_no_descriptor(spawn: Spawn) -> None:
    before = open_descriptors()
    child = spawn()
    await_ready(child)
    assert open_descriptors() > before
    child.kill()
    assert open_descriptors() <= before
