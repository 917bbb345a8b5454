"""Doorbells over a real RabbitMQ, and over a folder between two processes."""

from __future__ import annotations

import json
import os
import pickle
import queue
import statistics
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from kombu import Connection
from structlog.testing import capture_logs

from shared.doorbell import Ringer
from shared.doorbell_celery import RING_TASK, doorbell_queue, make_celery
from tests.services.rabbitmq import RabbitMQ
from tests.services.tcp_proxy import TcpProxy
from worker.doorbell_consumer import DoorbellConsumer
from worker.doorbell_listener import Listener

ROOT = Path(__file__).resolve().parents[2]
READY_SECONDS = 30.0
HEARD_SECONDS = 20.0
BACK_SECONDS = 30.0
AT_ONCE_SECONDS = 0.05
QUEUE = "pressrun.doorbell.text"


class Ears:
    """What a listener heard, in order."""

    def __init__(self) -> None:
        self._heard: queue.Queue[str] = queue.Queue()

    def __call__(self, pool: str) -> None:
        self._heard.put(pool)

    def next(self, timeout: float = HEARD_SECONDS) -> str | None:
        try:
            return self._heard.get(timeout=timeout)
        except queue.Empty:
            return None

    def forget(self) -> None:
        while self.next(0) is not None:
            pass


class Plant:
    """Makes listeners and ringers, and ends them after the test."""

    def __init__(self, ending: ExitStack) -> None:
        self._ending = ending

    def listener(
        self, url: str, ears: Callable[[str], None], *pools: str, name: str = "node"
    ) -> Listener:
        listener = Listener(url, pools or ("text",), ears, name)
        self._ending.callback(listener.stop)
        listener.start()
        return listener

    def ringer(self, url: str) -> Ringer:
        ringer = Ringer(url)
        self._ending.callback(ringer.close)
        return ringer


@pytest.fixture
def plant() -> Iterator[Plant]:
    with ExitStack() as ending:
        yield Plant(ending)


@pytest.fixture
def logs() -> Iterator[list[Any]]:
    with capture_logs() as entries:
        yield entries


def until(condition: Callable[[], bool], timeout: float) -> bool:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def ringing_took(ringer: Ringer, rings: int, pause: float = 0.001) -> float:
    """The longest that this thread spent in ``ring``: its own time, whoever else has the CPU."""
    longest = 0.0
    for _ in range(rings):
        start = time.thread_time()
        ringer.ring("text")
        longest = max(longest, time.thread_time() - start)
        time.sleep(pause)
    return longest


def ringer_threads() -> int:
    return sum(thread.name == "ringer" for thread in threading.enumerate())


# --- RabbitMQ -----------------------------------------------------------------------------------


def test_a_ring_is_heard_by_a_listener_of_that_pool(broker_url: str, plant: Plant) -> None:
    text, image = Ears(), Ears()
    assert plant.listener(broker_url, text, "text", "speech").wait_ready(READY_SECONDS)
    assert plant.listener(broker_url, image, "image").wait_ready(READY_SECONDS)
    ringer = plant.ringer(broker_url)

    ringer.ring("speech")
    assert text.next() == "speech"
    ringer.ring("image")
    assert image.next() == "image"
    ringer.ring("text")
    assert text.next() == "text"
    assert image.next(0) is None
    # A bell may be heard a moment before the ringer has noted that it rang.
    deadline = time.monotonic() + HEARD_SECONDS
    while ringer.counts.rung < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert ringer.counts.rung == 3


def test_a_doorbell_is_heard_in_milliseconds(
    broker_url: str, plant: Plant, record_property: Callable[[str, object], None]
) -> None:
    ears = Ears()
    assert plant.listener(broker_url, ears).wait_ready(READY_SECONDS)
    ringer = plant.ringer(broker_url)
    took = []
    for _ in range(50):
        start = time.perf_counter()
        ringer.ring("text")
        assert ears.next() == "text"
        took.append(time.perf_counter() - start)
        time.sleep(0.012)
    median = statistics.median(took)
    record_property("median_ms", round(median * 1000, 2))
    print(f"p50 {median * 1000:.1f} ms, p95 {sorted(took)[47] * 1000:.1f} ms")
    assert median < 0.5  # far from any poll, however busy the machine is


