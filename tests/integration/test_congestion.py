"""A worker whose results wait for the store claims no more work until they are stored."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from shared.db.session import make_engine
from shared.lifecycle.working import Claim, RowStep
from tests.integration.protocol import Plant
from worker.streaming import Streams
from worker.supervisor import Supervisor
from worker.wakeup import Mailbox

PATIENCE_SECONDS = 20.0


class SilentRows:
    """Rows that tell nothing of their progress."""

    def due_at(self) -> None:
        return None

    def take(self) -> list[RowStep]:
        return []


class HungryEngines:
    """Engines with room, which note what they are given; their admission, too."""

    idle = True
    reports = SilentRows()

    def __init__(self) -> None:
        self.streams = Streams()
        self.placement = self
        self.begun: list[int] = []
        self.given = threading.Event()

    def room(self, _pool: str) -> int:
        return 8 - len(self.begun)

    def begin(self, claim: Claim, _session_id: str) -> None:
        self.begun.append(claim.shard_id)
        self.given.set()

    def close(self) -> None:
        pass

    def pipes(self) -> Iterator[object]:
        return iter(())

    def __getattr__(self, _name: str) -> Callable[..., dict[str, Any]]:
        return lambda *_: {}


class OpenSession:
    """A lease that was opened by the test."""

    id = "w1"

    def open(self, **_: object) -> bool:
        return True

    def drain(self) -> None:
        pass


@contextmanager
def running(supervisor: Supervisor) -> Iterator[None]:
    thread = threading.Thread(target=supervisor.run)
    thread.start()
    try:
        yield
    finally:
        supervisor.drain()
        supervisor.drain()
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()


@pytest.fixture
def plant(database_url: str) -> Iterator[Plant]:
    plant = Plant(database_url)
    plant.session("w1", pools=["text"])
    yield plant
    plant.close()


def test_a_congested_worker_claims_nothing(plant: Plant, database_url: str) -> None:
    job_id = plant.generation()
    congested = [True]
    asked = threading.Semaphore(0)

    def is_congested() -> bool:
        asked.release()
        return congested[0]

    engines, mailbox = HungryEngines(), Mailbox()
    database = make_engine(database_url, process="test")
    autocommit = database.execution_options(isolation_level="AUTOCOMMIT")
    supervisor = Supervisor(
        database=database,
        autocommit=autocommit,
        session=OpenSession(),  # type: ignore[arg-type]
        mailbox=mailbox,
        generation=engines,  # type: ignore[arg-type]
        admission=engines,  # type: ignore[arg-type]
        desks={},
        pools=["text"],
        window=32,
        poll_seconds=0.02,
        drain_seconds=1.0,
        congested=is_congested,
    )
    with mailbox, running(supervisor):
        for _ in range(4):  # the turns before the last of them are over
            assert asked.acquire(timeout=PATIENCE_SECONDS)
        assert engines.begun == []
        assert plant.job(job_id).state == "queued"
        congested[0] = False
        assert engines.given.wait(PATIENCE_SECONDS)
        assert engines.begun == [plant.shards(job_id)[0].id]
    database.dispose()
