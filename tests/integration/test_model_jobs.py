"""Evaluations and optimisations and their worker: real process trees, Postgres and store, fake
models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.db import retention
from shared.db.models import needed_by
from shared.ids import new_id
from shared.lifecycle import working
from shared.lifecycle.settle import MAX_CRASHES
from shared.lifecycle.working import EvaluationEnd, ModelMeasured
from shared.states import JobState, ShardState
from tests.integration.model_job_hall import OTHER, ModelHall
from tests.integration.protocol import TENANT
from tests.integration.training_case import BASE, Worker, rows


@pytest.fixture
def hall(database_url: str, tmp_path: Path) -> Iterator[ModelHall]:
    hall = ModelHall(database_url, tmp_path / "a hall")
    hall.offer(OTHER)
    yield hall
    hall.close()


def assert_nothing_left(worker: Worker) -> None:
    assert worker.processes() == []
    assert list(worker.folder.iterdir()) == []


# --- evaluations ------------------------------------------------------------------------------


def test_models_are_measured(hall: ModelHall) -> None:
    commands = f"[[value {BASE} 0.5]] [[value {OTHER} 0.75]]"
    job_id = hall.evaluation(
        commands, models=[BASE, OTHER], metric="token_accuracy", max_examples=2
    )
    worker = hall.worker()
    worker.run()

    job = hall.plant.job(job_id)
    assert (job.state, job.progress) == (JobState.SUCCEEDED, 1.0)
    result = job.result
    assert (result["metric"], result["direction"], result["best"]) == (
        "token_accuracy",
        "max",
        OTHER,
    )
    assert [item["value"] for item in result["models"]] == [0.5, 0.75]
    assert [item["examples"] for item in result["models"]] == [2, 2]
    assert set(result["models"][0]["values"]) >= {"loss", "bleu"}
    used = hall.plant.sql(
        "SELECT model, rows FROM usage WHERE job_id = :id ORDER BY model", id=job_id
    )
    assert [tuple(row) for row in used] == [(BASE, 2), (OTHER, 2)]
    events = [
        row.type
        for row in hall.plant.sql(
            "SELECT type FROM events WHERE job_id = :id ORDER BY id", id=job_id
        )
    ]
    assert events == ["evaluation.started", "evaluation.succeeded"]
    assert_nothing_left(worker)


def test_less_is_better_where_it_is_asked_for(hall: ModelHall) -> None:
    commands = f"[[value {BASE} 0.5]] [[value {OTHER} 0.75]]"
    job_id = hall.evaluation(
        commands, models=[OTHER, BASE], metric="token_accuracy", direction="min"
    )
    hall.worker().run()
    assert hall.plant.job(job_id).result["best"] == BASE


def test_every_bad_line_is_named(hall: ModelHall) -> None:
    data = rows(2) + b'{"messages": 1}\n' + rows(1) + b"no JSON\n"
    job_id = hall.evaluation(file=hall.examples(data=data), max_examples=1)
    hall.worker().run()
    job = hall.plant.job(job_id)
    assert (job.state, job.error_code, job.error_param) == (
        JobState.FAILED,
        "invalid_evaluation_file",
        "file",
    )
    assert [line["line"] for line in job.errors] == [3, 5]


@pytest.mark.parametrize("gone", ["file", "model"])
def test_what_is_gone_fails_the_job_and_is_named(hall: ModelHall, gone: str) -> None:
    job_id = hall.evaluation()
    if gone == "file":
        hall.plant.sql("UPDATE files SET deleted_at = clock_timestamp()")
    else:
        hall.plant.sql("DELETE FROM models")
    hall.worker().run()
    job = hall.plant.job(job_id)
    assert (job.state, job.error_code, job.error_param) == (
        JobState.FAILED,
        "not_found" if gone == "file" else "model_not_found",
        "file" if gone == "file" else "models",
    )


def test_an_accepted_job_outlives_the_time_of_its_file(hall: ModelHall) -> None:
    job_id = hall.evaluation()
    hall.plant.sql("UPDATE files SET expires_at = clock_timestamp()")
    hall.worker().run()
    job = hall.plant.job(job_id)
    assert (job.state, job.error_message) == (JobState.SUCCEEDED, None)


def test_a_killed_evaluation_starts_over(hall: ModelHall) -> None:
    job_id = hall.evaluation("[[wait 1]]")
    worker = hall.worker()
    worker.begin()
    hall.wait_running(job_id)
    for process in worker.processes():
        process.kill()
    worker.wait()
    assert hall.shard(job_id).state == ShardState.READY
    worker.begin()
    hall.wait_running(job_id)
    hall.let_go()
    worker.wait()
    assert hall.plant.job(job_id).state == JobState.SUCCEEDED
    assert hall.shard(job_id).epoch == 2
    assert_nothing_left(worker)


def test_an_evaluation_that_crashes_each_time_fails(hall: ModelHall) -> None:
    job_id = hall.evaluation("[[crash 1]]")
    worker = hall.worker()
    for _ in range(MAX_CRASHES):
        worker.run()
    job = hall.plant.job(job_id)
    assert (job.state, job.error_code) == (JobState.FAILED, "training_crashed")
    assert_nothing_left(worker)


@pytest.mark.parametrize("kind", ["evaluation", "optimization"])
def test_cancelling_ends_it_at_once(hall: ModelHall, kind: str) -> None:
    job_id = (
        hall.evaluation("[[wait 1]]") if kind == "evaluation" else hall.optimization("[[wait 1]]")
    )
    worker = hall.worker()
    worker.begin()
    hall.wait_running(job_id)
    assert hall.plant.stop(job_id)
    worker.wait()
    assert hall.plant.job(job_id).state == JobState.CANCELLED
    assert_nothing_left(worker)
    assert hall.objects("/m/") == []


def test_it_is_never_paused(hall: ModelHall) -> None:
    job_id = hall.evaluation()
    assert not hall.pause(job_id)
    hall.worker().run()
    assert hall.plant.job(job_id).state == JobState.SUCCEEDED


def test_a_worker_that_drains_gives_it_back(hall: ModelHall) -> None:
    job_id = hall.evaluation("[[wait 1]]")
    worker = hall.worker()
    worker.begin()
    hall.wait_running(job_id)
    worker.desk.drain()
    worker.wait()
    shard = hall.shard(job_id)
    assert (shard.state, shard.preempt_n, shard.error_n) == (ShardState.READY, 1, 0)
    assert hall.plant.job(job_id).state == JobState.QUEUED


def test_a_zombie_s_numbers_are_refused(hall: ModelHall) -> None:
    job_id = hall.evaluation()
    hall.plant.session("late", pools=["train"])
    hall.plant.dispatch("train")
    claim = hall.plant.claim_one("late", pools=["train"])
    end = EvaluationEnd(measured=[ModelMeasured(model=BASE, values={"loss": 1.0})])
    hall.plant.sql("UPDATE shards SET epoch = epoch + 1 WHERE id = :id", id=claim.shard_id)
    with hall.plant.engine.begin() as connection:
        assert not working.finish_evaluation(connection, "late", claim.held, end)
    assert hall.plant.job(job_id).state == JobState.RUNNING
    assert hall.shard(job_id).fenced_n == 1


def test_the_same_numbers_may_be_told_twice(hall: ModelHall) -> None:
    job_id = hall.evaluation()
    hall.plant.session("sure", pools=["train"])
    hall.plant.dispatch("train")
    claim = hall.plant.claim_one("sure", pools=["train"])
    end = EvaluationEnd(measured=[ModelMeasured(model=BASE, values={"loss": None})])
    for _ in range(2):
        with hall.plant.engine.begin() as connection:
            assert working.finish_evaluation(connection, "sure", claim.held, end)
    result = hall.plant.job(job_id).result
    assert (result["best"], result["models"][0]["value"]) == (None, None)


# --- optimisations ----------------------------------------------------------------------------


def test_a_smaller_model_is_offered(hall: ModelHall) -> None:
    job_id = hall.optimization("[[after 0.0]]")
    worker = hall.worker()
    worker.run()
    job = hall.plant.job(job_id)
    assert job.state == JobState.SUCCEEDED, job.error_message
    name = f"ft:{BASE}:{TENANT}:int8:{job_id[-8:]}"
    assert (job.result["model"], job.result["made_of"]) == (name, BASE)
    assert job.result["costs"]["disk_bytes"] == {"before": 200, "after": 100}
    (model,) = hall.plant.sql("SELECT * FROM models WHERE id = :id", id=name)
    assert (model.tenant_id, model.engine, model.adapter) == (TENANT, "fake", False)
    assert (model.job_id, model.owned_by, model.base_model) == (job_id, TENANT, BASE)
    assert model.detail["parents"] == [BASE]
    assert model.detail["optimization"] == {"type": "quantize", "scheme": "int8"}
    assert model.detail["metrics"]["after"]["loss"] == 0.0
    (file_id,) = job.result["result_files"]
    (report,) = hall.plant.sql("SELECT * FROM files WHERE id = :id", id=file_id)
    assert report.filename == f"{job_id}_report.md"
    assert_nothing_left(worker)


def test_a_model_that_is_too_much_worse_is_not_offered(hall: ModelHall) -> None:
    job_id = hall.optimization(f"[[value {BASE} 1.0]] [[after 1.03]]")
    worker = hall.worker()
    worker.run()
    job = hall.plant.job(job_id)
    assert (job.state, job.error_code) == (JobState.FAILED, "quality_dropped")
    assert "3.0% worse" in job.error_message
    assert job.result["model"] is None
    assert job.result["quality"]["loss"] == {"before": 1.0, "after": 1.03}
    assert len(job.result["result_files"]) == 1
    assert not hall.plant.sql("SELECT 1 FROM models WHERE job_id = :id", id=job_id)
    assert hall.objects("/m/") == []
    assert_nothing_left(worker)


def test_a_larger_drop_may_be_allowed(hall: ModelHall) -> None:
    job_id = hall.optimization(
        f"[[value {BASE} 1.0]] [[after 1.03]]", max_drop=0.05, suffix="small"
    )
    hall.worker().run()
    assert hall.plant.job(job_id).result["model"] == f"ft:{BASE}:{TENANT}:small:{job_id[-8:]}"


def test_it_is_compared_by_what_its_own_training_held_out(hall: ModelHall) -> None:
    worker = hall.worker()
    tuned = hall.job(suffix="soap")
    worker.run()
    source = hall.plant.job(tuned).result["fine_tuned_model"]
    job_id = hall.optimization(model=source, held_out=tuned)
    worker.run()
    job = hall.plant.job(job_id)
    assert job.state == JobState.SUCCEEDED, job.error_message
    assert job.result["data"]["held_out_of"] == tuned
    assert job.result["examples"] == 1  # a tenth of twelve
    assert job.result["model"] == f"ft:{BASE}:{TENANT}:soap-int8:{job_id[-8:]}"
    (model,) = hall.plant.sql("SELECT detail FROM models WHERE job_id = :id", id=job_id)
    assert model.detail["parents"] == [source, BASE]
    assert model.detail["recipe"] == "fake"


def test_what_a_job_reads_is_needed_until_its_end(hall: ModelHall) -> None:
    job_id = hall.evaluation(models=[BASE, OTHER])
    with hall.plant.engine.connect() as connection:
        assert needed_by(connection, TENANT, OTHER) == job_id
        assert needed_by(connection, new_id("ten_"), OTHER) is None
    hall.worker().run()
    with hall.plant.engine.connect() as connection:
        assert needed_by(connection, TENANT, OTHER) is None


def test_what_an_attempt_left_is_cleaned_and_the_model_stays(hall: ModelHall) -> None:
    job_id = hall.optimization("[[after 0.0]]")
    hall.worker().run()
    hall.plant.sql("UPDATE jobs SET ended_at = clock_timestamp() - interval '2 hours'")
    with hall.plant.engine.begin() as connection:
        retention.mark_spotless(connection)
        (job,) = [item for item in retention.uncleaned_jobs(connection) if item.job_id == job_id]
        keep = retention.keys_of_training(connection, job_id)
    assert job.is_training
    (model,) = hall.plant.sql("SELECT files FROM models WHERE job_id = :id", id=job_id)
    assert {file["key"] for file in model.files} < set(keep)
    assert len(keep) == len(model.files) + 1  # the report