def test_the_broker_is_answered_before_the_loop_sleeps_again() -> None:
    """Left to the loop, answers wait for up to ten seconds, and the next bell behind them."""
    answered: list[int] = []
    consumer = DoorbellConsumer.__new__(DoorbellConsumer)
    consumer.call_soon_ack(answered.append, 1)
    assert answered == [1]


def test_the_queue_is_declared_as_it_should_be(
    rabbitmq: RabbitMQ, broker_vhost: str, broker_url: str, plant: Plant
) -> None:
    ringer = plant.ringer(broker_url)
    ringer.ring("text")
    assert until(lambda: ringer.counts.rung == 1, HEARD_SECONDS)

    listing = rabbitmq.ctl(
        "list_queues", "--vhost", broker_vhost, "--formatter", "json",
        "name", "type", "durable", "exclusive", "auto_delete", "arguments", "messages",
    )  # fmt: skip
    (declared,) = json.loads(listing)
    arguments = {name: value for name, _, value in declared.pop("arguments")}
    assert declared == {
        "name": QUEUE,
        "type": "classic",
        "durable": True,
        "exclusive": False,
        "auto_delete": False,
        "messages": 1,
    }
    assert arguments == {
        "x-queue-type": "classic",
        "x-message-ttl": 60_000,
        "x-max-length": 1_000,
        "x-overflow": "drop-head",
    }


def test_a_purge_loses_bells_and_nothing_else(
    rabbitmq: RabbitMQ, broker_vhost: str, broker_url: str, plant: Plant
) -> None:
    ringer, ears = plant.ringer(broker_url), Ears()
    ringer.ring("text")
    assert until(lambda: ringer.counts.rung == 1, HEARD_SECONDS)
    rabbitmq.ctl("purge_queue", "--vhost", broker_vhost, QUEUE)

    assert plant.listener(broker_url, ears).wait_ready(READY_SECONDS)
    ringer.ring("text")
    assert ears.next() == "text"
    assert ears.next(0.2) is None


def test_rings_work_again_after_the_broker_was_killed(
    rabbitmq: RabbitMQ, broker_url: str, plant: Plant
) -> None:
    ears = Ears()
    listener = plant.listener(broker_url, ears)
    assert listener.wait_ready(READY_SECONDS)
    ringer = plant.ringer(broker_url)
    ringer.ring("text")
    assert ears.next() == "text"

    rabbitmq.kill()
    try:
        assert ringing_took(ringer, 300, pause=0.005) < AT_ONCE_SECONDS
        assert until(lambda: ringer.counts.failed >= 1, HEARD_SECONDS)
        assert listener.alive
    finally:
        rabbitmq.start()

    # The last ring was kept, so nobody has to ring again.
    back = time.monotonic()
    assert ears.next(BACK_SECONDS) == "text"
    print(f"heard {time.monotonic() - back:.1f} s after the broker was up")
    assert ringer_threads() == 1
    assert ringer.counts.dropped >= 290
    ears.forget()
    ringer.ring("text")
    assert ears.next() == "text"


def test_a_listener_that_starts_before_the_broker_keeps_trying(
    rabbitmq: RabbitMQ, broker_url: str, plant: Plant
) -> None:
    rabbitmq.stop_app()
    try:
        ears = Ears()
        listener = plant.listener(broker_url, ears)
        ringer = plant.ringer(broker_url)
        ringer.ring("text")
        assert until(lambda: ringer.counts.failed >= 2, HEARD_SECONDS)
        assert listener.alive
        assert not listener.wait_ready(0)
    finally:
        rabbitmq.start_app()
    assert ears.next(BACK_SECONDS) == "text"


