"""Pausing trainings: asked for, obeyed, blocked, let go on; and no order of events strands one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from shared import lifecycle
from shared.lifecycle import working
from shared.lifecycle.working import ReleaseReason
from shared.states import JobState, ShardState
from tests.integration.protocol import OTHER
from tests.integration.tuning_case import TuningPlant


@pytest.fixture
def plant(database_url: str) -> Iterator[TuningPlant]:
    plant = TuningPlant(database_url)
    yield plant
    plant.close()


def test_a_waiting_training_is_not_claimed_while_it_is_paused(plant: TuningPlant) -> None:
    job_id = plant.validated()
    assert plant.pause(job_id)
    assert plant.claim("trainer", pools=["train"]) == []
    assert plant.dispatch("train") == 0
    assert plant.resume(job_id)
    assert plant.dispatch("train") == 1
    assert plant.claim_training().job_id == job_id
    assert plant.events(job_id)[-2:] == ["fine_tune.paused", "fine_tune.resumed"]


def test_a_paused_one_takes_no_place_of_its_tenants_window(plant: TuningPlant) -> None:
    paused = plant.validated()
    plant.pause(paused)
    other = plant.fine_tune()
    plant.open_training(plant.claim_one("up", pools=["upkeep"]).held)
    assert plant.dispatch("train", window=1) == 1
    assert plant.claim_training().job_id == other


def test_a_running_one_is_told_gives_back_and_waits(plant: TuningPlant) -> None:
    job_id, claim = plant.training()
    assert plant.pause(job_id)
    with plant.connection() as connection:
        (watched,) = working.watch(connection, "trainer")
    assert (watched.held, watched.paused, watched.stop_reason) == (claim.held, True, None)
    assert plant.release("trainer", claim.held, ReleaseReason.PREEMPTED) == ShardState.QUEUED
    shard = plant.shard(claim.shard_id)
    assert (shard.state, shard.blocked_n, shard.error_n, shard.lost_n) == ("queued", 1, 0, 0)
    assert plant.job(job_id).state == JobState.QUEUED
    assert plant.dispatch("train") == 0
    assert plant.resume(job_id)
    assert plant.dispatch("train") == 1


def test_a_lost_one_of_a_paused_job_waits_too(plant: TuningPlant) -> None:
    job_id, _ = plant.training()
    plant.pause(job_id)
    assert plant.lose("trainer") == []
    assert plant.dispatch("train") == 0
    plant.resume(job_id)
    assert plant.dispatch("train") == 1


def test_data_are_judged_while_paused_and_the_training_waits(plant: TuningPlant) -> None:
    job_id = plant.fine_tune()
    assert plant.pause(job_id)
    assert plant.open_training(plant.claim_one("up", pools=["upkeep"]).held)
    assert plant.dispatch("train") == 0
    plant.resume(job_id)
    assert plant.dispatch("train") == 1


def test_a_resumption_before_the_worker_obeyed_lets_it_run_on(plant: TuningPlant) -> None:
    job_id, claim = plant.training()
    plant.pause(job_id)
    plant.resume(job_id)
    with plant.connection() as connection:
        (watched,) = working.watch(connection, "trainer")
    assert not watched.paused
    assert plant.release("trainer", claim.held, ReleaseReason.PREEMPTED) == ShardState.READY


@contextmanager
def impatient(plant: TuningPlant) -> Iterator[Connection]:
    """A transaction that gives up on locks, so that what has to wait is seen to."""
    with plant.engine.connect() as connection:
        connection.exec_driver_sql("SET LOCAL lock_timeout = '50ms'")
        yield connection


def test_a_resumption_that_overlaps_the_release_strands_nothing(plant: TuningPlant) -> None:
    """The release has not committed when the resumption looks for what to unblock: it waits, and
    can't slip through between the release's statements."""
    job_id, claim = plant.training()
    plant.pause(job_id)
    with plant.engine.begin() as releasing, impatient(plant) as resuming:
        working.release(releasing, "trainer", claim.held, ReleaseReason.PREEMPTED)
        with pytest.raises(OperationalError, match="lock timeout"):
            lifecycle.request_resume(resuming, tenant_id=claim.tenant_id, job_id=job_id)
    assert plant.resume(job_id)
    assert plant.dispatch("train") == 1


def test_a_pause_that_overlaps_the_release_is_kept(plant: TuningPlant) -> None:
    job_id, claim = plant.training()
    with plant.engine.begin() as pausing, impatient(plant) as releasing:
        lifecycle.request_pause(pausing, tenant_id=claim.tenant_id, job_id=job_id)
        with pytest.raises(OperationalError, match="lock timeout"):
            working.release(releasing, "trainer", claim.held, ReleaseReason.PREEMPTED)
    assert plant.release("trainer", claim.held, ReleaseReason.PREEMPTED) == ShardState.QUEUED


def test_only_open_jobs_of_the_tenant_pause_once(plant: TuningPlant) -> None:
    job_id = plant.validated()
    assert not plant.pause(job_id, OTHER)
    assert plant.pause(job_id)
    assert not plant.pause(job_id)
    assert not plant.resume(job_id, OTHER)
    assert plant.resume(job_id)
    assert not plant.resume(job_id)
    assert not plant.pause(plant.generation())


def test_a_paused_job_can_be_cancelled(plant: TuningPlant) -> None:
    job_id = plant.validated()
    plant.pause(job_id)
    assert plant.stop(job_id)
    assert plant.job(job_id).state == JobState.CANCELLED
    assert not plant.resume(job_id)
