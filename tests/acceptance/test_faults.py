"""Whatever is killed, every accepted row has exactly one line in the results."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pressrun.embedded_postgres_server import EmbeddedPostgres
from shared.db.migrate import upgrade
from tests.plant import Plant, chat_row, plant, wait_until
from tests.services.ports import reserve_port
from tests.services.rabbitmq import RabbitMQ

ROWS = 1_500
"""About six seconds of work for two workers."""


@pytest.fixture
def durable_postgres(service_dir: Path) -> Iterator[EmbeddedPostgres]:
    """A server with fsync, for a test that kills it."""
    with EmbeddedPostgres(service_dir / "durable", port=reserve_port(), tcp=True) as server:
        yield server


@pytest.fixture
def running(tmp_path: Path, durable_postgres: EmbeddedPostgres, broker_url: str) -> Iterator[Plant]:
    upgrade(durable_postgres.url)
    with plant(tmp_path / "plant", durable_postgres.url, broker_url) as made:
        yield made.start(workers=2)


def kill_worker(running: Plant, **_: object) -> None:
    running.processes["worker-0"].kill()
    running.restart("worker-0")


def kill_engine(running: Plant, **_: object) -> None:
    for child in running.engine_children("worker-0"):
        child.kill()


def kill_upkeep(running: Plant, **_: object) -> None:
    running.processes["upkeep"].kill()
    running.restart("upkeep")


def kill_api(running: Plant, **_: object) -> None:
    running.processes["api"].kill()
    running.restart("api")
    running.wait_ready()


def kill_broker(rabbitmq: RabbitMQ, **_: object) -> None:
    rabbitmq.kill()
    rabbitmq.start()


def restart_database(durable_postgres: EmbeddedPostgres, **_: object) -> None:
    durable_postgres.kill()
    durable_postgres.start()


def kill_everything(running: Plant, durable_postgres: EmbeddedPostgres, **_: object) -> None:
    for process in list(running.processes.values()):
        process.kill()
    durable_postgres.kill()
    durable_postgres.start()
    for name in list(running.processes):
        running.restart(name)
    running.wait_ready()


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    [
        kill_worker,
        kill_engine,
        kill_upkeep,
        kill_api,
        kill_broker,
        restart_database,
        kill_everything,
    ],
)
def test_every_row_has_exactly_one_line(
    fault: Callable[..., None],
    running: Plant,
    durable_postgres: EmbeddedPostgres,
    rabbitmq: RabbitMQ,
) -> None:
    batch_id = running.submit_batch([chat_row(n, model="fake-slow") for n in range(ROWS)])
    running.wait_progress(batch_id, ROWS // 10)

    fault(running=running, durable_postgres=durable_postgres, rabbitmq=rabbitmq)

    batch = running.wait_batch(batch_id)
    results = running.results(batch)
    assert batch.status == "completed"
    assert set(results) == {f"row-{n}" for n in range(ROWS)}
    assert all(row["response"]["status_code"] == 200 for row in results.values())
    assert batch.request_counts is not None
    assert batch.request_counts.completed == ROWS
    assert running.scalar("SELECT sum(rows) FROM usage WHERE job_id = :id", id=batch_id) == ROWS
    done = "SELECT count(*) FROM events WHERE job_id = :id AND type = 'batch.completed'"
    assert running.scalar(done, id=batch_id) == 1


@pytest.mark.slow
def test_what_a_zombie_made_counts_for_nothing(
    running: Plant, durable_postgres: EmbeddedPostgres
) -> None:
    """A worker stopped for longer than its lease wakes up after its shards ran elsewhere."""
    batch_id = running.submit_batch([chat_row(n, model="fake-slow") for n in range(ROWS)])
    running.wait_progress(batch_id, ROWS // 10)
    zombie = running.processes["worker-0"].pid
    os.kill(zombie, signal.SIGSTOP)
    # Its engine goes on, so that results wait for the supervisor when it wakes up.
    batch = running.wait_batch(batch_id)
    os.kill(zombie, signal.SIGCONT)

    log = running.processes["worker-0"].log
    wait_until(lambda: "session_lost" in log(), 20, log)
    results = running.results(batch)
    assert set(results) == {f"row-{n}" for n in range(ROWS)}
    assert running.scalar("SELECT sum(rows) FROM usage WHERE job_id = :id", id=batch_id) == ROWS
    # Whether it commits late and is refused, or notices first what it has lost, is chance here.


@pytest.mark.slow
def test_an_engine_never_outlives_its_supervisor(running: Plant) -> None:
    batch_id = running.submit_batch([chat_row(0, "[[hang]]"), chat_row(1)])
    wait_until(lambda: any(running.engine_children(f"worker-{n}") for n in (0, 1)), 20)
    time.sleep(1.0)
    engines = [c.pid for n in (0, 1) for c in running.engine_children(f"worker-{n}")]
    for name in ("worker-0", "worker-1"):
        running.processes[name].kill()
    wait_until(lambda: not any(_alive(pid) for pid in engines), 10)
    assert running.scalar("SELECT state FROM jobs WHERE id = :id", id=batch_id) == "running"


def _alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] not in ("Z", "X")