def test_a_memory_alarm_blocks_nobody(rabbitmq: RabbitMQ, broker_url: str, plant: Plant) -> None:
    ears = Ears()
    assert plant.listener(broker_url, ears).wait_ready(READY_SECONDS)
    ringer = plant.ringer(broker_url)
    ringer.ring("text")
    assert ears.next() == "text"

    rabbitmq.raise_memory_alarm()
    try:
        assert ringing_took(ringer, 300, pause=0.005) < AT_ONCE_SECONDS
        assert until(lambda: ringer.counts.failed >= 3, HEARD_SECONDS)
        assert ringer.counts.rung <= 2
        assert ringer_threads() == 1
        # The blocked connection is kept: a broker that reads nothing would not see it closed.
        publishers = rabbitmq.ctl("list_connections", "state").split().count("blocked")
        assert publishers <= 1
    finally:
        rabbitmq.clear_memory_alarm()
    assert ears.next(BACK_SECONDS) == "text"
    rung = ringer.counts.rung
    ringer.ring("text")
    assert until(lambda: ringer.counts.rung > rung, BACK_SECONDS)


def test_close_does_not_wait_for_a_blocked_broker(
    rabbitmq: RabbitMQ, broker_url: str, plant: Plant
) -> None:
    ringer = plant.ringer(broker_url)
    ringer.ring("text")
    assert until(lambda: ringer.counts.rung == 1, HEARD_SECONDS)
    rabbitmq.raise_memory_alarm()
    try:
        ringer.ring("text")
        start = time.monotonic()
        ringer.close(0.5)
        assert time.monotonic() - start < 5.0
    finally:
        rabbitmq.clear_memory_alarm()
    assert until(lambda: ringer_threads() == 0, 15.0)


def test_a_silent_broker_holds_nobody_up(
    rabbitmq: RabbitMQ,
    broker_vhost: str,
    tcp_proxy: Callable[[int], TcpProxy],
    plant: Plant,
) -> None:
    proxy = tcp_proxy(rabbitmq.port)
    url = rabbitmq.url_of(broker_vhost, port=proxy.port)
    ears = Ears()
    listener = plant.listener(url, ears)
    assert listener.wait_ready(READY_SECONDS)
    ringer = plant.ringer(url)
    ringer.ring("text")
    assert ears.next() == "text"

    proxy.blackhole()
    assert ringing_took(ringer, 100) < AT_ONCE_SECONDS
    assert until(lambda: ringer.counts.failed >= 1, HEARD_SECONDS)
    start = time.monotonic()
    listener.stop()
    assert time.monotonic() - start < 5.0  # 2 s, on a machine with nothing else to do
    proxy.up()


def test_two_listeners_of_one_name_both_work(broker_url: str, plant: Plant) -> None:
    first, second = Ears(), Ears()
    listeners = [plant.listener(broker_url, ears, name="same") for ears in (first, second)]
    assert all(listener.wait_ready(READY_SECONDS) for listener in listeners)
    ringer = plant.ringer(broker_url)
    for _ in range(4):  # RabbitMQ gives them out in turn
        before = ringer.counts.rung
        ringer.ring("text")
        assert until(lambda before=before: ringer.counts.rung > before, HEARD_SECONDS)  # type: ignore[misc]
    assert first.next() == second.next() == "text"
    listeners[0].stop()
    assert not listeners[0].alive
    assert listeners[1].alive
    second.forget()
    ringer.ring("text")
    assert second.next() == "text"


def test_a_listener_stops_at_once_and_can_be_replaced(broker_url: str, plant: Plant) -> None:
    ringer = plant.ringer(broker_url)
    for _ in range(2):
        ears = Ears()
        listener = plant.listener(broker_url, ears)
        assert listener.wait_ready(READY_SECONDS)
        ringer.ring("text")
        assert ears.next() == "text"
        listener.stop()
        assert not listener.alive
        ears.forget()
        ringer.ring("text")  # for the next listener
        assert ears.next(0.2) is None


