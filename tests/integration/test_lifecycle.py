"""Submitting, claiming and committing over a real Postgres, one claim about it at a time."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy.exc import IntegrityError

from shared import lifecycle
from shared.ids import new_job_id
from shared.lifecycle import Idempotency, working
from shared.lifecycle.working import GenerationEnd, Held, ReleaseReason
from shared.states import JobState, ShardState
from tests.integration.protocol import BODY, CHAT, TENANT, Plant, generation_end


@pytest.fixture
def plant(database_url: str) -> Iterator[Plant]:
    plant = Plant(database_url)
    yield plant
    plant.close()


# --- submitting and claiming ------------------------------------------------------------------


def test_a_submitted_job_is_ready_for_the_next_claim(plant: Plant) -> None:
    job_id = plant.generation()
    assert plant.job(job_id).state == JobState.QUEUED
    claim = plant.claim_one(plant.session())
    assert (claim.job_id, claim.tenant_id, claim.epoch) == (job_id, TENANT, 1)
    assert (claim.kind, claim.stage, claim.endpoint, claim.model) == (
        "generate",
        "generate",
        CHAT,
        "m",
    )
    assert json.loads(claim.spec) == BODY
    job = plant.job(job_id)
    assert job.state == JobState.RUNNING
    assert job.started_at is not None


def test_a_taken_idempotency_key_refuses_the_job_and_all_that_belongs_to_it(plant: Plant) -> None:
    def submit() -> None:
        with plant.engine.begin() as connection:
            lifecycle.submit_generation(
                connection,
                job_id=new_job_id(),
                tenant_id=TENANT,
                pool="text",
                endpoint=CHAT,
                model="m",
                body=BODY,
                window=5,
                idempotency=Idempotency(CHAT, "again", b"print"),
            )

    submit()
    with pytest.raises(IntegrityError):
        submit()
    assert plant.scalar("SELECT count(*) FROM jobs") == 1
    assert plant.scalar("SELECT count(*) FROM shards") == 1


def test_claims_go_by_priority_then_by_turn(plant: Plant) -> None:
    plant.session()
    late, first, second = (
        plant.generation(priority=1),
        plant.generation(priority=0),
        plant.generation(priority=0),
    )
    assert [claim.job_id for claim in plant.claim()] == [first, second, late]


def test_a_claim_stops_once_it_has_enough_rows(plant: Plant) -> None:
    plant.generating(slices=5, rows=10)
    plant.session()
    assert len(plant.claim(max_rows=25)) == 3  # 10 and 20 are under 25, 30 is not
    assert len(plant.claim(max_rows=1)) == 1
    assert plant.claim(max_rows=0) == []
    assert len(plant.claim(max_shards=9)) == 1


def test_other_pools_and_delayed_shards_are_left_alone(plant: Plant) -> None:
    plant.session()
    plant.generation(pool="image")
    assert plant.claim(pools=["text"]) == []
    claim = plant.claim_one(pools=["image"])
    plant.release("w1", claim.held, ReleaseReason.ERROR, code="x", delay_seconds=3_600)
    assert plant.claim(pools=["image"]) == []
    plant.sql("UPDATE shards SET not_before = clock_timestamp()")
    assert plant.claim_one(pools=["image"]).epoch == 2


@pytest.mark.parametrize("end", ["expired", "dead", "draining", "closed", "unknown"])
def test_a_session_that_is_no_longer_good_claims_nothing(plant: Plant, end: str) -> None:
    plant.session()
    job_id = plant.generation()
    if end in {"expired", "dead"}:
        plant.expire_session("w1")
    if end == "dead":
        assert plant.declare_dead("w1") == 1
    if end in {"draining", "closed"}:
        with plant.connection() as connection:
            call = working.drain_session if end == "draining" else working.close_session
            call(connection, "w1")
    assert plant.claim("w1" if end != "unknown" else "w0") == []
    (shard,) = plant.shards(job_id)
    assert (shard.state, shard.epoch) == (ShardState.READY, 0)
    assert plant.job(job_id).state == JobState.QUEUED
    plant.session("w2")
    assert plant.claim_one("w2").job_id == job_id


def test_twenty_claiming_threads_get_each_of_500_shards_once(plant: Plant) -> None:
    jobs = {plant.generation(window=1_000) for _ in range(500)}
    for number in range(20):
        plant.session(f"w{number}")
    begin = threading.Barrier(20)

    def take_all(session_id: str) -> list[tuple[int, str]]:
        begin.wait(30)
        taken: list[tuple[int, str]] = []
        while claims := plant.claim(session_id, max_shards=7):
            taken += [(claim.shard_id, claim.job_id) for claim in claims]
            assert all(claim.epoch == 1 for claim in claims)
        return taken

    with ThreadPoolExecutor(20) as threads:
        taken = [
            item for part in threads.map(take_all, map("w{}".format, range(20))) for item in part
        ]
        # A thread may have found nothing while others held what they did not take.
        taken += take_rest(plant)
    assert Counter(shard for shard, _ in taken).most_common(1)[0][1] == 1
    assert {job for _, job in taken} == jobs
    assert plant.scalar("SELECT count(*) FROM shards WHERE state = 'running' AND epoch = 1") == 500


def take_rest(plant: Plant) -> list[tuple[int, str]]:
    return [(claim.shard_id, claim.job_id) for claim in plant.claim("w0", max_shards=500)]


# --- commits ----------------------------------------------------------------------------------


def test_a_commit_ends_the_job_counts_usage_and_announces_it(plant: Plant) -> None:
    job_id = plant.generation()
    claim = plant.claim_one(plant.session())
    assert plant.finish("w1", claim.held, result='{"answer": 42}')
    job = plant.job(job_id)
    assert (job.state, job.result, job.shards_open) == (JobState.SUCCEEDED, {"answer": 42}, 0)
    assert (job.rows_completed, job.input_tokens, job.output_tokens) == (1, 3, 5)
    assert job.ended_at is not None
    assert plant.usage(job_id) == [(1, 1, 3, 5)]
    assert plant.events(job_id) == ["job.succeeded"]


def test_a_failed_row_fails_the_job_without_usage(plant: Plant) -> None:
    job_id = plant.generation()
    claim = plant.claim_one(plant.session())
    reason = {"error_code": "too_long", "error_message": "much", "error_param": "messages"}
    assert plant.finish("w1", claim.held, state=ShardState.FAILED, **reason)
    job = plant.job(job_id)
    assert (job.state, job.error_code, job.error_message, job.error_param) == (
        JobState.FAILED,
        "too_long",
        "much",
        "messages",
    )
    assert plant.usage(job_id) == []
    assert plant.events(job_id) == ["job.failed"]


def test_the_same_commit_again_is_accepted_and_another_one_refused(plant: Plant) -> None:
    job_id = plant.generation()
    claim = plant.claim_one(plant.session())
    assert plant.finish("w1", claim.held, "a" * 64)
    assert plant.finish("w1", claim.held, "a" * 64)
    assert plant.shard(claim.shard_id).fenced_n == 0
    assert not plant.finish("w1", claim.held, "b" * 64)
    assert plant.shard(claim.shard_id).fenced_n == 1
    assert plant.job(job_id).result == {"id": "a" * 64}
    assert plant.usage(job_id) == [(1, 1, 3, 5)]
    assert plant.events(job_id) == ["job.succeeded"]


def test_one_commit_of_many_accepts_the_good_and_refuses_the_rest(plant: Plant) -> None:
    plant.session()
    jobs = [plant.generation() for _ in range(4)]
    claims = plant.claim()
    before = claims[0]
    plant.finish("w1", before.held, "a" * 64)
    ends: list[GenerationEnd] = [
        generation_end(before.held, "a" * 64),
        generation_end(claims[1].held, "b" * 64),
        generation_end(Held(claims[2].shard_id, 7), "c" * 64),
        generation_end(claims[3].held, state=ShardState.CANCELLED),
    ]
    with plant.connection() as connection:
        accepted = working.finish_generations(connection, "w1", ends)
    assert accepted == {before.held, claims[1].held, claims[3].held}
    assert [plant.job(job).state for job in jobs] == [
        "succeeded", "succeeded", "running", "cancelled",
    ]  # fmt: skip
    assert plant.shard(claims[2].shard_id).fenced_n == 1


@pytest.mark.parametrize(
    "body", ['{"text": "\\u0000"}', '{"text": "\\ud800"}', '{"n": 1e999}', '{"text": "\u2028é"}']
)
def test_results_keep_what_json_allows(plant: Plant, body: str) -> None:
    job_id = plant.generation()
    claim = plant.claim_one(plant.session())
    assert plant.finish("w1", claim.held, result=body)
    assert plant.scalar("SELECT CAST(result AS text) FROM jobs WHERE id = :id", id=job_id) == body


def test_progress_counts_only_from_the_holder(plant: Plant) -> None:
    plant.generating(slices=1)
    plant.session()
    plant.session("w2")
    claim = plant.claim_one()
    for session_id, progress, expected in [("w1", (1, 0), (1, 0)), ("w2", (2, 0), (1, 0))]:
        with plant.connection() as connection:
            working.report_progress(connection, session_id, {claim.held: progress})
        shard = plant.shard(claim.shard_id)
        assert (shard.rows_completed, shard.rows_failed) == expected
