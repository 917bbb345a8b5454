"""Cancel and deadline, in every state and stage, also while somebody claims or commits."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from shared.lifecycle.working import Claim, ReleaseReason
from shared.states import JobState, ShardState, StopReason
from tests.integration.protocol import OTHER, Plant


@pytest.fixture
def plant(database_url: str) -> Iterator[Plant]:
    plant = Plant(database_url)
    yield plant
    plant.close()


@pytest.mark.parametrize("window", [0, 5])
def test_a_waiting_job_ends_at_once(plant: Plant, window: int) -> None:
    job_id = plant.generation(window=window)
    assert plant.stop(job_id)
    job = plant.job(job_id)
    assert (job.state, job.shards_open) == (JobState.CANCELLED, 0)
    assert job.cancel_requested_at is not None
    assert plant.shards(job_id)[0].state == ShardState.CANCELLED
    assert plant.events(job_id) == ["job.cancelled"]
    plant.session()
    assert plant.claim() == []


def test_a_running_job_is_asked_and_ends_by_its_worker(plant: Plant) -> None:
    job_id = plant.generation()
    claim = plant.claim_one(plant.session())
    assert plant.stop(job_id)
    assert plant.job(job_id).state == JobState.RUNNING
    assert plant.finish("w1", claim.held, state=ShardState.CANCELLED)
    assert plant.job(job_id).state == JobState.CANCELLED
    assert plant.usage(job_id) == []
    assert plant.events(job_id) == ["job.cancelled"]


def test_a_result_that_came_first_is_kept(plant: Plant) -> None:
    job_id = plant.generation()
    claim = plant.claim_one(plant.session())
    assert plant.stop(job_id)
    assert plant.finish("w1", claim.held)
    assert plant.job(job_id).state == JobState.SUCCEEDED
    assert plant.events(job_id) == ["job.succeeded"]


def test_stopping_twice_after_the_end_or_for_another_tenant_is_refused(plant: Plant) -> None:
    plant.session()
    ended, running, foreign = plant.generation(), plant.generation(), plant.generation(OTHER)
    claims = {claim.job_id: claim for claim in plant.claim()}
    plant.finish("w1", claims[ended].held)
    assert not plant.stop(ended)
    assert plant.job(ended).state == JobState.SUCCEEDED
    assert plant.stop(running)
    assert not plant.stop(running)
    assert not plant.stop(foreign)
    assert not plant.stop("job_unknown")
    assert plant.job(foreign).stop_reason is None


@pytest.mark.parametrize("reason", list(ReleaseReason))
def test_a_stopped_job_that_is_given_back_ends(plant: Plant, reason: ReleaseReason) -> None:
    job_id = plant.generation()
    claim = plant.claim_one(plant.session())
    plant.stop(job_id)
    assert plant.release("w1", claim.held, reason) == ShardState.CANCELLED
    assert plant.job(job_id).state == JobState.CANCELLED


def test_a_stopped_job_whose_worker_vanishes_ends(plant: Plant) -> None:
    job_id = plant.generation()
    plant.claim_one(plant.session())
    plant.stop(job_id)
    assert plant.lose("w1") == []
    job = plant.job(job_id)
    assert (job.state, job.error_code) == (JobState.CANCELLED, None)
    assert plant.events(job_id) == ["job.cancelled"]


def test_a_batch_stopped_before_or_in_validation_ends_without_assembly(plant: Plant) -> None:
    waiting = plant.batch()
    assert plant.stop(waiting)
    assert plant.job(waiting).state == JobState.CANCELLED
    running = plant.batch()
    claim = plant.claim_one(plant.session())
    assert plant.stop(running)
    assert plant.release("w1", claim.held, ReleaseReason.PREEMPTED) == ShardState.CANCELLED
    assert plant.job(running).state == JobState.CANCELLED
    assert plant.events(running) == ["batch.cancelled"]


def test_a_batch_validated_while_it_is_stopped_still_ends(plant: Plant) -> None:
    job_id = plant.batch()
    claim = plant.claim_one(plant.session())
    plant.stop(job_id)
    assert plant.finish_validation("w1", claim.held, slices=3)
    assert plant.sweep() == 3
    assemble_and_check(plant, job_id, JobState.CANCELLED)


def test_a_batch_stopped_while_it_generates_keeps_its_rows_and_is_assembled(plant: Plant) -> None:
    job_id = plant.generating(slices=4)
    plant.session()
    done, running = plant.claim(max_shards=2)
    assert plant.finish_slice("w1", done)
    assert plant.stop(job_id)
    assert [shard.state for shard in plant.shards(job_id)[1:]] == [
        ShardState.SUCCEEDED,
        ShardState.RUNNING,
        ShardState.CANCELLED,
        ShardState.CANCELLED,
    ]
    assert plant.job(job_id).shards_open == 1
    assert plant.finish_slice("w1", running, state=ShardState.CANCELLED, completed=1)
    assert plant.job(job_id).rows_completed == 3
    assemble_and_check(plant, job_id, JobState.CANCELLED)


def test_a_batch_in_assembly_is_past_stopping(plant: Plant) -> None:
    job_id = plant.generating(slices=1)
    plant.finish_slice("w1", plant.claim_one(plant.session()))
    assert not plant.stop(job_id)
    claim = plant.claim_one()
    assert not plant.stop(job_id)
    assert claim.stop_reason is None
    assert plant.finish_assembly("w1", claim.held)
    assert plant.job(job_id).state == JobState.SUCCEEDED


def test_a_stopped_assembly_survives_a_lost_worker(plant: Plant) -> None:
    job_id = plant.generating(slices=1)
    plant.stop(job_id)
    plant.claim_one(plant.session("w0"))
    assert plant.lose("w0") == ["upkeep"]
    plant.session()
    assemble_and_check(plant, job_id, JobState.CANCELLED)


def test_deadlines_stop_what_is_overdue_and_nothing_else(plant: Plant) -> None:
    overdue, running, later, never = (
        plant.generation(expires_in=-1),
        plant.generation(expires_in=600),
        plant.generation(expires_in=600),
        plant.generation(),
    )
    plant.session()
    plant.sql("UPDATE shards SET priority = -1 WHERE job_id = :id", id=running)
    claim = plant.claim_one(max_shards=1)
    plant.sql("UPDATE jobs SET expires_at = clock_timestamp() WHERE id = :id", id=running)
    assert plant.expire_overdue() == 2
    assert plant.expire_overdue() == 0
    assert plant.job(overdue).state == JobState.EXPIRED
    assert plant.events(overdue) == ["job.expired"]
    assert plant.finish("w1", claim.held, state=ShardState.CANCELLED)
    assert plant.job(running).state == JobState.EXPIRED
    assert {plant.job(later).state, plant.job(never).state} == {JobState.QUEUED}


def test_an_overdue_batch_is_assembled_and_expires(plant: Plant) -> None:
    job_id = plant.generating(slices=2)
    plant.sql("UPDATE jobs SET expires_at = clock_timestamp() WHERE id = :id", id=job_id)
    assert plant.expire_overdue() == 1
    plant.session()
    assemble_and_check(plant, job_id, JobState.EXPIRED, StopReason.EXPIRED)


def test_a_shard_that_was_skipped_is_swept(plant: Plant) -> None:
    """Somebody holds the row while the stop runs, then leaves it as it was."""
    job_id = plant.generation()
    with plant.engine.begin() as holder:
        holder.exec_driver_sql("SELECT 1 FROM shards FOR UPDATE")
        assert plant.stop(job_id)
        assert plant.sweep() == 0
    assert plant.job(job_id).state == JobState.QUEUED
    assert plant.sweep() == 1
    assert plant.sweep() == 0
    assert plant.job(job_id).state == JobState.CANCELLED


def test_stop_against_claim_and_commit_agree_with_the_answer(plant: Plant) -> None:
    """No deadlock, and what the tenant was told is what became of the job."""
    plant.session()
    rng = random.Random(20_25)
    jobs = [plant.generation(window=1_000) for _ in range(120)]
    answers: dict[str, bool] = {}
    done = threading.Event()

    def stopper() -> None:
        for job_id in rng.sample(jobs, len(jobs)):
            answers[job_id] = plant.stop(job_id)
        done.set()

    def worker() -> None:
        while claims := plant.claim(max_shards=3):
            for claim in claims:
                assert plant.finish("w1", claim.held)

    def sweeper() -> None:
        while not done.wait(0.001):
            plant.sweep()

    run_together([stopper, worker, worker, sweeper])
    plant.sweep()
    for job_id in jobs:
        job = plant.job(job_id)
        assert job.state in {JobState.SUCCEEDED, JobState.CANCELLED}
        if not answers[job_id]:
            assert job.state == JobState.SUCCEEDED
        assert len(plant.events(job_id)) == 1
        assert len(plant.usage(job_id)) == (job.state == JobState.SUCCEEDED)


def test_stop_against_slices_that_commit_settles_the_batch_once(plant: Plant) -> None:
    jobs = [plant.generating(slices=6) for _ in range(10)]
    plant.session()
    stopped: dict[str, bool] = {}

    def stopper() -> None:
        for job_id in jobs:
            # Refused when the workers were quicker: a batch in assembly is past stopping.
            stopped[job_id] = plant.stop(job_id)

    def worker() -> None:
        claims: list[Claim]
        while claims := plant.claim(pools=["text"], max_shards=4):
            for claim in claims:
                assert plant.finish_slice("w1", claim)

    run_together([stopper, worker, worker])
    plant.sweep()
    for job_id in jobs:
        assert plant.job(job_id).shards_open == 1  # its assembly, and only that
        assert [s.stage for s in plant.shards(job_id)].count("assemble") == 1
    for claim in plant.claim(pools=["upkeep"]):
        assert plant.finish_assembly("w1", claim.held)
    assert stopped[jobs[0]]
    assert {job_id: plant.job(job_id).state for job_id in jobs} == {
        job_id: JobState.CANCELLED if asked else JobState.SUCCEEDED
        for job_id, asked in stopped.items()
    }


def run_together(calls: list[Callable[[], None]]) -> None:
    with ThreadPoolExecutor(len(calls)) as threads:
        for future in [threads.submit(call) for call in calls]:
            future.result(timeout=120)


def assemble_and_check(
    plant: Plant,
    job_id: str,
    state: JobState,
    reason: StopReason = StopReason.CANCELLED,
) -> None:
    if plant.scalar("SELECT count(*) FROM sessions WHERE id = 'w1'") == 0:
        plant.session()
    claim = plant.claim_one(pools=["upkeep"])
    assert (claim.job_id, claim.stage, claim.stop_reason) == (job_id, "assemble", reason)
    assert plant.finish_assembly("w1", claim.held)
    job = plant.job(job_id)
    assert (job.state, job.shards_open) == (state, 0)
    assert plant.events(job_id)[-1] == f"batch.{state}"
