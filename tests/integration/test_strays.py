"""A shard that a live worker holds and has never heard of, or not any more, comes back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from shared.db.session import make_engine
from shared.lifecycle import working
from shared.lifecycle.working import Claim, Held, Watched
from tests.integration.protocol import Plant
from tests.integration.test_congestion import HungryEngines, OpenSession, running
from tests.plant import wait_until
from worker.supervisor import Supervisor
from worker.wakeup import Mailbox

PATIENCE_SECONDS = 120.0


class Worker:
    """A supervisor whose engines note what they are given, and never end it."""

    def __init__(self, url: str) -> None:
        self.database = make_engine(url, process="test")
        self.engines = HungryEngines()
        self.mailbox = Mailbox()
        self.supervisor = Supervisor(
            database=self.database,
            autocommit=self.database.execution_options(isolation_level="AUTOCOMMIT"),
            session=OpenSession(),  # type: ignore[arg-type]
            mailbox=self.mailbox,
            generation=self.engines,  # type: ignore[arg-type]
            admission=self.engines,  # type: ignore[arg-type]
            desks={},
            pools=["text"],
            window=32,
            poll_seconds=0.02,
            drain_seconds=1.0,
            congested=lambda: False,
        )

    def wait_begun(self, times: int) -> None:
        wait_until(lambda: len(self.engines.begun) == times, PATIENCE_SECONDS)


@pytest.fixture(name="plant")
def plant_fixture(database_url: str) -> Iterator[Plant]:
    plant = Plant(database_url)
    plant.session("w1", pools=["text"])
    yield plant
    plant.close()


@pytest.fixture(name="worker")
def worker_fixture(plant: Plant, database_url: str) -> Iterator[Worker]:
    worker = Worker(database_url)
    with worker.mailbox:
        yield worker
    worker.database.dispose()


def test_what_a_claim_took_whose_answer_was_lost_is_given_back(
    plant: Plant, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The statement is done, and the connection is gone before it says so."""
    (shard,) = plant.shards(plant.generation())
    lost: list[list[Claim]] = []
    claim = working.claim

    def lose_the_first(*given: Any, **options: Any) -> list[Claim]:
        claims = claim(*given, **options)
        if claims and not lost:
            lost.append(claims)
            raise OperationalError("SELECT", {}, Exception("the connection is lost"))
        return claims

    monkeypatch.setattr(working, "claim", lose_the_first)
    with running(worker.supervisor):
        worker.wait_begun(1)
    assert [len(claims) for claims in lost] == [1]
    assert worker.engines.begun == [shard.id]
    shard = plant.shard(shard.id)
    assert (shard.state, shard.epoch) == ("running", 2)
    assert (shard.preempt_n, shard.lost_n, shard.error_n, shard.fenced_n) == (1, 0, 0, 0)


def test_what_could_not_be_given_back_is_given_back_later(plant: Plant, worker: Worker) -> None:
    """It is off the books, and the database was never told."""
    (shard,) = plant.shards(plant.generation())
    with running(worker.supervisor):
        worker.wait_begun(1)
        worker.supervisor.closed(Held(shard.id, 1))
        worker.wait_begun(2)
    assert worker.engines.begun == [shard.id, shard.id]
    assert plant.shard(shard.id).epoch == 2


def test_what_runs_is_left_alone(
    plant: Plant, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = threading.Semaphore(0)
    watch = working.watch

    def counted(*given: Any) -> list[Watched]:
        found = watch(*given)
        looks.release()
        return found

    monkeypatch.setattr(working, "watch", counted)
    worker.engines.idle = False
    (first,) = plant.shards(plant.generation())
    (second,) = plant.shards(plant.generation())
    with running(worker.supervisor):
        worker.wait_begun(2)
        worker.supervisor.closed(Held(first.id, 7))  # of another attempt
        for _ in range(3):  # the turns before the last of them are over
            assert looks.acquire(timeout=PATIENCE_SECONDS)
        assert sorted(worker.engines.begun) == [first.id, second.id]
        assert [plant.shard(shard.id).epoch for shard in (first, second)] == [1, 1]
