"""Rows of a batch that are graphs: unfolded once, counted down once each, and written as lines
when all of them have ended, whoever is killed in between."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from shared.db.jobs import get_job
from shared.db.steps import graphs_of, list_steps
from shared.lifecycle.settle import MAX_ERRORS
from shared.lifecycle.working import Claim, ReleaseReason
from shared.states import ShardState, StopReason
from tests.integration.graphs import (
    DIAMOND,
    POOLS,
    batch_of_graphs,
    cut,
    dispatch,
    fail,
    finish,
    run_steps,
    states,
    take,
    unfold,
    watched,
)
from tests.integration.protocol import TENANT, Plant


@pytest.fixture
def plant(database_url: str) -> Iterator[Plant]:
    plant = Plant(database_url)
    yield plant
    plant.close()


def outcomes(plant: Plant, claim: Claim) -> dict[int, str]:
    with plant.connection() as connection:
        return {line: one.state for line, one in graphs_of(connection, claim.shard_id).items()}


def collector(plant: Plant, session: str = "w1") -> Claim:
    """The second claim of the slice."""
    dispatch(plant)
    claim = plant.claim_one(session, pools=["upkeep"])
    assert claim.stage == "generate"
    return claim


def test_a_slice_of_graphs_from_its_rows_to_its_lines(plant: Plant) -> None:
    job_id, (claim,) = batch_of_graphs(plant, rows=2)
    assert (claim.pool, claim.stage, claim.row_count) == ("upkeep", "generate", 2)
    assert outcomes(plant, claim) == {}
    assert unfold(plant, claim)
    waiting = plant.shard(claim.shard_id)
    assert (waiting.state, waiting.blocked_n) == ("queued", 2)
    assert (waiting.error_n, waiting.preempt_n, waiting.lost_n) == (0, 0, 0)
    assert list(states(plant, job_id, line=1)) == list(states(plant, job_id, line=2))
    assert plant.dispatch("upkeep") == 0

    assert run_steps(plant) == 8
    job = plant.job(job_id)
    assert (job.rows_total, job.rows_completed, job.stage) == (2, 0, "generate")
    with plant.connection() as connection:
        found = get_job(connection, TENANT, job_id)
    assert found is not None
    assert found[0].rows_completed == 2  # live: their lines are not written yet

    again = collector(plant)
    assert (again.shard_id, again.epoch) == (claim.shard_id, 2)
    assert outcomes(plant, again) == {1: "succeeded", 2: "succeeded"}
    assert plant.finish_slice("w1", again)
    job = plant.job(job_id)
    assert (job.stage, job.rows_completed, job.shards_open) == ("assemble", 2, 1)
    assert len(plant.usage(job_id)) == 6 + 1  # of model steps, and of this test's end


def test_unfolding_again_after_a_lost_answer_adds_nothing(plant: Plant) -> None:
    job_id, (claim,) = batch_of_graphs(plant, rows=1)
    for _ in range(2):
        assert unfold(plant, claim)
    assert len(states(plant, job_id, line=1)) == len(DIAMOND)
    assert plant.shard(claim.shard_id).fenced_n == 0


def test_a_zombie_unfolds_nothing(plant: Plant) -> None:
    job_id, (old,) = batch_of_graphs(plant, rows=1)
    plant.lose("w1")
    plant.session("w2", pools=POOLS)
    new = collector(plant, "w2")
    assert not unfold(plant, old)
    assert plant.shard(old.shard_id).fenced_n == 1
    assert states(plant, job_id, line=1) == {}
    assert unfold(plant, new, session="w2")
    assert not unfold(plant, old)
    assert plant.shard(old.shard_id).blocked_n == 1
    assert len(states(plant, job_id, line=1)) == len(DIAMOND)


def test_a_worker_killed_between_unfolding_and_collecting_loses_nothing(plant: Plant) -> None:
    job_id, (claim,) = batch_of_graphs(plant, rows=2)
    assert unfold(plant, claim)
    first = take(plant)
    plant.lose("w1")  # with the steps that it held
    assert plant.shard(claim.shard_id).lost_n == 0
    plant.session("w2", pools=POOLS)
    assert run_steps(plant, "w2") == 8
    assert not finish(plant, first["copy"])

    lost = collector(plant, "w2")
    plant.lose("w2")  # while it wrote the lines
    plant.session("w3", pools=POOLS)
    again = collector(plant, "w3")
    assert again.epoch == lost.epoch + 1
    assert not plant.finish_slice("w2", lost)
    assert outcomes(plant, again) == {1: "succeeded", 2: "succeeded"}
    assert plant.finish_slice("w3", again)
    assert plant.job(job_id).stage == "assemble"


def test_a_row_whose_step_fails_ends_alone(plant: Plant) -> None:
    job_id, (claim,) = batch_of_graphs(plant, rows=3)
    unfold(plant, claim)
    run_steps(plant, failing=[(2, "copy")])
    assert set(states(plant, job_id, line=2).values()) == {"failed", "cancelled"}
    assert set(states(plant, job_id, line=3).values()) == {"succeeded"}
    slice_ = plant.shard(claim.shard_id)
    assert (slice_.blocked_n, slice_.rows_completed, slice_.rows_failed) == (0, 2, 1)
    assert plant.job(job_id).state == "running"
    again = collector(plant)
    with plant.connection() as connection:
        bad = graphs_of(connection, again.shard_id)[2]
    assert (bad.state, bad.step, bad.error_code, bad.error_message, bad.result) == (
        "failed",
        "copy",
        "invalid_request",
        "too long",
        None,
    )
    assert plant.finish_slice("w1", again, completed=2)
    job = plant.job(job_id)
    assert (job.stage, job.rows_completed, job.rows_failed) == ("assemble", 2, 1)


def test_a_row_is_counted_down_once_whatever_else_of_it_fails(plant: Plant) -> None:
    job_id, (claim,) = batch_of_graphs(plant, rows=2)
    unfold(plant, claim, {"one": (), "two": (), "all": ("one", "two")})
    mine = {}
    dispatch(plant)
    for step in plant.claim(pools=["text"]):
        mine[step.step_line, step.step] = step
    assert fail(plant, mine[1, "one"])
    assert watched(plant)[mine[1, "two"].shard_id] == "cancelled"
    assert watched(plant)[mine[2, "two"].shard_id] is None
    assert fail(plant, mine[1, "two"])
    assert plant.shard(claim.shard_id).blocked_n == 1
    assert plant.dispatch("upkeep") == 0
    assert fail(plant, mine[2, "one"])
    assert plant.shard(claim.shard_id).blocked_n == 0
    assert finish(plant, mine[2, "two"])
    assert plant.shard(claim.shard_id).blocked_n == 0
    assert outcomes(plant, collector(plant)) == {1: "failed", 2: "failed"}
    assert plant.job(job_id).state == "running"


def test_rows_that_end_at_once_are_all_counted(plant: Plant) -> None:
    _, (claim,) = batch_of_graphs(plant, rows=24)
    unfold(plant, claim, {"only": ()})
    dispatch(plant)
    claims = plant.claim(pools=["upkeep"])
    assert len(claims) == 24
    begin = threading.Barrier(8)

    def work(part: int) -> None:
        begin.wait(30)
        for step in claims[part::8]:
            assert finish(plant, step) if step.step_line % 3 else fail(plant, step)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    slice_ = plant.shard(claim.shard_id)
    assert (slice_.blocked_n, slice_.rows_completed, slice_.rows_failed) == (0, 16, 8)
    assert len(outcomes(plant, collector(plant))) == 24


def test_a_row_that_cannot_be_planned_has_an_error_and_no_steps(plant: Plant) -> None:
    job_id, (claim,) = batch_of_graphs(plant, rows=2)
    unfold(plant, claim, bad_lines=[1])
    assert plant.shard(claim.shard_id).blocked_n == 1
    with plant.connection() as connection:
        (row,) = list_steps(connection, TENANT, job_id, line=1)
    assert (row.name, row.state, row.error_code) == ("plan", "failed", "model_not_found")
    run_steps(plant)
    assert outcomes(plant, collector(plant)) == {1: "failed", 2: "succeeded"}


def test_a_slice_of_which_nothing_can_be_planned_is_collected_at_once(plant: Plant) -> None:
    _, (claim,) = batch_of_graphs(plant, rows=2)
    unfold(plant, claim, bad_lines=[1, 2])
    assert outcomes(plant, collector(plant)) == {1: "failed", 2: "failed"}


# --- stopping ----------------------------------------------------------------------------------


def test_a_stop_before_unfolding_ends_the_slice(plant: Plant) -> None:
    job_id, (claim,) = batch_of_graphs(plant, rows=2)
    plant.stop(job_id)
    assert watched(plant) == {claim.shard_id: StopReason.CANCELLED}
    assert unfold(plant, claim)
    assert plant.shard(claim.shard_id).state == "cancelled"
    assert states(plant, job_id, line=1) == {}
    assert plant.job(job_id).stage == "assemble"


def test_a_stop_keeps_rows_that_have_ended_and_ends_the_others(plant: Plant) -> None:
    job_id, (claim,) = batch_of_graphs(plant, rows=3)
    unfold(plant, claim, {"copy": (), "all": ("copy",)})
    dispatch(plant)
    done, half_way, running = plant.claim(pools=["text"])
    finish(plant, done)
    finish(plant, take(plant)["all"])
    finish(plant, half_way)

    assert plant.stop(job_id)
    slice_ = plant.shard(claim.shard_id)
    assert (slice_.state, slice_.blocked_n) == ("queued", 1)
    assert states(plant, job_id, line=2) == {"copy": "succeeded", "all": "cancelled"}
    assert watched(plant) == {running.shard_id: StopReason.CANCELLED}
    assert cut(plant, running)
    again = collector(plant)
    assert again.stop_reason == StopReason.CANCELLED
    assert watched(plant) == {again.shard_id: None}  # it has lines to write
    assert outcomes(plant, again) == {1: "succeeded", 2: "cancelled", 3: "cancelled"}
    assert plant.finish_slice("w1", again, state=ShardState.CANCELLED, completed=1)
    job = plant.job(job_id)
    assert (job.stage, job.rows_completed, job.rows_failed) == ("assemble", 1, 2)


@pytest.mark.parametrize("end", ["lose", "release"])
def test_a_collector_that_is_lost_while_the_batch_stops_is_followed_by_another(
    plant: Plant, end: str
) -> None:
    job_id, (claim,) = batch_of_graphs(plant, rows=1)
    unfold(plant, claim)
    run_steps(plant)
    first = collector(plant)
    plant.stop(job_id)
    if end == "lose":
        plant.lose("w1")
    else:
        assert plant.release("w1", first.held, ReleaseReason.PREEMPTED) == ShardState.READY
    plant.session("w2", pools=POOLS)
    assert plant.sweep() == 0
    again = collector(plant, "w2")
    assert outcomes(plant, again) == {1: "succeeded"}
    assert plant.finish_slice("w2", again)
    assert plant.job(job_id).rows_completed == 1


def test_stopping_many_rows_settles_each_once(plant: Plant) -> None:
    job_id, claims = batch_of_graphs(plant, rows=8, slices=3)
    for claim in claims:
        unfold(plant, claim)
    assert plant.stop(job_id)
    assert [plant.shard(claim.shard_id).blocked_n for claim in claims] == [0, 0, 0]
    assert [plant.shard(claim.shard_id).rows_failed for claim in claims] == [8, 8, 8]
    assert plant.sweep() == 0
    dispatch(plant)
    again = plant.claim(pools=["upkeep"])
    assert [claim.shard_id for claim in again] == [claim.shard_id for claim in claims]
    for claim in again:
        assert set(outcomes(plant, claim).values()) == {"cancelled"}
        assert plant.finish_slice("w1", claim, state=ShardState.CANCELLED, completed=0)
    assert plant.job(job_id).stage == "assemble"


def test_a_collector_that_keeps_failing_fails_its_slice_and_not_the_batch(plant: Plant) -> None:
    job_id, (claim,) = batch_of_graphs(plant, rows=1)
    unfold(plant, claim)
    run_steps(plant)
    for _ in range(MAX_ERRORS):
        claim = collector(plant)
        plant.release("w1", claim.held, ReleaseReason.ERROR, code="not_found", message="gone")
    assert plant.shard(claim.shard_id).state == "failed"
    assert plant.job(job_id).stage == "assemble"
