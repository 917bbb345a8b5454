"""Ringing, without a broker; over a real one in integration/test_doorbell.py."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from queue import Empty
from typing import Any

import pytest
from kombu import Connection

from shared import doorbell, doorbell_folder, doorbell_publisher
from shared.doorbell import RingCounts, Ringer
from shared.doorbell_celery import doorbell_queue, make_celery

ROOT = Path(__file__).resolve().parents[3]
LONG_SECONDS = 20.0
SHORT_SECONDS = 0.2
QUEUE = "pressrun.doorbell.text"


class FakePublisher:
    """Publishes when the test lets it, and fails when the test says so."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.failing = False
        self.started: list[tuple[str, float]] = []
        self.rung: list[str] = []
        self.closed = threading.Event()

    def publish(self, pool: str) -> None:
        self.started.append((pool, time.monotonic()))
        assert self.open.wait(LONG_SECONDS)
        if self.failing:
            raise ConnectionError
        self.rung.append(pool)

    def close(self) -> None:
        self.closed.set()


def until(condition: Callable[[], bool], timeout: float = LONG_SECONDS) -> bool:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True


@pytest.fixture
def publisher(monkeypatch: pytest.MonkeyPatch) -> FakePublisher:
    fake = FakePublisher()
    monkeypatch.setattr(doorbell_publisher, "Publisher", lambda _url: fake)
    return fake


@pytest.fixture
def ringer(publisher: FakePublisher) -> Iterator[Ringer]:
    ringer = Ringer("amqp://broker")
    yield ringer
    publisher.failing = False
    publisher.open.set()
    ringer.close(LONG_SECONDS)


# --- Ringer -------------------------------------------------------------------------------------


def test_without_a_broker_nothing_happens() -> None:
    before = threading.active_count()
    ringer = Ringer("")
    ringer.ring("text")
    ringer.close()
    assert ringer.counts == RingCounts(0, 0, 0)
    assert threading.active_count() == before


def test_no_thread_before_the_first_ring(ringer: Ringer) -> None:
    names = [thread.name for thread in threading.enumerate()]
    assert "ringer" not in names


def test_one_bell_waits_per_pool_while_one_is_being_rung(
    ringer: Ringer, publisher: FakePublisher
) -> None:
    publisher.open.clear()
    ringer.ring("text")
    assert until(lambda: len(publisher.started) == 1)
    # It may have been heard before this work was committed: so one more, but no more than that.
    for _ in range(50):
        ringer.ring("text")
    ringer.ring("image")
    publisher.open.set()
    assert until(lambda: ringer.counts.rung == 3)
    assert sorted(publisher.rung) == ["image", "text", "text"]
    assert ringer.counts == RingCounts(rung=3, dropped=49, failed=0)


def test_bells_of_one_pool_are_ten_milliseconds_apart(
    ringer: Ringer, publisher: FakePublisher
) -> None:
    for number in range(1, 6):
        ringer.ring("text")
        assert until(lambda number=number: ringer.counts.rung == number)  # type: ignore[misc]
    starts = [at for _, at in publisher.started]
    assert min(b - a for a, b in pairwise(starts)) >= 0.01


def test_pools_do_not_wait_for_each_other_s_spacing(
    ringer: Ringer, publisher: FakePublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doorbell, "SPACING_SECONDS", 3600.0)
    ringer.ring("text")
    assert until(lambda: ringer.counts.rung == 1)
    for pool in ("text", "image", "speech"):
        ringer.ring(pool)
    assert until(lambda: ringer.counts.rung == 3)
    assert set(publisher.rung) == {"text", "image", "speech"}


def test_what_waits_is_bounded(ringer: Ringer, publisher: FakePublisher) -> None:
    publisher.open.clear()
    ringer.ring("first")
    assert until(lambda: len(publisher.started) == 1)
    for number in range(doorbell.MOST_POOLS + 10):
        ringer.ring(f"pool{number}")
    assert ringer.counts.dropped == 10


@pytest.mark.parametrize("pool", ["", "Text", "a b", "a.b", "é", "x" * 33, "text\n", "-"])
def test_what_is_no_name_of_a_pool_is_dropped(ringer: Ringer, pool: str) -> None:
    ringer.ring(pool)
    assert ringer.counts == RingCounts(0, 1, 0)
    with pytest.raises(ValueError, match="pool"):
        doorbell_queue(pool)


