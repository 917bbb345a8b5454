"""A training and its worker: real process trees, real Postgres, a real store, the fake recipe."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pressrun.embedded_postgres_server import EmbeddedPostgres
from shared.db.models import Model
from shared.db.session import make_engine
from shared.errors import StorageFull, StorageUnavailable
from shared.lifecycle.settle import MAX_CRASHES
from shared.states import JobState, ShardState
from tests.integration.protocol import TENANT
from tests.integration.training_case import INTERVAL, PATIENCE_SECONDS, STEPS, Hall, Worker
from tests.plant import wait_until
from tests.services.tcp_proxy import TcpProxy
from worker.model_files import ModelFiles
from worker.tuning import preparing, training
from worker.tuning.messages import Failed
from worker.tuning.training import Training


@pytest.fixture
def hall(database_url: str, tmp_path: Path) -> Iterator[Hall]:
    hall = Hall(database_url, tmp_path / "a hall")
    yield hall
    hall.close()


def assert_nothing_left(worker: Worker) -> None:
    assert worker.processes() == []
    assert list(worker.folder.iterdir()) == []


# --- what a training leaves -------------------------------------------------------------------


def test_a_training_ends_with_a_model(hall: Hall) -> None:
    job_id = hall.job(suffix="soap")
    worker = hall.worker()
    worker.run()

    job = hall.plant.job(job_id)
    name = f"ft:fake:{TENANT}:soap:{job_id[-8:]}"
    assert (job.state, job.progress) == (JobState.SUCCEEDED, 1.0)
    assert job.result["fine_tuned_model"] == name
    assert job.result["trained_tokens"] > 0
    assert job.detail["training"]["hyperparameters"]["max_steps"] == STEPS

    model = hall.model(job_id)
    assert (model.tenant_id, model.engine, model.pool) == (TENANT, "fake", "text")
    assert (model.base_model, model.adapter) == ("fake", False)
    assert "/v1/chat/completions" in model.endpoints
    assert model.detail["parents"] == ["fake"]
    assert model.detail["data"]["training_file"]["bytes"] > 0
    for file in model.files:
        data = b"".join(hall.store.read(file["key"]))
        assert (len(data), hashlib.sha256(data).hexdigest()) == (file["bytes"], file["sha256"])

    (file_id,) = job.result["result_files"]
    (file,) = hall.plant.sql("SELECT * FROM files WHERE id = :id", id=file_id)
    assert file.filename == f"{job_id}_report.json"
    assert b"valid_loss" in b"".join(hall.store.read(file.storage_key))
    assert hall.plant.usage(job_id)[0][2] == job.result["trained_tokens"]
    assert_nothing_left(worker)


def test_a_training_outlives_the_time_of_its_files(hall: Hall) -> None:
    job_id = hall.job()
    hall.plant.sql("UPDATE files SET expires_at = clock_timestamp()")
    hall.worker().run()
    job = hall.plant.job(job_id)
    assert (job.state, job.error_message) == (JobState.SUCCEEDED, None)


def test_every_step_has_its_numbers(hall: Hall) -> None:
    job_id = hall.job()
    hall.worker().run()

    metrics = hall.metrics(job_id)
    assert list(metrics) == list(range(1, STEPS + 1))
    assert all("train_loss" in values for values in metrics.values())
    evaluated = [step for step, values in metrics.items() if "valid_loss" in values]
    assert evaluated == list(range(INTERVAL, STEPS + 1, INTERVAL))
    assert hall.notes(job_id) == ["11 examples, from step 0"]


def test_the_two_newest_checkpoints_and_the_best_are_kept(hall: Hall) -> None:
    job_id = hall.job("[[seconds 0.06]]", steps=30)
    hall.worker().run()

    losses = {
        step: values["valid_loss"]
        for step, values in hall.metrics(job_id).items()
        if "valid_loss" in values
    }
    best = min(losses, key=lambda step: losses[step])
    kept = {row.step for row in hall.checkpoints(job_id)}
    assert kept <= set(losses)
    assert 30 in kept
    assert len(kept - {best}) <= 2
    assert {row.step for row in hall.checkpoints(job_id) if row.best} <= {best}
    stored = {key.split("/c/")[1].split("/")[0] for key in hall.objects("/c/")}
    assert stored == {f"1-{step}" for step in kept}
    offered = hall.plant.sql(
        "SELECT id FROM models WHERE id LIKE :name AND deleted_at IS NULL", name="%:ckpt-step-%"
    )
    assert {int(row.id.rpartition("-")[2]) for row in offered} == kept


def test_ranks_of_a_training_end_together(hall: Hall) -> None:
    job_id = hall.job(processes=2)
    worker = hall.worker()
    worker.run()
    assert hall.plant.job(job_id).state == JobState.SUCCEEDED
    assert hall.plant.job(job_id).detail["training"]["processes"] == 2
    assert_nothing_left(worker)


# --- going on ---------------------------------------------------------------------------------


def test_a_training_goes_on_where_a_drained_worker_left_it(hall: Hall) -> None:
    quiet = hall.job("[[wait-once 13]]")
    alone = hall.worker("alone")
    alone.begin()
    hall.wait_step(quiet, 12)
    alone.go()
    alone.wait()

    job_id = hall.job("[[wait-once 13]]")
    first, second = hall.worker("first"), hall.worker("second")
    first.begin()
    hall.wait_step(job_id, 12)
    first.desk.drain()
    first.wait()
    shard = hall.shard(job_id)
    assert (shard.state, shard.preempt_n, shard.error_n) == (ShardState.READY, 1, 0)
    assert_nothing_left(first)

    second.run()
    assert hall.plant.job(job_id).state == JobState.SUCCEEDED
    assert hall.notes(job_id)[-1] == "11 examples, from step 13"
    assert hall.weights(job_id) == hall.weights(quiet)
    assert hall.metrics(job_id) == hall.metrics(quiet) | {13: hall.metrics(job_id)[13]}


def test_a_paused_training_waits_and_goes_on(hall: Hall) -> None:
    job_id = hall.job("[[wait-once 13]]")
    worker = hall.worker()
    worker.begin()
    hall.wait_step(job_id, 12)
    assert hall.pause(job_id)
    worker.wait()

    shard = hall.shard(job_id)
    assert (shard.state, shard.blocked_n, shard.error_n) == (ShardState.QUEUED, 1, 0)
    assert hall.plant.dispatch("train") == 0
    assert_nothing_left(worker)

    assert hall.resume(job_id)
    worker.run()
    assert hall.plant.job(job_id).state == JobState.SUCCEEDED
    assert hall.notes(job_id)[-1] == "11 examples, from step 13"


def test_a_training_that_does_not_hear_is_killed_when_its_worker_leaves(hall: Hall) -> None:
    job_id = hall.job("[[deaf 1]] [[hang 13]]")
    worker = hall.worker()
    worker.begin()
    hall.wait_step(job_id, 12)
    worker.desk.drain()
    worker.desk.close()
    shard = hall.shard(job_id)
    assert (shard.state, shard.crash_n, shard.error_n) == (ShardState.READY, 0, 0)
    assert_nothing_left(worker)


# --- stopping ---------------------------------------------------------------------------------


def test_cancelling_leaves_no_process(hall: Hall) -> None:
    job_id = hall.job("[[child 2]] [[hang 13]]")
    worker = hall.worker()
    worker.begin()
    hall.wait_step(job_id, 12)
    assert len(worker.processes()) == 3  # launcher, rank, and the child in a session of its own
    assert hall.plant.stop(job_id)
    worker.wait()
    assert hall.plant.job(job_id).state == JobState.CANCELLED
    assert_nothing_left(worker)


def test_a_worker_that_lost_its_session_kills_the_training(hall: Hall) -> None:
    job_id = hall.job("[[hang 13]]")
    worker = hall.worker()
    worker.begin()
    hall.wait_checkpoint(job_id, 2 * INTERVAL, worker)
    assert hall.plant.lose("w1") == ["train"]
    worker.session.lost = True
    worker.desk.abandon_all()
    worker.wait(watching=False)
    assert_nothing_left(worker)
    assert hall.shard(job_id).state == ShardState.READY
    # Nobody takes these steps again: their numbers came before the checkpoint.
    assert set(range(1, 2 * INTERVAL + 1)) <= set(hall.metrics(job_id))


def test_a_zombie_changes_nothing(hall: Hall) -> None:
    job_id = hall.job()
    zombie, heir = hall.worker("zombie"), hall.worker("heir")
    hall.store.fault = StorageUnavailable("no answer")
    zombie.begin()
    hall.wait_step(job_id, STEPS)
    hall.plant.lose("zombie")
    hall.store.fault = None
    zombie.wait(watching=False)  # it never hears of it: the fence alone keeps it out
    assert hall.shard(job_id).fenced_n >= 1
    assert hall.checkpoints(job_id) == []
    assert_nothing_left(zombie)

    heir.run()
    job, shard = hall.plant.job(job_id), hall.shard(job_id)
    assert (job.state, shard.epoch) == (JobState.SUCCEEDED, 2)
    assert all("/e2/" in file["key"] for file in hall.model(job_id).files)


# --- damage -----------------------------------------------------------------------------------


def remove_manifest(path: Path) -> None:
    (path / "manifest.json").unlink()


def tear_manifest(path: Path) -> None:
    manifest = path / "manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:-7])


def flip_a_bit(path: Path) -> None:
    state = path / "state.safetensors"
    data = bytearray(state.read_bytes())
    data[-1] ^= 1
    state.write_bytes(data)


def lose_a_file(path: Path) -> None:
    (path / "state.json").unlink()


@pytest.mark.parametrize("damage", [remove_manifest, tear_manifest, flip_a_bit, lose_a_file])
def test_a_damaged_checkpoint_is_passed_over(hall: Hall, damage: Callable[[Path], None]) -> None:
    job_id = hall.job("[[wait-once 8]] [[hang-once 13]]")
    worker = hall.worker()
    worker.begin()
    hall.wait_checkpoint(job_id, INTERVAL, worker)
    worker.go()
    hall.wait_checkpoint(job_id, 2 * INTERVAL, worker)
    worker.desk.close()
    newest, before = hall.checkpoints(job_id)[:2]
    assert (newest.step, before.step) == (2 * INTERVAL, INTERVAL)
    damage(hall.folder / "store" / newest.prefix)

    hall.worker("w2").run()
    assert hall.plant.job(job_id).state == JobState.SUCCEEDED
    notes = " ".join(hall.notes(job_id))
    assert f"the checkpoint of step {2 * INTERVAL} is damaged" in notes
    assert f"from step {INTERVAL}" in notes


# --- going wrong ------------------------------------------------------------------------------


def test_a_hung_training_is_killed_and_tried_again(hall: Hall) -> None:
    job_id = hall.job("[[hang 3]]")
    worker = hall.worker(idle_seconds=3.0)
    worker.run()
    shard = hall.shard(job_id)
    assert (shard.state, shard.error_n, shard.crash_n) == (ShardState.READY, 1, 0)
    assert shard.error_code == "training_hung"
    assert_nothing_left(worker)


def test_a_training_that_crashes_again_and_again_fails(hall: Hall) -> None:
    job_id = hall.job("[[crash 3]]")
    worker = hall.worker()
    for _ in range(MAX_CRASHES):
        worker.run()
    job = hall.plant.job(job_id)
    assert (job.state, job.error_code) == (JobState.FAILED, "training_crashed")
    assert "SIGKILL" in job.error_message
    assert_nothing_left(worker)


def test_a_crash_costs_one_repetition(hall: Hall) -> None:
    job_id = hall.job("[[crash-once 8]]")
    worker = hall.worker()
    worker.run()
    shard = hall.shard(job_id)
    assert (shard.state, shard.crash_n) == (ShardState.READY, 1)
    worker.run()
    assert hall.plant.job(job_id).state == JobState.SUCCEEDED
    assert f"11 examples, from step {INTERVAL}" in hall.notes(job_id)


def test_crashes_with_a_checkpoint_between_them_do_not_add_up(hall: Hall) -> None:
    job_id = hall.job(f"[[crash-once {INTERVAL + 3}]] [[crash {2 * INTERVAL + 3}]]")
    worker = hall.worker()
    for _ in range(MAX_CRASHES):
        worker.run()
    shard = hall.shard(job_id)
    assert (shard.state, shard.crash_n) == (ShardState.READY, 1)


def test_how_a_training_ended_is_told_and_not_what_it_printed(hall: Hall) -> None:
    job_id = hall.job("[[exit 3]]")
    hall.worker().run()
    message = hall.shard(job_id).error_message
    assert "exited with 3" in message
    assert "told to exit" not in message


@pytest.mark.parametrize("blame", ["data", "request"])
def test_what_is_the_tenants_fault_fails_the_job(hall: Hall, blame: str) -> None:
    job_id = hall.job(f"[[fail 3 {blame}]]")
    worker = hall.worker()
    worker.run()
    job = hall.plant.job(job_id)
    assert (job.state, job.error_code) == (JobState.FAILED, "fake_failure"), hall.shard(job_id)
    assert (job.error_message, job.error_param) == ("told to fail", "training_file")
    assert_nothing_left(worker)


def test_what_is_our_fault_is_tried_again(hall: Hall) -> None:
    job_id = hall.job("[[fail 3 engine]]")
    hall.worker().run()
    shard = hall.shard(job_id)
    assert (shard.state, shard.error_n) == (ShardState.READY, 1)
    assert (shard.error_code, shard.error_message) == ("fake_failure", "told to fail")


def test_a_base_model_that_is_not_there_fails_the_job(hall: Hall) -> None:
    job_id = hall.job(model="nobody")
    hall.worker().run()
    job = hall.plant.job(job_id)
    assert (job.state, job.error_code, job.error_param) == (
        JobState.FAILED,
        "model_not_found",
        "model",
    )


def test_a_tuned_model_can_be_tuned_again(hall: Hall) -> None:
    first = hall.job()
    worker = hall.worker()
    worker.run()
    name = hall.plant.job(first).result["fine_tuned_model"]
    second = hall.job(model=name)
    worker.run()
    model = hall.model(second)
    assert model.id == f"ft:fake:{TENANT}::{second[-8:]}"
    assert model.base_model == name
    assert model.detail["parents"] == [name, "fake"]


def test_the_models_that_a_training_reads_are_kept(
    hall: Hall, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their folders go when nobody has asked for them for a while, and trainings last for hours."""
    job_id = hall.job()
    worker = hall.worker()
    worker.run()
    first = hall.plant.job(job_id).result["fine_tuned_model"]
    asked: list[str] = []
    path = ModelFiles.path

    def noting(files: ModelFiles, model: Model) -> Path | None:
        asked.append(model.id)
        return path(files, model)

    hall.job("[[wait 3]]", model=first)
    worker.begin()
    wait_until(lambda: len(worker.processes()) > 0, PATIENCE_SECONDS)
    monkeypatch.setattr(training, "KEEP_SECONDS", 0.0)
    monkeypatch.setattr(ModelFiles, "path", noting)
    wait_until(lambda: asked.count(first) > 2, PATIENCE_SECONDS)
    worker.go()
    worker.wait()