def test_an_error_in_on_ring_does_not_end_the_listener(broker_url: str, plant: Plant) -> None:
    heard = Ears()

    def ears(pool: str) -> None:
        heard(pool)
        raise LookupError("the supervisor has a bug")

    listener = plant.listener(broker_url, ears)
    assert listener.wait_ready(READY_SECONDS)
    ringer = plant.ringer(broker_url)
    for _ in range(2):
        ringer.ring("text")
        assert heard.next() == "text"
    assert listener.alive


def test_a_queue_of_another_shape_is_retried_without_end(broker_url: str, plant: Plant) -> None:
    with Connection(broker_url) as connection:
        channel: Any = connection.channel()
        channel.queue_declare(queue=QUEUE, durable=True, auto_delete=False)
        ears = Ears()
        listener = plant.listener(broker_url, ears)
        ringer = plant.ringer(broker_url)
        ringer.ring("text")
        assert until(lambda: ringer.counts.failed >= 2, HEARD_SECONDS)
        assert listener.alive
        channel.queue_delete(queue=QUEUE)
    assert ears.next(BACK_SECONDS) == "text"


# --- hostile messages ---------------------------------------------------------------------------


class Canary:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self._path),)


CALL: list[Any] = [
    ["text"],
    {},
    {"callbacks": None, "errbacks": None, "chain": None, "chord": None},
]
HEADERS = {"task": RING_TASK, "id": "1", "lang": "py", "root_id": "1", "parent_id": None}
JSON = "application/json"


def _chained() -> str:
    signature = {"task": RING_TASK, "args": ["text"], "kwargs": {}, "options": {}}
    return json.dumps([["text"], {}, {**CALL[2], "chain": [signature]}])


def _hostile(canary: Path) -> dict[str, tuple[Any, str | None, dict[str, Any]]]:
    """Body, content type and headers of messages that must do nothing."""
    poison = pickle.dumps(Canary(canary))
    good = json.dumps(CALL)
    return {
        "pickle": (poison, "application/x-python-serialize", HEADERS),
        "pickle of protocol 1": (poison, "application/x-python-serialize", {}),
        "pickle called JSON": (poison, JSON, HEADERS),
        "yaml": (f"!!python/object/apply:os.mkdir [{canary}]", "application/x-yaml", HEADERS),
        "unknown task": (good, JSON, {**HEADERS, "task": "os.mkdir"}),
        "celery's own task": (good, JSON, {**HEADERS, "task": "celery.backend_cleanup"}),
        "protocol 1": (json.dumps({"task": RING_TASK, "id": "1", "args": ["text"]}), JSON, {}),
        "garbage": (b"\xff\x00garbage", None, {}),
        "empty": (b"", JSON, HEADERS),
        "deep": ("[" * 2_000, JSON, HEADERS),
        "deeper": ("[" * 100_000, JSON, HEADERS),
        "other arguments": (json.dumps([[{"pool": "text"}], {}, {}]), JSON, HEADERS),
        "no arguments": (json.dumps([[], {}, {}]), JSON, HEADERS),
        "unknown pool": (json.dumps([["image"], {}, {}]), JSON, HEADERS),
        "chain": (_chained(), JSON, HEADERS),
        "far future": (good, JSON, {**HEADERS, "eta": "2999-01-01T00:00:00+00:00"}),
        "bad id": (good, JSON, {**HEADERS, "id": {"a": 1}}),
        "bomb": (zlib.compress(bytes(2**28)), JSON, {**HEADERS, "compression": "zlib"}),
        "long": (json.dumps([["x" * 2**24], {}, {}]), JSON, HEADERS),
    }