def test_the_last_ring_is_kept_until_the_broker_is_back(
    ringer: Ringer, publisher: FakePublisher
) -> None:
    publisher.failing = True
    ringer.ring("text")
    ringer.ring("image")
    assert until(lambda: ringer.counts.failed >= 3)
    publisher.failing = False
    assert until(lambda: ringer.counts.rung >= 2)
    assert set(publisher.rung) == {"text", "image"}


def test_a_failing_broker_is_not_hammered(
    ringer: Ringer, publisher: FakePublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def delay(tries: int, *, base: float, cap: float) -> float:
        assert (base, cap) == (0.1, 5.0)
        asked.append(tries)
        return 0.05

    monkeypatch.setattr(doorbell, "delay_seconds", delay)
    publisher.failing = True
    ringer.ring("text")
    assert until(lambda: ringer.counts.failed >= 4)
    starts = [at for _, at in publisher.started]
    assert asked[:3] == [1, 2, 3]
    assert min(b - a for a, b in pairwise(starts)) >= 0.05


def test_close_rings_what_waits_and_then_nothing_more(
    ringer: Ringer, publisher: FakePublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doorbell, "SPACING_SECONDS", 3600.0)
    ringer.ring("text")
    assert until(lambda: ringer.counts.rung == 1)
    ringer.ring("text")
    assert ringer.counts.rung == 1
    ringer.close(LONG_SECONDS)
    assert publisher.rung == ["text", "text"]
    assert publisher.closed.is_set()
    ringer.ring("text")
    assert ringer.counts == RingCounts(rung=2, dropped=1, failed=0)


def test_close_gives_up_on_a_publisher_that_hangs(ringer: Ringer, publisher: FakePublisher) -> None:
    publisher.open.clear()
    ringer.ring("text")
    assert until(lambda: len(publisher.started) == 1)
    ringer.close(SHORT_SECONDS)
    assert publisher.rung == []


def test_a_ring_does_not_wait_for_a_publisher_that_hangs(
    ringer: Ringer, publisher: FakePublisher
) -> None:
    publisher.open.clear()
    done = threading.Event()

    def ring() -> None:
        for _ in range(1_000):
            ringer.ring("text")
        done.set()

    threading.Thread(target=ring, daemon=True).start()
    assert done.wait(LONG_SECONDS)
    assert publisher.rung == []


def test_the_api_survives_a_machine_without_threads(
    ringer: Ringer, publisher: FakePublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as broken:
        broken.setattr(threading.Thread, "start", start)
        ringer.ring("text")
    ringer.ring("image")
    assert until(lambda: ringer.counts.rung == 2)
    assert set(publisher.rung) == {"text", "image"}


FORKED = """\
import os, sys, threading
from shared.doorbell import Ringer
ringer = Ringer(sys.argv[1])
ringer.ring("text")
while ringer.counts.rung < 1:
    pass
# As gunicorn's workers: at the worst moment, while another thread holds the lock.
held, release = threading.Event(), threading.Event()
def hold():
    with ringer._changed:
        held.set()
        release.wait()
threading.Thread(target=hold, daemon=True).start()
held.wait()
child = os.fork()
if child == 0:
    ringer.ring("image")
    ringer.close(30)
    os._exit(0 if ringer.counts.rung == 1 else 1)
release.set()
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
ringer.ring("speech")
ringer.close(30)
sys.exit(code if ringer.counts.rung == 2 else 2)
"""


def test_a_forked_process_rings_too(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-c", FORKED, f"filesystem://{tmp_path / 'a broker'}"],
        cwd=ROOT, check=True, timeout=60,
    )  # fmt: skip
    rung = {name.split(".")[-2] for name in os.listdir(tmp_path / "a broker/queue")}
    assert rung == {"text", "image", "speech"}


# --- the application ----------------------------------------------------------------------------


def test_the_application_is_set_up_for_doorbells(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL"):
        monkeypatch.setenv(name, "amqp://elsewhere//")
    app = make_celery("amqp://guest@here:5673//", ["text", "image"])
    assert app.conf.accept_content == ["json"]
    assert app.conf.task_serializer == "json"
    assert app.conf.result_backend is None
    assert app.conf.worker_enable_remote_control is False
    assert app.conf.broker_connection_max_retries is None
    assert app.conf.task_acks_late is False
    assert set(app.amqp.queues) == {QUEUE, "pressrun.doorbell.image"}
    for connection in (app.connection_for_read(), app.connection_for_write()):
        assert connection.hostname == "here"
        assert connection.transport_options["read_timeout"] == 5


def test_there_is_no_application_without_a_broker() -> None:
    with pytest.raises(ValueError, match="broker"):
        make_celery("")


# --- a folder -----------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "a broker"


@pytest.fixture
def channel(folder: Path) -> Iterator[Any]:
    options = doorbell_folder.folder_options(folder)
    with Connection(
        "filesystem://localhost",
        transport="shared.doorbell_folder:Transport",
        transport_options=options,
    ) as connection:
        yield connection.default_channel


def message(number: int) -> dict[str, Any]:
    return {"body": str(number), "properties": {"delivery_info": {}}, "headers": {}}


def test_only_the_owner_may_ring(channel: Any, folder: Path) -> None:
    old = os.umask(0)
    try:
        channel._put(QUEUE, message(1))
    finally:
        os.umask(old)
    for path in (folder, *folder.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)
    assert {path.name for path in folder.iterdir()} == {"queue", "taken", "control"}


def test_messages_come_in_order_and_by_queue(channel: Any, folder: Path) -> None:
    for number in range(3):
        channel._put(QUEUE, message(number))
        time.sleep(0.002)  # the order of one millisecond is anybody's
    channel._put("pressrun.doorbell.image", message(9))
    assert [channel._get(QUEUE)["body"] for _ in range(3)] == ["0", "1", "2"]
    with pytest.raises(Empty):
        channel._get(QUEUE)
    assert channel._get("pressrun.doorbell.image")["body"] == "9"
    assert not [path for path in folder.rglob("*") if path.is_file()]


def test_old_messages_are_forgotten(
    channel: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel._put(QUEUE, message(1))
    later = time.time() + doorbell_folder.TTL_SECONDS + 1
    monkeypatch.setattr(time, "time", lambda: later)
    with pytest.raises(Empty):
        channel._get(QUEUE)
    assert os.listdir(folder / "queue") == []


def test_a_queue_nobody_hears_is_bounded_and_loses_its_oldest(
    channel: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doorbell_folder, "MOST_WAITING", 3)
    channel._put("pressrun.doorbell.image", message(9))
    for number in range(6):
        channel._put(QUEUE, message(number))
        time.sleep(0.002)
    assert len(os.listdir(folder / "queue")) == 3 + 1
    assert channel._get(QUEUE)["body"] == "3"


@pytest.mark.parametrize(
    "rubbish", [b"", b"{", b"\xff", b"null", b"[]", b"{}", b'{"properties": 1}', b"[" * 100_000]
)
def test_rubbish_is_passed_over(channel: Any, folder: Path, rubbish: bytes) -> None:
    name = f"{time.time_ns() // 10**6 - 10}_x.{QUEUE}.msg"
    (folder / "queue" / name).write_bytes(rubbish)
    channel._put(QUEUE, message(1))
    assert channel._get(QUEUE)["body"] == "1"
    assert not [path for path in folder.rglob("*") if path.is_file()]


def test_a_message_is_never_seen_half_written(
    channel: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []

    def dump(payload: Any, file: Any) -> None:
        with pytest.raises(Empty):
            channel._get(QUEUE)
        seen.append(True)
        file.write(json.dumps(payload))

    monkeypatch.setattr(json, "dump", dump)
    channel._put(QUEUE, message(1))
    assert seen
    assert channel._get(QUEUE)["body"] == "1"


def test_leftovers_of_killed_processes_go(folder: Path) -> None:
    doorbell_folder.folder_options(folder)
    old, new = folder / "taken/old", folder / "taken/new"
    for path in (old, new):
        path.write_text("")
    os.utime(old, (1_000_000_000, 1_000_000_000))
    doorbell_folder.folder_options(folder)
    assert (old.exists(), new.exists()) == (False, True)
