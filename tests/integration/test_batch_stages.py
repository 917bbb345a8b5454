"""A batch's way through its stages: validated or rejected, generated, assembled."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from shared.db.shards import PAGE, slices_of
from shared.ids import new_file_id
from shared.lifecycle import BadLine, working
from shared.lifecycle.settle import MAX_ERRORS
from shared.lifecycle.working import ReleaseReason
from shared.states import JobState, ShardState
from shared.storage.base import StoredObject
from tests.integration.protocol import Plant, slice_end


@pytest.fixture
def plant(database_url: str) -> Iterator[Plant]:
    plant = Plant(database_url)
    yield plant
    plant.close()


def test_a_batch_from_submission_to_its_files(plant: Plant) -> None:
    job_id = plant.batch()
    plant.session()
    claim = plant.claim_one()
    assert (claim.kind, claim.stage, claim.pool) == ("batch", "validate", "upkeep")
    assert claim.input_key is not None
    assert plant.finish_validation("w1", claim.held, slices=3, rows=2)
    assert plant.finish_validation("w1", claim.held, slices=3, rows=2)  # the answer was lost
    job = plant.job(job_id)
    assert (job.state, job.stage, job.shards_open, job.rows_total) == ("running", "generate", 3, 6)

    assert plant.claim() == []  # outside the window until a dispatcher comes by
    assert plant.dispatch() == 3
    first, second, third = plant.claim()
    assert [c.ordinal for c in (first, second, third)] == [0, 1, 2]
    assert (second.byte_start, second.byte_end, second.first_line, second.row_count) == (
        100,
        200,
        3,
        2,
    )
    assert plant.finish_slice("w1", first)
    assert plant.finish_slice("w1", first)
    assert not plant.finish_slice("w1", first, sha256="d" * 64)
    assert plant.finish_slice("w1", second, completed=1)
    assert plant.job(job_id).stage == "generate"
    assert plant.finish_slice("w1", third)
    job = plant.job(job_id)
    assert (job.stage, job.shards_open, job.rows_completed, job.rows_failed) == (
        "assemble",
        1,
        5,
        1,
    )

    last = plant.claim_one()
    assert plant.finish_assembly("w1", last.held)
    job = plant.job(job_id)
    assert (job.state, job.shards_open) == (JobState.SUCCEEDED, 0)
    assert (job.input_tokens, job.output_tokens) == (15, 25)
    assert sorted(plant.usage(job_id)) == [(1, 1, 3, 5), (1, 2, 6, 10), (1, 2, 6, 10)]
    assert plant.events(job_id) == ["batch.in_progress", "batch.finalizing", "batch.completed"]
    file = plant.sql("SELECT * FROM files WHERE id = :id", id=job.output_file_id)[0]
    assert (file.purpose, file.bytes, file.tenant_id) == ("batch_output", 10, job.tenant_id)
    assert file.expires_at is not None


def test_only_the_very_same_end_is_accepted_again(plant: Plant) -> None:
    """Of the same attempt: other bytes in either file are another end, and are refused."""
    plant.generating(slices=1)
    plant.session()
    claim = plant.claim_one()
    end = replace(slice_end(claim), errors=StoredObject("errors", "c" * 64, 5))
    other_errors = replace(end, errors=StoredObject("errors", "d" * 64, 5))
    accepted = []
    for each in (end, end, other_errors, replace(end, errors=None), end):
        with plant.engine.begin() as connection:
            accepted.append(working.finish_slice(connection, "w1", each))
    assert accepted == [True, True, False, False, True]
    assert plant.shard(claim.shard_id).fenced_n == 2

    claim = plant.claim_one()
    assert claim.stage == "assemble"
    assert plant.finish_assembly("w1", claim.held)
    with plant.engine.begin() as connection:
        other = working.NewFile(new_file_id(), "out.jsonl", StoredObject("o", "e" * 64, 10))
        assert not working.finish_assembly(
            connection, "w1", claim.held, output=other, errors=None,
            rows_completed=1, rows_failed=0, keep_seconds=None,
        )  # fmt: skip
    assert plant.shard(claim.shard_id).fenced_n == 1
    assert plant.scalar("SELECT count(*) FROM files WHERE purpose = 'batch_output'") == 1


def test_a_rejected_batch_fails_with_its_bad_lines(plant: Plant) -> None:
    job_id = plant.batch()
    claim = plant.claim_one(plant.session())
    errors = [
        BadLine("invalid_json_line", "no JSON \x00 \ud800", 3),
        BadLine("empty_file", "empty"),
    ]
    for _ in range(2):  # the answer to the first one was lost
        with plant.engine.begin() as connection:
            assert working.reject_batch(
                connection, "w1", claim.held, errors=errors, bad_lines=2_000
            )
    job = plant.job(job_id)
    assert (job.state, job.error_code, job.shards_open) == ("failed", "invalid_input_file", 0)
    assert "2000 bad lines" in job.error_message
    assert [error["line"] for error in job.errors] == [3, None]
    assert plant.events(job_id) == ["batch.failed"]


def test_a_slice_that_fails_leaves_the_batch_to_complete(plant: Plant) -> None:
    job_id = plant.generating(slices=2)
    plant.session()
    good, bad = plant.claim()
    assert plant.finish_slice("w1", good)
    for _ in range(MAX_ERRORS - 1):
        plant.release("w1", bad.held, ReleaseReason.ERROR, code="not_found", message="no file")
        bad = plant.claim_one(pools=["text"])
    state = plant.release("w1", bad.held, ReleaseReason.ERROR, code="not_found", message="no file")
    assert state == ShardState.FAILED
    assert plant.job(job_id).stage == "assemble"
    with plant.connection() as connection:
        done, failed = list(slices_of(connection, job_id))
    assert (done.state, done.has_results) == ("succeeded", True)
    assert (failed.state, failed.has_results) == ("failed", False)
    assert (failed.error_code, failed.error_message) == ("not_found", "no file")
    assert plant.finish_assembly("w1", plant.claim_one().held)
    assert plant.job(job_id).state == JobState.SUCCEEDED


def test_a_slice_whose_workers_vanish_leaves_the_batch_to_complete(plant: Plant) -> None:
    job_id = plant.generating(slices=1)
    for loss in range(5):
        plant.claim_one(plant.session(f"lost{loss}"), pools=["text"])
        plant.lose(f"lost{loss}")
    assert plant.job(job_id).stage == "assemble"
    plant.session()
    assert plant.claim_one().stage == "assemble"


@pytest.mark.parametrize("stage", ["validate", "assemble"])
def test_a_batch_fails_when_its_own_stage_does(plant: Plant, stage: str) -> None:
    plant.session()
    if stage == "validate":
        job_id = plant.batch()
    else:
        job_id = plant.generating(slices=1)
        plant.finish_slice("w1", plant.claim_one(pools=["text"]))
    for _ in range(MAX_ERRORS):
        claim = plant.claim_one(pools=["upkeep"])
        assert claim.stage == stage
        plant.release(
            "w1", claim.held, ReleaseReason.ERROR, code="storage_unavailable", message="s"
        )
    job = plant.job(job_id)
    assert (job.state, job.error_code) == (JobState.FAILED, "storage_unavailable")
    assert plant.events(job_id)[-1] == "batch.failed"


def test_slices_that_end_at_once_open_one_assembly(plant: Plant) -> None:
    job_id = plant.generating(slices=24)
    plant.session()
    claims = plant.claim()
    begin = threading.Barrier(8)

    def finish(part: int) -> None:
        begin.wait(30)
        for claim in claims[part::8]:
            assert plant.finish_slice("w1", claim)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(finish, range(8)))
    job = plant.job(job_id)
    assert (job.stage, job.shards_open, job.rows_completed) == ("assemble", 1, 48)
    assert plant.events(job_id).count("batch.finalizing") == 1
    assert len(plant.claim()) == 1


def test_the_slices_of_a_large_batch_are_read_by_the_page_in_order(plant: Plant) -> None:
    job_id = plant.generating(slices=2 * PAGE)
    with plant.connection() as connection:
        assert [part.ordinal for part in slices_of(connection, job_id)] == list(range(2 * PAGE))
