"""How batches end when rows misbehave, tenants change their minds, or workers leave."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from tests.plant import SLOW, Plant, chat_row, plant, wait_until

QUICK_TO_JUDGE = {"IDLE_ENGINE_SECONDS": "2"}


@pytest.fixture
def running(tmp_path: Path, database_url: str, broker_url: str) -> Iterator[Plant]:
    with plant(tmp_path / "plant", database_url, broker_url, settings=QUICK_TO_JUDGE) as made:
        yield made.start()


def test_ten_thousand_rows(running: Plant) -> None:
    batch_id = running.submit_batch([chat_row(n, f"row {n}") for n in range(10_000)])

    batch = running.wait_batch(batch_id)

    results = running.results(batch)
    assert batch.status == "completed"
    assert set(results) == {f"row-{n}" for n in range(10_000)}
    assert batch.request_counts is not None
    counts = batch.request_counts
    assert (counts.total, counts.completed, counts.failed) == (10_000, 10_000, 0)
    assert batch.usage is not None
    assert batch.usage.output_tokens == sum(
        row["response"]["body"]["usage"]["completion_tokens"] for row in results.values()
    )
    assert running.scalar("SELECT count(*) FROM shards WHERE job_id = :id", id=batch_id) < 100


@pytest.mark.parametrize(
    ("directive", "code"), [("[[crash]]", "engine_crashed"), ("[[hang]]", "engine_hung")]
)
def test_a_poison_row_fails_alone(running: Plant, directive: str, code: str) -> None:
    """31 good rows succeed beside it, and at most four engines are lost to it."""
    rows = [chat_row(n, directive if n == 17 else "hello") for n in range(32)]

    batch = running.wait_batch(running.submit_batch(rows))

    results = running.results(batch)
    assert batch.status == "completed"
    assert set(results) == {f"row-{n}" for n in range(32)}
    assert results["row-17"]["error"]["code"] == code
    assert all(row["error"] is None for name, row in results.items() if name != "row-17")
    assert running.processes["worker-0"].log().count('"event": "engine_lost"') <= 4


def test_a_poison_job_fails_with_a_code(running: Plant) -> None:
    with running.http() as http:
        body = {"model": "fake", "messages": [{"role": "user", "content": "[[crash]]"}]}
        job = http.post("/v1/jobs", json={"endpoint": "/v1/chat/completions", "body": body}).json()
        wait_until(lambda: http.get(f"/v1/jobs/{job['id']}").json()["state"] == "failed", 30)
        assert http.get(f"/v1/jobs/{job['id']}").json()["error"]["code"] == "engine_crashed"


def test_a_failed_row_never_fails_the_batch(running: Plant) -> None:
    rows = [chat_row(0), chat_row(1, "[[error 400 too_rude]]")]

    batch = running.wait_batch(running.submit_batch(rows))

    results = running.results(batch)
    assert batch.status == "completed"
    assert batch.request_counts is not None
    assert (batch.request_counts.completed, batch.request_counts.failed) == (1, 1)
    assert results["row-1"]["response"]["status_code"] == 400
    assert results["row-1"]["response"]["body"]["error"]["code"] == "too_rude"
    with running.http() as http:
        job = http.get(f"/v1/jobs/{batch.id}").json()
    assert (job["state"], job["succeeded"], job["failed"]) == ("succeeded", 1, 1)
    assert job["error_counts"] == {"too_rude": 1}


@pytest.mark.parametrize("stop", ["cancelled", "expired"])
def test_stopping_keeps_finished_rows_and_explains_the_rest(running: Plant, stop: str) -> None:
    rows = [chat_row(n, model="fake-slow") for n in range(2_000)]
    batch_id = running.submit_batch(rows)
    running.wait_progress(batch_id, 200)
    if stop == "cancelled":
        answer = running.client().batches.cancel(batch_id)
        assert answer.status in {"cancelling", "cancelled"}
    else:
        _let_it_expire(running, batch_id)

    batch = running.wait_batch(batch_id)

    results = running.results(batch)
    assert batch.status == stop
    assert set(results) == {f"row-{n}" for n in range(2_000)}
    codes = Counter(row["error"] and row["error"]["code"] for row in results.values())
    assert codes[None] >= 200
    assert codes[f"batch_{stop}"] == 2_000 - codes[None] > 0
    assert batch.request_counts is not None
    assert batch.request_counts.completed == codes[None]
    assert (
        running.scalar("SELECT sum(rows) FROM usage WHERE job_id = :id", id=batch_id)
        == (codes[None])
    )


def test_every_bad_line_is_reported_with_its_number(running: Plant) -> None:
    good = chat_row(0)
    rows = [
        good,
        {**chat_row(1), "method": "GET"},
        {**chat_row(2), "url": "/v1/embeddings"},
        chat_row(3, model="no-such-model"),
        {**chat_row(4), "body": {"model": "fake"}},
        good,
        {**chat_row(6), "body": chat_row(6)["body"] | {"top_k": 5}},
    ]

    batch = running.wait_batch(running.submit_batch(rows))

    assert batch.status == "failed"
    assert batch.output_file_id is None
    assert batch.errors is not None
    assert [(error.line, error.code) for error in batch.errors.data or []] == [
        (2, "invalid_request"),
        (3, "url_mismatch"),
        (4, "model_not_found"),
        (5, "invalid_request"),
        (6, "duplicate_custom_id"),
        (7, "unsupported_parameter"),
    ]


def test_a_worker_told_to_leave_gives_its_rows_back(running: Plant) -> None:
    """SIGTERM: it claims nothing more, is gone in time, and the rows run elsewhere."""
    batch_id = running.submit_batch([chat_row(n, "[[delay 60]]") for n in range(10)])
    held = "SELECT count(*) FROM shards WHERE state = 'running' AND stage = 'generate'"
    wait_until(lambda: running.scalar(held) == 1, 60)
    leaving = running.processes["worker-0"]
    began = time.monotonic()
    os.kill(leaving.pid, signal.SIGTERM)
    wait_until(lambda: not leaving.guard.running, 35, leaving.log)
    assert time.monotonic() - began <= 30
    row = "SELECT state || ' ' || preempt_n || ' ' || error_n + crash_n + lost_n FROM shards" + (
        " WHERE job_id = :id AND stage = 'generate'"
    )
    assert running.scalar(row, id=batch_id) == "ready 1 0"


def test_without_a_broker_work_is_found_by_polling(tmp_path: Path, database_url: str) -> None:
    """A broker that is down from the start delays a job by no more than a poll."""
    nobody = "amqp://guest:guest@127.0.0.1:9//"
    with plant(tmp_path / "plant", database_url, nobody, models=(SLOW,)) as made:
        made.start()
        with made.http() as http:
            body = {"model": "fake-slow", "messages": [{"role": "user", "content": "hello"}]}
            job = http.post(
                "/v1/jobs", json={"endpoint": "/v1/chat/completions", "body": body}
            ).json()
            answer = http.get(f"/v1/jobs/{job['id']}", params={"wait": 20}).json()
            assert answer["state"] == "succeeded"
            assert answer["timings"]["queued_seconds"] < 6


def _let_it_expire(running: Plant, batch_id: str) -> None:
    with running.engine.begin() as connection:
        connection.execute(
            text("UPDATE jobs SET expires_at = clock_timestamp() WHERE id = :id"), {"id": batch_id}
        )
