"""A job that is a graph of steps: each runs when those it needs are done, and the whole of it has
one outcome."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from shared.db.steps import list_steps, pools_after, results_of, step_of
from shared.lifecycle.settle import MAX_CRASHES, MAX_ERRORS, MAX_LOSSES
from shared.lifecycle.working import ReleaseReason
from shared.states import ShardState, StopReason
from tests.integration.graphs import (
    DIAMOND,
    FORK,
    POOLS,
    artifact,
    cut,
    dispatch,
    fail,
    finish,
    states,
    submit,
    take,
    watched,
)
from tests.integration.protocol import OTHER, TENANT, Plant


@pytest.fixture
def plant(database_url: str) -> Iterator[Plant]:
    plant = Plant(database_url)
    plant.session("w1", pools=POOLS)
    plant.session("w2", pools=POOLS)
    yield plant
    plant.close()


# --- the way through ---------------------------------------------------------------------------


def test_a_diamond_runs_step_by_step_to_the_last_ones_result(plant: Plant) -> None:
    job_id = submit(plant)
    assert [s.state for s in plant.shards(job_id)] == ["ready", "queued", "queued", "queued"]
    assert [s.blocked_n for s in plant.shards(job_id)] == [0, 1, 1, 2]
    job = plant.job(job_id)
    assert (job.kind, job.state, job.stage, job.rows_total) == ("campaign", "queued", "step", 4)

    copy = plant.claim_one(pools=POOLS)
    assert (copy.step, copy.stage, copy.endpoint, copy.model) == (
        "copy",
        "step",
        "/v1/chat/completions",
        "m",
    )
    assert json.loads(copy.spec)["messages"][0]["content"] == "copy"
    assert plant.job(job_id).state == "running"
    assert finish(plant, copy)

    sides = take(plant)
    assert sorted(sides) == ["left", "right"]
    assert finish(plant, sides["left"])
    assert take(plant) == {}
    assert plant.job(job_id).rows_completed == 2
    assert finish(plant, sides["right"])
    last = take(plant)["all"]
    assert (last.endpoint, last.model, last.pool) == ("bundle", None, "upkeep")
    assert finish(plant, last)

    job = plant.job(job_id)
    assert (job.state, job.shards_open, job.result) == ("succeeded", 0, {"made": "all"})
    assert (job.rows_completed, job.rows_failed) == (4, 0)
    assert (job.input_tokens, job.output_tokens) == (12, 20)
    assert plant.events(job_id) == ["campaign.completed"]
    assert len(plant.usage(job_id)) == 3  # the bundle is no model's work


def test_roots_are_ready_as_far_as_the_tenants_window_has_room(plant: Plant) -> None:
    job_id = submit(plant, FORK, window=2)
    assert [s.state for s in plant.shards(job_id)] == ["ready", "ready", "queued", "queued"]
    other = submit(plant, FORK, window=2)
    assert {s.state for s in plant.shards(other)} == {"queued"}
    assert plant.dispatch(window=2) == 0
    elsewhere = submit(plant, FORK, tenant=OTHER, window=2)
    assert plant.shards(elsewhere)[0].state == "ready"


def test_blocked_steps_do_not_hold_up_the_tenants_other_work(plant: Plant) -> None:
    submit(plant)
    single = plant.generation()
    assert plant.shards(single)[0].state == "ready"
    image = plant.generation(pool="image")
    assert plant.shards(image)[0].state == "ready"
    assert plant.dispatch("image") == plant.dispatch("upkeep") == 0


def test_a_step_reads_what_the_steps_it_needs_have_made(plant: Plant) -> None:
    job_id = submit(plant)
    assert finish(plant, take(plant)["copy"])
    left = take(plant)["left"]
    with plant.connection() as connection:
        step = step_of(connection, left.shard_id)
        assert (step.name, step.needs, step.last, step.line) == ("left", ["copy"], False, 0)
        assert step.body["messages"][0]["content"] == "left"
        assert results_of(connection, job_id, 0, step.needs) == {"copy": {"made": "copy"}}
        assert results_of(connection, job_id, 0, ["right"]) == {}


def test_the_steps_of_a_job_are_listed_by_the_page_for_its_tenant_alone(plant: Plant) -> None:
    job_id = submit(plant)
    copy = take(plant)["copy"]
    finish(plant, copy)
    fail(plant, take(plant)["left"])
    with plant.connection() as connection:
        rows = list_steps(connection, TENANT, job_id, limit=3)
        rest = list_steps(connection, TENANT, job_id, after=rows[-1].shard_id)
        assert list_steps(connection, OTHER, job_id) == []
    assert [row.name for row in rows + rest] == list(DIAMOND)
    assert [row.state for row in rows + rest] == ["succeeded", "failed", "running", "cancelled"]
    assert rows[0].attempts == 1
    assert rows[0].ended_at is not None
    assert (rows[1].error_code, rows[1].error_message) == ("invalid_request", "too long")
    assert rest[0].needs == ["left", "right"]


def test_the_end_of_a_step_says_which_pools_have_work_now(plant: Plant) -> None:
    submit(plant)
    copy = take(plant)["copy"]
    with plant.connection() as connection:
        assert pools_after(connection, copy.shard_id) == []
        finish(plant, copy)
        assert sorted(pools_after(connection, copy.shard_id)) == ["image", "text"]


# --- commits -----------------------------------------------------------------------------------


def test_a_commit_repeated_is_accepted_and_counted_once(plant: Plant) -> None:
    job_id = submit(plant, FORK)
    claims = take(plant)
    for _ in range(3):  # the answers were lost
        assert finish(plant, claims["one"])
    assert not finish(plant, claims["one"], sha256="d" * 64)
    assert plant.shards(job_id)[-1].blocked_n == 2
    assert plant.job(job_id).rows_completed == 1
    assert len(plant.usage(job_id)) == 1


def test_a_zombies_commit_of_a_step_is_refused_with_its_artifacts(plant: Plant) -> None:
    job_id = submit(plant)
    old = take(plant)["copy"]
    plant.lose("w1")
    new = take(plant, "w2")["copy"]
    assert (new.shard_id, new.epoch) == (old.shard_id, 2)
    assert not finish(plant, old, artifacts=[artifact(old, "0.png")])
    assert not fail(plant, old)
    assert not cut(plant, old)
    assert plant.shard(old.shard_id).fenced_n == 3
    assert plant.sql("SELECT * FROM artifacts") == []
    assert states(plant, job_id)["left"] == "queued"

    assert finish(plant, new, "w2", artifacts=[artifact(new, "0.png")])
    (row,) = plant.sql("SELECT * FROM artifacts")
    assert (row.id, row.step, row.storage_key) == (
        "art_copy",
        "copy",
        f"a/{new.shard_id}/e2/0.png",
    )
    assert not finish(plant, old)
    assert plant.job(job_id).rows_completed == 1


def test_siblings_that_end_at_once_unblock_the_next_one_once(plant: Plant) -> None:
    shape = {f"s{n}": () for n in range(24)} | {"all": [f"s{n}" for n in range(24)]}
    job_id = submit(plant, shape)
    claims = [*take(plant, "w1").values()]
    assert len(claims) == 24
    begin = threading.Barrier(8)

    def work(part: int) -> None:
        begin.wait(30)
        for claim in claims[part::8]:
            assert finish(plant, claim, "w1")

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    assert plant.job(job_id).rows_completed == 24
    assert plant.shards(job_id)[-1].blocked_n == 0
    assert finish(plant, take(plant)["all"])
    assert plant.job(job_id).state == "succeeded"


# --- failures ----------------------------------------------------------------------------------


def test_the_first_step_that_fails_fails_the_job_and_the_waiting_ones_end(plant: Plant) -> None:
    job_id = submit(plant)
    finish(plant, take(plant)["copy"])
    sides = take(plant)
    assert fail(plant, sides["left"])
    assert fail(plant, sides["left"])  # the answer was lost
    job = plant.job(job_id)
    assert (job.state, job.error_code) == ("failed", "step_failed")
    assert job.error_message == "step 'left': too long"
    assert plant.events(job_id) == ["campaign.failed"]
    assert states(plant, job_id) == {
        "copy": "succeeded",
        "left": "failed",
        "right": "running",
        "all": "cancelled",
    }
    assert watched(plant) == {sides["right"].shard_id: StopReason.CANCELLED}
    assert cut(plant, sides["right"])
    assert states(plant, job_id)["right"] == "cancelled"
    assert plant.events(job_id) == ["campaign.failed"]


def test_a_sibling_that_ends_after_the_failure_changes_nothing_but_is_kept(plant: Plant) -> None:
    job_id = submit(plant, FORK)
    claims = take(plant)
    fail(plant, claims["one"])
    before = plant.job(job_id)
    assert finish(plant, claims["two"], artifacts=[artifact(claims["two"], "0.png")])
    assert fail(plant, claims["three"])
    after = plant.job(job_id)
    assert (after.state, after.error_message) == (before.state, before.error_message)
    assert (after.rows_completed, after.rows_failed, after.shards_open) == (1, 2, 0)
    assert plant.events(job_id) == ["campaign.failed"]
    assert len(plant.sql("SELECT 1 FROM artifacts")) == 1
    assert take(plant) == {}


def test_ready_siblings_of_a_failed_step_are_not_run(plant: Plant) -> None:
    job_id = submit(plant, FORK)
    (one,) = plant.claim(max_shards=1)
    assert fail(plant, one)
    assert list(states(plant, job_id).values()) == ["failed", *["cancelled"] * 3]
    assert take(plant) == {}


def test_a_waiting_step_that_was_locked_when_its_graph_failed_ends_later(plant: Plant) -> None:
    job_id = submit(plant, FORK)
    claims = plant.claim(max_shards=2)
    with plant.engine.begin() as dispatcher:
        dispatcher.exec_driver_sql("SELECT 1 FROM shards WHERE state = 'ready' FOR UPDATE")
        assert fail(plant, claims[0])
    assert states(plant, job_id)["three"] == "ready"
    assert plant.sweep() == 1
    assert plant.sweep() == 0
    assert states(plant, job_id)["three"] == "cancelled"
    # Claimed instead, it is told to stop.
    other = submit(plant, FORK)
    claims = plant.claim(max_shards=1)
    with plant.engine.begin() as dispatcher:
        dispatcher.exec_driver_sql("SELECT 1 FROM shards WHERE state = 'ready' FOR UPDATE")
        assert fail(plant, claims[0])
    late = {claim.step: claim for claim in plant.claim()}
    assert all(watched(plant)[claim.shard_id] == "cancelled" for claim in late.values())
    assert plant.job(other).state == "failed"
    assert plant.release("w1", late["two"].held, ReleaseReason.PREEMPTED) == ShardState.CANCELLED
    assert cut(plant, late["three"])
    assert plant.events(other) == ["campaign.failed"]


@pytest.mark.parametrize(
    ("reason", "budget", "code"),
    [
        (ReleaseReason.ERROR, MAX_ERRORS, "not_found"),
        (ReleaseReason.CRASHED, MAX_CRASHES, "engine_crashed"),
    ],
)
def test_a_budget_that_is_spent_fails_the_graph(
    plant: Plant, reason: ReleaseReason, budget: int, code: str
) -> None:
    job_id = submit(plant)
    for _ in range(budget):
        assert plant.job(job_id).state in {"queued", "running"}
        copy = take(plant)["copy"]
        plant.release("w1", copy.held, reason, code=code, message="why")
    job = plant.job(job_id)
    assert (job.state, job.error_code, job.error_message) == (
        "failed",
        "step_failed",
        "step 'copy': why",
    )
    assert job.rows_failed == 1
    assert plant.shards(job_id)[0].error_code == code
    assert set(states(plant, job_id).values()) == {"failed", "cancelled"}


def test_workers_that_vanish_fail_the_graph_at_last(plant: Plant) -> None:
    job_id = submit(plant)
    for loss in range(MAX_LOSSES):
        session = plant.session(f"lost{loss}", pools=POOLS)
        assert "copy" in take(plant, session)
        plant.lose(session)
    job = plant.job(job_id)
    assert (job.state, job.error_code) == ("failed", "step_failed")
    assert job.error_message.startswith("step 'copy': the worker vanished")
    assert take(plant) == {}


def test_a_step_given_back_runs_again_without_blame(plant: Plant) -> None:
    job_id = submit(plant)
    copy = take(plant)["copy"]
    assert plant.release("w1", copy.held, ReleaseReason.PREEMPTED) == ShardState.READY
    assert plant.job(job_id).state == "running"
    again = take(plant)["copy"]
    assert again.epoch == 2
    assert finish(plant, again)
    assert plant.job(job_id).rows_completed == 1


def test_an_end_of_the_last_step_ends_what_nothing_waited_for(plant: Plant) -> None:
    """A last step need not need all the others."""
    job_id = submit(plant, {"aside": (), "slow": ("aside",), "main": (), "all": ("main",)})
    claims = take(plant)
    finish(plant, claims["main"])
    assert finish(plant, take(plant)["all"])
    assert plant.job(job_id).state == "succeeded"
    assert states(plant, job_id)["slow"] == "cancelled"
    assert watched(plant) == {claims["aside"].shard_id: StopReason.CANCELLED}
    assert fail(plant, claims["aside"])
    assert plant.job(job_id).state == "succeeded"
    assert plant.events(job_id) == ["campaign.completed"]


# --- stopping ----------------------------------------------------------------------------------


def test_cancelling_before_anything_ran_ends_the_job_at_once(plant: Plant) -> None:
    job_id = submit(plant)
    assert plant.stop(job_id)
    assert not plant.stop(job_id)
    job = plant.job(job_id)
    assert (job.state, job.shards_open, job.rows_failed) == ("cancelled", 0, 0)
    assert set(states(plant, job_id).values()) == {"cancelled"}
    assert plant.events(job_id) == ["campaign.cancelled"]


def test_cancelling_mid_graph_keeps_what_is_done_and_waits_for_what_runs(plant: Plant) -> None:
    job_id = submit(plant)
    finish(plant, take(plant)["copy"])
    sides = take(plant)
    assert plant.stop(job_id)
    assert plant.job(job_id).state == "running"
    assert states(plant, job_id)["all"] == "cancelled"
    assert set(watched(plant).values()) == {StopReason.CANCELLED}
    assert cut(plant, sides["left"])
    assert plant.job(job_id).state == "running"
    assert finish(plant, sides["right"])  # it was faster than the stop
    job = plant.job(job_id)
    assert (job.state, job.shards_open, job.rows_completed) == ("cancelled", 0, 2)
    assert states(plant, job_id)["copy"] == "succeeded"
    assert plant.events(job_id) == ["campaign.cancelled"]
    assert take(plant) == {}


def test_the_last_step_that_beats_the_stop_wins(plant: Plant) -> None:
    job_id = submit(plant, {"only": ()})
    only = take(plant)["only"]
    assert plant.stop(job_id)
    assert finish(plant, only)
    assert plant.job(job_id).state == "succeeded"


def test_a_deadline_stops_a_graph_as_a_whole(plant: Plant) -> None:
    job_id = submit(plant, expires_in=-1)
    other = submit(plant, expires_in=3_600)
    assert plant.expire_overdue() == 1
    assert plant.job(job_id).state == "expired"
    assert plant.events(job_id) == ["campaign.expired"]
    assert plant.job(other).state == "queued"


@pytest.mark.parametrize("end", ["release", "lose"])
def test_a_running_step_that_comes_back_to_a_stopped_graph_ends(plant: Plant, end: str) -> None:
    job_id = submit(plant)
    copy = take(plant)["copy"]
    plant.stop(job_id)
    if end == "lose":
        plant.lose("w1")
    else:
        plant.release("w1", copy.held, ReleaseReason.PREEMPTED)
    assert plant.job(job_id).state == "cancelled"
    assert set(states(plant, job_id).values()) == {"cancelled"}
    assert plant.events(job_id) == ["campaign.cancelled"]


def test_the_sweep_finds_steps_that_the_stop_had_to_skip(plant: Plant) -> None:
    job_id = submit(plant)
    with plant.engine.begin() as dispatcher:
        dispatcher.exec_driver_sql("SELECT 1 FROM shards WHERE state = 'ready' FOR UPDATE")
        assert plant.stop(job_id)
        assert plant.job(job_id).state == "queued"
    assert plant.sweep() == 1
    assert plant.job(job_id).state == "cancelled"


def test_finish_fail_stop_and_loss_at_once_leave_one_outcome(plant: Plant) -> None:
    """Real threads, all orders that come: never a deadlock, never two ends, nothing left open."""
    jobs = [submit(plant, FORK) for _ in range(12)]
    claims: dict[str, list[object]] = {}
    while len(claims) < 12:
        dispatch(plant)
        for claim in plant.claim("w1"):
            claims.setdefault(claim.job_id, []).append(claim)
    begin = threading.Barrier(4)

    def run(call: str) -> None:
        begin.wait(30)
        for job_id in jobs:
            one, two, three = claims[job_id]
            match call:
                case "finish":
                    finish(plant, one)  # type: ignore[arg-type]
                case "fail":
                    fail(plant, two)  # type: ignore[arg-type]
                case "stop":
                    plant.stop(job_id)
                case "release":
                    plant.release("w1", three.held, ReleaseReason.PREEMPTED)  # type: ignore[attr-defined]

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(run, ["finish", "fail", "stop", "release"]))
    plant.sweep()
    for job_id in jobs:
        job = plant.job(job_id)
        assert job.state in {"failed", "cancelled"}
        assert job.shards_open == 0
        assert len(plant.events(job_id)) == 1
        assert set(states(plant, job_id).values()) <= {"succeeded", "failed", "cancelled"}
