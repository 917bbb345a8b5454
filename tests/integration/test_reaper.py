"""Reaping over a real database: what overlaps with it, and what an outage must not start."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy.exc import OperationalError

from shared.lifecycle import working
from shared.states import JobState, ShardState
from tests.integration.protocol import Plant
from worker.upkeep.reaper import Reaper

HEARTBEAT, TTL = 5.0, 30.0
GRACE = TTL + 2 * HEARTBEAT


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def plant(database_url: str) -> Iterator[Plant]:
    plant = Plant(database_url)
    yield plant
    plant.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def reaper(plant: Plant, clock: Clock) -> Reaper:
    return Reaper(plant.engine, heartbeat_seconds=HEARTBEAT, ttl_seconds=TTL, clock=clock)


def warm_up(reaper: Reaper, clock: Clock) -> None:
    """The database has been reachable for long enough."""
    reaper.run()
    clock.now += GRACE


def test_a_vanished_workers_shard_goes_to_another_at_the_next_epoch(
    plant: Plant, reaper: Reaper, clock: Clock
) -> None:
    job_id = plant.generation()
    plant.session()
    plant.claim()
    warm_up(reaper, clock)
    assert reaper.run() == []  # alive
    plant.expire_session("w1")
    assert reaper.run() == ["text"]
    assert plant.job(job_id).state == JobState.QUEUED
    assert plant.claim_one(plant.session("w2")).epoch == 2
    assert reaper.run() == []


def test_after_an_outage_nothing_is_reaped_until_workers_had_time_to_return(
    plant: Plant, reaper: Reaper, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        plant.generation()
        plant.claim(plant.session(f"w{number}"), max_shards=1)
    warm_up(reaper, clock)
    reaper.run()

    outage = OperationalError("SELECT", {}, Exception("no database"))
    with monkeypatch.context() as down:
        down.setattr(plant.engine, "begin", raising(outage))
        with pytest.raises(OperationalError):
            reaper.run()
    for number in range(3):
        plant.expire_session(f"w{number}")
    clock.now += 10 * TTL
    assert reaper.run() == []  # the database is back; its first answer starts the grace
    clock.now += GRACE - 1
    assert reaper.run() == []
    assert plant.scalar("SELECT count(*) FROM shards WHERE lost_n > 0") == 0

    with plant.connection() as connection:
        for number in range(3):
            assert working.heartbeat(connection, f"w{number}", ttl_seconds=TTL)
    clock.now += 2
    assert reaper.run() == []
    assert plant.scalar("SELECT count(*) FROM shards WHERE state = 'running'") == 3


def test_a_worker_that_does_not_return_after_the_outage_is_reaped(
    plant: Plant, reaper: Reaper, clock: Clock
) -> None:
    plant.generation()
    plant.claim(plant.session())
    plant.expire_session("w1")
    assert reaper.run() == []
    clock.now += GRACE - 0.1
    assert reaper.run() == []
    clock.now += 0.2
    assert reaper.run() == ["text"]


def test_a_claim_that_commits_after_its_session_was_declared_dead_is_recovered(
    plant: Plant,
) -> None:
    """The claim saw its session alive; the reaper, before it could see the claim, declared it
    dead. Nobody would hold the shard if recovery looked only at sessions it has just ended."""
    job_id = plant.generation()
    plant.session()
    with plant.engine.begin() as slow:
        claims = working.claim(slow, session_id="w1", pools=["text"], max_shards=1, max_rows=10)
        assert len(claims) == 1
        plant.expire_session("w1")
        assert plant.declare_dead("w1") == 1
        assert plant.recover() == []  # the claim is not visible yet
    (shard,) = plant.shards(job_id)
    assert (shard.state, shard.session_id) == (ShardState.RUNNING, "w1")
    assert plant.recover() == ["text"]
    assert plant.shards(job_id)[0].state == ShardState.READY
    assert not plant.finish("w1", claims[0].held)


def test_two_reapers_take_a_shard_back_once(plant: Plant) -> None:
    for number in range(20):
        plant.generation()
        plant.claim(plant.session(f"w{number}"), max_shards=1)
        plant.expire_session(f"w{number}")
        plant.declare_dead(f"w{number}")
    with plant.engine.begin() as first:
        assert working.recover_lost(first, limit=8) == ["text"]
        assert plant.recover() == ["text"]  # skips what the first one holds
        assert plant.scalar("SELECT count(*) FROM shards WHERE state = 'ready'") == 12
    assert plant.scalar("SELECT count(*) FROM shards WHERE state = 'ready' AND lost_n = 1") == 20


def test_recovery_and_a_late_commit_agree_on_one_winner(plant: Plant) -> None:
    """The commit holds the row; recovery skips it and finds it closed the next time."""
    job_id = plant.generation()
    claim = plant.claim_one(plant.session())
    plant.expire_session("w1")
    plant.declare_dead("w1")
    with plant.engine.begin() as late:
        end = [working.GenerationEnd(claim.held, ShardState.SUCCEEDED, "a" * 64, result="{}")]
        assert working.finish_generations(late, "w1", end) == {claim.held}
        assert plant.recover() == []
    assert plant.recover() == []
    assert plant.job(job_id).state == JobState.SUCCEEDED


def raising(error: Exception) -> object:
    def call(*_: object, **__: object) -> object:
        raise error

    return call