# --- outages ----------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [StorageUnavailable("no answer"), StorageFull("no room")])
def test_a_training_outlives_its_store(hall: Hall, fault: Exception) -> None:
    job_id = hall.job("[[hang-once 13]]")
    worker = hall.worker()
    hall.store.fault = fault
    worker.begin()
    hall.wait_step(job_id, 12)
    assert hall.checkpoints(job_id) == []
    hall.store.fault = None
    hall.wait_checkpoint(job_id, 2 * INTERVAL, worker)
    shard = hall.shard(job_id)
    assert (shard.state, shard.error_n) == (ShardState.RUNNING, 0)


def test_a_finished_training_waits_for_its_store(hall: Hall) -> None:
    job_id = hall.job(steps=3)
    worker = hall.worker()
    hall.store.fault = StorageUnavailable("no answer")
    worker.begin()
    hall.wait_step(job_id, 3)
    hall.store.fault = None
    worker.wait()
    assert hall.plant.job(job_id).state == JobState.SUCCEEDED
    assert hall.shard(job_id).epoch == 1


def test_a_full_disk_of_the_worker_is_nobodys_fault(
    hall: Hall, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    job_id = hall.job()
    worker = hall.worker()
    with monkeypatch.context() as patch:
        patch.setattr(preparing, "download", full)
        worker.run()
    shard = hall.shard(job_id)
    assert (shard.state, shard.error_n, shard.preempt_n) == (ShardState.READY, 0, 1)
    worker.run()
    assert hall.plant.job(job_id).state == JobState.SUCCEEDED


@pytest.mark.parametrize(
    ("blame", "state"), [("engine", ShardState.READY), ("data", ShardState.FAILED)]
)
def test_words_that_no_database_takes_strand_nothing(
    hall: Hall, monkeypatch: pytest.MonkeyPatch, blame: str, state: ShardState
) -> None:
    monkeypatch.setattr(Training, "run", lambda _: Failed("odd", "a NUL: \0", blame))
    job_id = hall.job()
    hall.worker().run()
    shard = hall.shard(job_id)
    assert (shard.state, shard.error_message) == (state, "a NUL: \ufffd")


def test_a_training_outlives_its_database(
    hall: Hall,
    postgres_server: EmbeddedPostgres,
    database_name: str,
    tcp_proxy: Callable[[int], TcpProxy],
) -> None:
    proxy = tcp_proxy(postgres_server.port)
    url = postgres_server.tcp_url_of(database_name, port=proxy.port)
    job_id = hall.job("[[wait 8]]")
    worker = hall.worker(database=make_engine(url, process="tests", pool_size=4))
    worker.begin()
    hall.wait_step(job_id, 7)
    proxy.refuse()
    worker.go()
    wait_until(lambda: not worker.processes(), PATIENCE_SECONDS)
    shard = hall.shard(job_id)
    assert (shard.state, max(hall.metrics(job_id))) == (ShardState.RUNNING, 7)
    proxy.up()
    worker.wait()

    assert (hall.plant.job(job_id).state, shard.epoch) == (JobState.SUCCEEDED, 1)
    assert list(hall.metrics(job_id)) == list(range(1, STEPS + 1))
