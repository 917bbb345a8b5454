"""Budgets of shards that come back, and the sessions that hold them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from shared.lifecycle import working
from shared.lifecycle.settle import MAX_CRASHES, MAX_ERRORS, MAX_LOSSES
from shared.lifecycle.working import ReleaseReason
from shared.states import JobState, ShardState, StopReason
from tests.integration.protocol import Plant


@pytest.fixture
def plant(database_url: str) -> Iterator[Plant]:
    plant = Plant(database_url)
    yield plant
    plant.close()


# --- giving back ------------------------------------------------------------------------------


def test_a_preempted_shard_is_ready_again_however_often(plant: Plant) -> None:
    job_id = plant.generation()
    plant.session()
    for epoch in range(1, 12):
        claim = plant.claim_one()
        assert claim.epoch == epoch
        assert plant.release("w1", claim.held, ReleaseReason.PREEMPTED) == ShardState.READY
        assert plant.job(job_id).state == JobState.QUEUED
    shard = plant.shard(claim.shard_id)
    assert (shard.preempt_n, shard.error_n, shard.crash_n, shard.lost_n) == (11, 0, 0, 0)
    assert not shard.suspect


@pytest.mark.parametrize(
    ("reason", "budget", "column"),
    [(ReleaseReason.ERROR, MAX_ERRORS, "error_n"), (ReleaseReason.CRASHED, MAX_CRASHES, "crash_n")],
)
def test_a_spent_budget_fails_the_job_with_the_reason(
    plant: Plant, reason: ReleaseReason, budget: int, column: str
) -> None:
    job_id = plant.generation()
    plant.session()
    for attempt in range(1, budget + 1):
        claim = plant.claim_one()
        state = plant.release("w1", claim.held, reason, code="why", message="because")
        assert state == (ShardState.READY if attempt < budget else ShardState.FAILED)
        assert getattr(plant.shard(claim.shard_id), column) == attempt
    job = plant.job(job_id)
    assert (job.state, job.error_code, job.error_message) == (JobState.FAILED, "why", "because")
    assert plant.events(job_id) == ["job.failed"]
    assert plant.claim() == []


def test_budgets_are_the_documented_ones() -> None:
    assert (MAX_ERRORS, MAX_CRASHES, MAX_LOSSES) == (3, 2, 5)


def test_a_crashed_shard_comes_back_as_a_suspect(plant: Plant) -> None:
    plant.generation()
    plant.session()
    claim = plant.claim_one()
    assert not claim.suspect
    plant.release("w1", claim.held, ReleaseReason.SUSPECT)
    claim = plant.claim_one()
    assert (claim.suspect, claim.crash_n) == (True, 0)
    plant.release("w1", claim.held, ReleaseReason.CRASHED)
    assert plant.claim_one().crash_n == 1


def test_five_losses_fail_the_job_and_the_second_makes_a_suspect(plant: Plant) -> None:
    job_id = plant.generation()
    for loss in range(1, MAX_LOSSES + 1):
        claim = plant.claim_one(plant.session(f"w{loss}"))
        assert claim.suspect == (loss > 2)
        assert plant.lose(f"w{loss}") == (["text"] if loss < MAX_LOSSES else [])
    job, shard = plant.job(job_id), plant.shard(claim.shard_id)
    assert (job.state, job.error_code) == (JobState.FAILED, "worker_lost")
    assert (shard.state, shard.lost_n, shard.epoch) == (ShardState.FAILED, 5, 5)
    assert plant.events(job_id) == ["job.failed"]


# --- sessions ---------------------------------------------------------------------------------


def test_only_a_declared_death_ends_a_lease(plant: Plant) -> None:
    plant.session()
    plant.expire_session("w1")
    with plant.connection() as connection:
        assert working.expired_sessions(connection) == (["w1"], 1)
        assert working.heartbeat(connection, "w1", ttl_seconds=60)  # late, but in time
        assert working.expired_sessions(connection) == ([], 1)
        assert working.declare_dead(connection, ["w1"]) == 0  # what was read is out of date
    plant.expire_session("w1")
    assert plant.declare_dead("w1") == 1
    with plant.connection() as connection:
        assert not working.heartbeat(connection, "w1", ttl_seconds=60)
        assert working.expired_sessions(connection) == ([], 0)


def test_watching_shows_what_is_held_and_what_should_stop(plant: Plant) -> None:
    plant.session()
    first, second = plant.generation(), plant.generation()
    held = {claim.job_id: claim.held for claim in plant.claim()}
    plant.stop(second, reason=StopReason.EXPIRED)
    with plant.connection() as connection:
        watched = {item.held: item.stop_reason for item in working.watch(connection, "w1")}
        assert watched == {held[first]: None, held[second]: StopReason.EXPIRED}
        assert working.watch(connection, "w2") == []
    plant.finish("w1", held[first])
    with plant.connection() as connection:
        assert [item.held for item in working.watch(connection, "w1")] == [held[second]]


def test_a_closed_session_leaves_its_shards_to_the_next_recovery(plant: Plant) -> None:
    plant.session()
    plant.generation()
    claim = plant.claim_one()
    with plant.connection() as connection:
        working.close_session(connection, "w1")
    assert plant.recover() == ["text"]
    assert plant.shard(claim.shard_id).lost_n == 1