def test_hostile_messages_do_nothing(
    rabbitmq: RabbitMQ, broker_vhost: str, plant: Plant, tmp_path: Path, logs: list[Any]
) -> None:
    broker_url = rabbitmq.url_of(broker_vhost)
    ears = Ears()
    listener = plant.listener(broker_url, ears)
    assert listener.wait_ready(READY_SECONDS)
    messages = _hostile(tmp_path / "canary")
    peak = _peak_memory()
    with Connection(broker_url) as connection:
        producer = connection.Producer()
        for body, content_type, headers in messages.values():
            producer.publish(
                body, routing_key=QUEUE, content_type=content_type, content_encoding="utf-8",
                headers=headers, serializer=None,
            )  # fmt: skip
    plant.ringer(broker_url).ring("text")

    # In one queue: when the true bell is heard, the others have been dealt with.
    assert ears.next() == "text"
    assert ears.next(0.2) is None
    assert "listener_restarts" not in {event["event"] for event in logs}
    assert not (tmp_path / "canary").exists()
    assert _peak_memory() - peak < 200 * 2**20
    left = rabbitmq.ctl(
        "list_queues", "--vhost", broker_vhost, "--formatter", "json",
        "messages_ready", "messages_unacknowledged",
    )  # fmt: skip
    assert json.loads(left) == [{"messages_ready": 0, "messages_unacknowledged": 0}]


def test_the_same_message_unharmed_is_a_doorbell(broker_url: str, plant: Plant) -> None:
    """Else the test above would pass with a listener that hears nothing."""
    ears = Ears()
    assert plant.listener(broker_url, ears).wait_ready(READY_SECONDS)
    with Connection(broker_url) as connection:
        connection.Producer().publish(
            json.dumps(CALL), routing_key=QUEUE, content_type=JSON, content_encoding="utf-8",
            headers=HEADERS, serializer=None,
        )  # fmt: skip
    assert ears.next() == "text"


def _peak_memory() -> int:
    """The most memory this process ever had, in bytes."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


# --- a folder -----------------------------------------------------------------------------------

RING_FROM_ANOTHER_PROCESS = """\
import sys
from shared.doorbell import Ringer
ringer = Ringer(sys.argv[1])
ringer.ring("text")
ringer.close(30)
sys.exit(0 if ringer.counts.rung == 1 else 1)
"""


def test_a_folder_carries_bells_between_processes(tmp_path: Path, plant: Plant) -> None:
    url = f"filesystem://{tmp_path / 'a broker'}"
    ears = Ears()
    listener = plant.listener(url, ears)
    assert listener.wait_ready(READY_SECONDS)
    subprocess.run(
        [sys.executable, "-c", RING_FROM_ANOTHER_PROCESS, url], cwd=ROOT, check=True, timeout=60
    )
    assert ears.next() == "text"
    listener.stop()
    assert not listener.alive


def test_listeners_of_a_folder_share_its_bells(tmp_path: Path, plant: Plant) -> None:
    url = f"filesystem://{tmp_path / 'broker'}"
    text, image = Ears(), Ears()
    assert plant.listener(url, text, "text").wait_ready(READY_SECONDS)
    assert plant.listener(url, image, "image").wait_ready(READY_SECONDS)
    ringer = plant.ringer(url)
    for pool, ears in (("image", image), ("text", text)):
        ringer.ring(pool)
        assert ears.next() == pool
    assert text.next(0) is image.next(0) is None


def test_rubbish_in_the_folder_does_not_end_the_listener(
    tmp_path: Path, plant: Plant, logs: list[Any]
) -> None:
    url = f"filesystem://{tmp_path / 'broker'}"
    ears = Ears()
    listener = plant.listener(url, ears)
    assert listener.wait_ready(READY_SECONDS)
    now = time.time_ns() // 10**6
    for number, rubbish in enumerate((b"", b"\xff", b"[]", b'{"properties": {}}', b"[" * 10**5)):
        (tmp_path / "broker/queue" / f"{now}_{number}.{QUEUE}.msg").write_bytes(rubbish)
    assert until(lambda: not os.listdir(tmp_path / "broker/queue"), HEARD_SECONDS)
    plant.ringer(url).ring("text")
    assert ears.next() == "text"
    assert "listener_restarts" not in {event["event"] for event in logs}


def test_the_application_declares_the_queue_that_ringers_use() -> None:
    app = make_celery("amqp://localhost", ["text"])
    assert app.amqp.queues[QUEUE].queue_arguments == doorbell_queue("text").queue_arguments
