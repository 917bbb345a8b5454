"""Late writes of attempts that no longer hold their shard: refused, counted, without a trace.

``test_fence_mutation`` runs this module with parts of the fence taken away and expects it to fail.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from shared.ids import new_file_id
from shared.lifecycle import working
from shared.lifecycle.working import ReleaseReason
from shared.states import JobState, ShardState
from tests.integration import graphs
from tests.integration.protocol import Plant


@pytest.fixture
def plant(database_url: str) -> Iterator[Plant]:
    plant = Plant(database_url)
    yield plant
    plant.close()


def test_a_late_commit_after_another_worker_took_over_is_refused(plant: Plant) -> None:
    job_id = plant.generation()
    zombie = plant.claim_one(plant.session("zombie"))
    assert plant.lose("zombie") == ["text"]
    heir = plant.claim_one(plant.session("heir"))
    assert (heir.shard_id, heir.epoch) == (zombie.shard_id, zombie.epoch + 1)

    assert not plant.finish("zombie", zombie.held, "a" * 64)
    assert plant.shard(zombie.shard_id).fenced_n == 1
    assert plant.job(job_id).state == JobState.RUNNING

    assert plant.finish("heir", heir.held, "b" * 64)
    assert not plant.finish("zombie", zombie.held, "a" * 64)
    assert plant.shard(zombie.shard_id).fenced_n == 2
    assert plant.job(job_id).result == {"id": "b" * 64}
    assert plant.usage(job_id) == [(heir.epoch, 1, 3, 5)]
    assert plant.events(job_id) == ["job.succeeded"]


def test_a_late_commit_of_the_same_sessions_earlier_attempt_is_refused(plant: Plant) -> None:
    """Only the epoch tells the two attempts apart."""
    job_id = plant.generation()
    plant.session()
    first = plant.claim_one()
    plant.release("w1", first.held, ReleaseReason.PREEMPTED)
    second = plant.claim_one()
    assert not plant.finish("w1", first.held, "a" * 64)
    assert plant.shard(first.shard_id).fenced_n == 1
    assert plant.job(job_id).state == JobState.RUNNING
    assert plant.finish("w1", second.held, "b" * 64)
    assert plant.job(job_id).result == {"id": "b" * 64}


def test_a_late_step_of_the_same_sessions_earlier_attempt_is_refused(plant: Plant) -> None:
    job_id = graphs.submit(plant)
    plant.session("w1", pools=graphs.POOLS)
    first = graphs.take(plant)["copy"]
    plant.release("w1", first.held, ReleaseReason.PREEMPTED)
    second = graphs.take(plant)["copy"]
    assert not graphs.finish(plant, first)
    assert plant.shard(first.shard_id).fenced_n == 1
    assert set(graphs.states(plant, job_id).values()) == {"running", "queued"}
    assert graphs.finish(plant, second, sha256="b" * 64)


def test_a_late_step_and_a_late_unfolding_before_anybody_took_over_are_refused(
    plant: Plant,
) -> None:
    plant.session("w2", pools=graphs.POOLS)
    batch_id, (slice_,) = graphs.batch_of_graphs(plant, rows=1)
    job_id = graphs.submit(plant)
    (step,) = plant.claim("w1", pools=["text"])
    plant.lose("w1")
    assert not graphs.finish(plant, step)
    assert not graphs.unfold(plant, slice_)
    assert plant.shard(step.shard_id).fenced_n == plant.shard(slice_.shard_id).fenced_n == 1
    assert graphs.states(plant, job_id)["left"] == "queued"
    assert graphs.states(plant, batch_id, line=1) == {}


def test_a_late_commit_before_anybody_took_over_is_refused(plant: Plant) -> None:
    """Epoch and session still match; only the state tells that the shard was taken back."""
    job_id = plant.generation()
    zombie = plant.claim_one(plant.session("zombie"))
    plant.lose("zombie")
    assert not plant.finish("zombie", zombie.held)
    shard = plant.shard(zombie.shard_id)
    assert (shard.state, shard.fenced_n) == (ShardState.READY, 1)
    assert plant.job(job_id).state == JobState.QUEUED
    assert plant.events(job_id) == []


def test_a_worker_that_is_only_late_still_commits(plant: Plant) -> None:
    """An expired lease proves nothing until somebody has acted on it."""
    job_id = plant.generation()
    claim = plant.claim_one(plant.session())
    plant.expire_session("w1")
    assert plant.finish("w1", claim.held)
    plant.declare_dead("w1")
    assert plant.recover() == []
    assert plant.job(job_id).state == JobState.SUCCEEDED


def test_a_zombies_slice_is_refused(plant: Plant) -> None:
    job_id = plant.generating(slices=1)
    zombie = plant.claim_one(plant.session("zombie"))
    plant.lose("zombie")
    assert not plant.finish_slice("zombie", zombie)
    heir = plant.claim_one(plant.session("heir"))
    assert not plant.finish_slice("zombie", zombie)
    assert plant.finish_slice("heir", heir, sha256="c" * 64)
    assert not plant.finish_slice("zombie", zombie)
    shard = plant.shard(zombie.shard_id)
    assert (shard.fenced_n, shard.output_sha256) == (3, "c" * 64)
    assert f"/e{heir.epoch}/" in shard.output_key
    assert plant.usage(job_id) == [(heir.epoch, 2, 6, 10)]
    assert plant.job(job_id).rows_completed == 2


def test_a_zombies_release_and_progress_change_nothing(plant: Plant) -> None:
    plant.generating(slices=1)
    plant.session()
    first = plant.claim_one()
    plant.release("w1", first.held, ReleaseReason.PREEMPTED)
    second = plant.claim_one()
    assert plant.release("w1", first.held, ReleaseReason.CRASHED) is None
    with plant.connection() as connection:
        working.report_progress(connection, "w1", {first.held: (2, 0)})
    shard = plant.shard(first.shard_id)
    assert (shard.state, shard.epoch) == (ShardState.RUNNING, second.epoch)
    assert (shard.crash_n, shard.rows_completed, shard.fenced_n) == (0, 0, 1)


def test_a_zombie_neither_validates_nor_assembles(plant: Plant) -> None:
    job_id = plant.batch()
    zombie = plant.claim_one(plant.session("zombie"))
    plant.lose("zombie")
    assert not plant.finish_validation("zombie", zombie.held, slices=3)
    assert len(plant.shards(job_id)) == 1
    heir = plant.claim_one(plant.session("heir"))
    with plant.engine.begin() as connection:
        assert not working.reject_batch(connection, "zombie", zombie.held, errors=[], bad_lines=1)
    assert plant.finish_validation("heir", heir.held, slices=1)
    plant.dispatch()
    assert plant.finish_slice("heir", plant.claim_one("heir"))

    plant.session("zombie2")
    late = plant.claim_one("zombie2")
    assert late.stage == "assemble"
    plant.lose("zombie2")
    last = plant.claim_one("heir")
    wanted, unwanted = new_file_id(), new_file_id()
    assert plant.finish_assembly("heir", last.held, file_id=wanted)
    assert plant.finish_assembly("heir", last.held, file_id=wanted)  # the answer was lost
    assert not plant.finish_assembly("zombie2", late.held, file_id=unwanted)
    assert plant.job(job_id).output_file_id == wanted
    assert plant.scalar("SELECT count(*) FROM files WHERE id = :id", id=unwanted) == 0
    assert plant.events(job_id)[-1] == "batch.completed"
