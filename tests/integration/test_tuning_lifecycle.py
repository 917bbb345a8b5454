"""The stages of fine-tuning jobs: data judged, training opened, checkpoints, ends; all fenced."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
from sqlalchemy.exc import IntegrityError, OperationalError

from shared import lifecycle
from shared.db.checkpoints import list_checkpoints, newest_checkpoints
from shared.db.models import get_model, hold_model
from shared.ids import new_file_id, new_id
from shared.lifecycle import BadLine, Idempotency, working
from shared.lifecycle.settle import MAX_LOSSES
from shared.lifecycle.working import NewFile, ReleaseReason, TrainingStep
from shared.states import JobState, ShardState
from shared.storage.base import StoredObject
from tests.integration.protocol import OTHER, TENANT, WINDOW
from tests.integration.tuning_case import (
    FOUND,
    TuningPlant,
    model_of,
    name_of,
    new_checkpoint,
    training_end,
)


@pytest.fixture
def plant(database_url: str) -> Iterator[TuningPlant]:
    plant = TuningPlant(database_url)
    yield plant
    plant.close()


# --- the data -----------------------------------------------------------------------------------


def test_the_first_shard_judges_the_data_with_both_files(plant: TuningPlant) -> None:
    job_id = plant.fine_tune(validation=True)
    claim = plant.claim_one("up", pools=["upkeep"])
    assert (claim.stage, claim.kind, claim.model) == ("validate", "fine_tune", "writer")
    job = plant.job(job_id)
    assert claim.input_key == f"t/{TENANT}/f/{job.input_file_id}"
    assert claim.validation_key == f"t/{TENANT}/f/{job.validation_file_id}"
    assert plant.claim("trainer", pools=["train"]) == []


def test_good_data_open_the_training_in_its_pool(plant: TuningPlant) -> None:
    job_id = plant.fine_tune()
    first = plant.claim_one("up", pools=["upkeep"])
    assert plant.job(job_id).state == JobState.RUNNING
    assert plant.open_training(first.held)
    job = plant.job(job_id)
    assert (job.state, job.stage, job.detail["data"]) == (JobState.QUEUED, "train", FOUND)
    assert job.in_progress_at is not None
    assert plant.dispatch("train") == 1
    claim = plant.claim_training()
    assert (claim.stage, claim.pool, claim.job_id) == ("train", "train", job_id)
    assert '"labels"' in claim.detail
    assert plant.job(job_id).state == JobState.RUNNING
    assert plant.events(job_id) == ["fine_tune.created", "fine_tune.validated"]


def test_opening_it_again_is_the_same_and_a_zombie_opens_nothing(plant: TuningPlant) -> None:
    job_id = plant.fine_tune()
    first = plant.claim_one("up", pools=["upkeep"])
    plant.lose("up")
    assert not plant.open_training(first.held)
    assert plant.shard(first.shard_id).fenced_n == 1
    plant.session("up2", pools=["upkeep"])
    second = plant.claim_one("up2", pools=["upkeep"])
    assert plant.open_training(second.held, "up2")
    assert plant.open_training(second.held, "up2")
    assert not plant.open_training(second.held, "up2", found={"other": 1})
    assert [shard.stage for shard in plant.shards(job_id)] == ["validate", "train"]


def test_bad_data_fail_the_job_with_every_line(plant: TuningPlant) -> None:
    job_id = plant.fine_tune()
    held = plant.claim_one("up", pools=["upkeep"]).held
    errors = [
        BadLine("invalid_json", "not JSON", 3),
        BadLine("missing_field", "no text", 7, "text"),
    ]
    assert plant.reject(held, errors)
    assert plant.reject(held, errors)
    job = plant.job(job_id)
    assert (job.state, job.error_code, job.error_param) == (
        JobState.FAILED,
        "invalid_training_file",
        "training_file",
    )
    assert [(line["line"], line["param"]) for line in job.errors] == [(3, None), (7, "text")]
    assert plant.events(job_id)[-1] == "fine_tune.failed"
    assert plant.claim("trainer", pools=["train"]) == []


def test_a_dry_run_ends_with_its_estimate_and_card(plant: TuningPlant) -> None:
    job_id = plant.fine_tune(dry_run=True)
    held = plant.claim_one("up", pools=["upkeep"]).held
    card = NewFile(new_file_id(), "dataset_card.md", StoredObject("t/x/card", "e" * 64, 9))
    for _ in range(2):
        with plant.engine.begin() as connection:
            assert working.finish_dry_run(connection, "up", held, estimate={"steps": 12}, card=card)
    job = plant.job(job_id)
    assert job.state == JobState.SUCCEEDED
    assert job.result["estimate"] == {"steps": 12}
    assert job.result["result_files"] == [card.file_id]
    assert plant.scalar("SELECT purpose FROM files WHERE id = :id", id=card.file_id) == (
        "fine-tune-results"
    )


def test_a_stop_that_came_first_leaves_no_training(plant: TuningPlant) -> None:
    job_id = plant.fine_tune()
    held = plant.claim_one("up", pools=["upkeep"]).held
    assert plant.stop(job_id)
    assert plant.open_training(held)
    assert plant.job(job_id).state == JobState.CANCELLED
    assert [shard.stage for shard in plant.shards(job_id)] == ["validate"]


def test_a_key_makes_one_job(plant: TuningPlant) -> None:
    file_id, once = plant.file(), Idempotency("POST /v1/fine_tuning/jobs", "k", b"f")

    def submit() -> None:
        with plant.engine.begin() as connection:
            lifecycle.submit_fine_tune(
                connection,
                job_id=new_id("ftjob-"),
                tenant_id=TENANT,
                model="writer",
                training_file_id=file_id,
                spec="{}",
                metadata={"a": "b"},
                window=WINDOW,
                idempotency=once,
            )

    submit()
    with pytest.raises(IntegrityError):
        submit()
    assert plant.scalar("SELECT count(*) FROM jobs") == 1


# --- numbers ------------------------------------------------------------------------------------


def test_numbers_of_a_step_come_together_and_nan_is_null(plant: TuningPlant) -> None:
    job_id, claim = plant.training()
    plant.report(
        claim.held,
        TrainingStep(1, 0.1, {"train_loss": 2.0}),
        TrainingStep(2, 0.2, {"train_loss": math.nan, "Bad name": 1.0}),
        progress=0.1,
        detail={"steps": 20},
    )
    plant.report(claim.held, TrainingStep(1, 0.1, {"valid_loss": 1.5}), detail={"device": "cpu"})
    rows = plant.sql(
        "SELECT step, epoch, values FROM training_metrics WHERE job_id = :job ORDER BY step",
        job=job_id,
    )
    assert [tuple(row) for row in rows] == [
        (1, 0.1, {"train_loss": 2.0, "valid_loss": 1.5}),
        (2, 0.2, {"train_loss": None}),
    ]
    job = plant.job(job_id)
    assert (job.progress, job.detail["training"]) == (0.1, {"steps": 20, "device": "cpu"})
    assert job.detail["data"] == FOUND


def test_events_tell_evaluations_and_hundredths_not_every_step(plant: TuningPlant) -> None:
    job_id, claim = plant.training()
    for step in range(1, 401):
        plant.report(claim.held, TrainingStep(step, 0.0, {"train_loss": 1.0}), progress=step / 4000)
    plant.report(claim.held, TrainingStep(400, 0.0, {"valid_loss": 1.0}), progress=0.1)
    told = plant.data_of_events(job_id, "fine_tune.metrics")
    assert [item["step"] for item in told] == [*range(40, 401, 40), 400]
    assert told[-1]["values"] == {"valid_loss": 1.0}


def test_a_zombies_numbers_notes_and_checkpoints_are_dropped(plant: TuningPlant) -> None:
    job_id, claim = plant.training()
    plant.lose("trainer")
    plant.report(claim.held, TrainingStep(1, 0.0, {"train_loss": 1.0}), detail={"x": 1})
    with plant.engine.begin() as connection:
        working.add_note(connection, "trainer", claim.held, "hello")
    assert plant.checkpoint(claim, 1) is None
    assert not plant.finish_training(claim)
    assert plant.shard(claim.shard_id).fenced_n == 2
    assert plant.scalar("SELECT count(*) FROM training_metrics") == 0
    assert plant.scalar("SELECT count(*) FROM checkpoints") == 0
    assert plant.scalar("SELECT count(*) FROM models") == 0
    assert "training" not in plant.job(job_id).detail
    assert plant.data_of_events(job_id, "fine_tune.note") == []


def test_a_note_is_an_event(plant: TuningPlant) -> None:
    job_id, claim = plant.training()
    with plant.engine.begin() as connection:
        working.add_note(connection, "trainer", claim.held, "early stopping", "warn")
    told = plant.data_of_events(job_id, "fine_tune.note")
    assert told == [{"message": "early stopping", "level": "warn"}]


# --- checkpoints --------------------------------------------------------------------------------


def test_two_newest_and_the_best_are_kept_and_the_rest_may_go(plant: TuningPlant) -> None:
    job_id, claim = plant.training()
    assert plant.checkpoint(claim, 10, best=True) == []
    assert plant.checkpoint(claim, 20) == []
    assert plant.checkpoint(claim, 30) == []
    gone = plant.checkpoint(claim, 40)
    prefix = f"t/{TENANT}/j/{job_id}/c/{claim.epoch}-20/"
    assert gone == [
        f"{prefix}manifest.json",
        f"{prefix}model/adapter.safetensors",
        f"{prefix}state.safetensors",
    ]
    assert plant.kept_steps(job_id) == [10, 30, 40]
    assert plant.checkpoint(claim, 50, best=True)
    assert plant.kept_steps(job_id) == [40, 50]
    with plant.connection() as connection:
        newest = newest_checkpoints(connection, job_id)
        assert [(row.step, row.best) for row in newest] == [(50, True), (40, False)]
        assert newest[0].files[1].path == "state.safetensors"
        assert get_model(connection, TENANT, name_of(claim, 50)) is not None
        assert get_model(connection, TENANT, name_of(claim, 20)) is None
        assert get_model(connection, OTHER, name_of(claim, 50)) is None
        assert list_checkpoints(connection, OTHER, job_id=job_id, after=None, limit=9) == []
        (older,) = list_checkpoints(connection, TENANT, job_id=job_id, after=newest[0].id, limit=9)
        assert older.step == 40


def test_committing_a_checkpoint_again_changes_nothing(plant: TuningPlant) -> None:
    job_id, claim = plant.training()
    assert plant.checkpoint(claim, 10) == []
    assert plant.checkpoint(claim, 10) == []
    assert plant.kept_steps(job_id) == [10]
    assert len(plant.data_of_events(job_id, "fine_tune.checkpoint")) == 1


def test_a_checkpoint_that_something_starts_from_stays(plant: TuningPlant) -> None:
    job_id, claim = plant.training()
    plant.checkpoint(claim, 10)
    plant.fine_tune(model=name_of(claim, 10))
    for step in (20, 30, 40):
        plant.checkpoint(claim, step)
    assert plant.kept_steps(job_id) == [10, 30, 40]


def test_a_checkpoint_whose_answer_was_lost_is_told_once(plant: TuningPlant) -> None:
    job_id, claim = plant.training()
    new = new_checkpoint(claim, 10)
    for _ in range(2):
        with plant.engine.begin() as connection:
            assert working.add_checkpoint(connection, "trainer", claim.held, new) == []
    assert len(plant.data_of_events(job_id, "fine_tune.checkpoint")) == 1


def test_a_checkpoint_is_not_dropped_while_somebody_begins_to_start_from_it(
    plant: TuningPlant,
) -> None:
    """A job that names it was looked at and is not committed yet."""
    _, claim = plant.training()
    for step in (10, 20):
        plant.checkpoint(claim, step)
    with plant.engine.begin() as submitting, plant.engine.connect() as saving:
        assert hold_model(submitting, TENANT, name_of(claim, 10)) is not None
        saving.exec_driver_sql("SET LOCAL lock_timeout = '50ms'")
        with pytest.raises(OperationalError, match="lock timeout"):
            working.add_checkpoint(saving, "trainer", claim.held, new_checkpoint(claim, 30))
    assert plant.checkpoint(claim, 30)


def test_a_step_saved_anew_by_a_later_attempt_takes_the_place_of_the_old_one(
    plant: TuningPlant,
) -> None:
    """The newest one was damaged, so the training went on from the one before."""
    job_id, claim = plant.training()
    plant.checkpoint(claim, 10)
    plant.checkpoint(claim, 20)
    plant.release("trainer", claim.held, ReleaseReason.ERROR, code="x", message="y")
    again = plant.claim_training()
    gone = plant.checkpoint(again, 20)
    assert gone is not None
    assert {key.split("/")[5] for key in gone} == {f"{claim.epoch}-20"}
    assert plant.kept_steps(job_id) == [10, 20]
    with plant.connection() as connection:
        model = get_model(connection, TENANT, name_of(claim, 20))
    assert model is not None
    assert f"/c/{again.epoch}-20/" in model.files[0].key


def test_losses_after_progress_do_not_add_up(plant: TuningPlant) -> None:
    """A training of weeks meets more lost machines than any budget has."""
    job_id, claim = plant.training()
    for number in range(MAX_LOSSES * 2):
        plant.checkpoint(claim, 10 + number, session=f"w{number}" if number else "trainer")
        assert plant.lose(f"w{number}" if number else "trainer") == ["train"]
        plant.session(f"w{number + 1}", pools=["train"])
        claim = plant.claim_training(f"w{number + 1}")
    assert plant.job(job_id).state == JobState.RUNNING


def test_losses_without_progress_fail_the_job(plant: TuningPlant) -> None:
    job_id, claim = plant.training()
    plant.checkpoint(claim, 10)
    session = "trainer"
    for number in range(MAX_LOSSES):
        assert plant.checkpoint(claim, 10, session=session) is not None  # no further than before
        plant.lose(session)
        if number < MAX_LOSSES - 1:
            session = plant.session(f"w{number}", pools=["train"])
            claim = plant.claim_training(session)
    job = plant.job(job_id)
    assert (job.state, job.error_code) == (JobState.FAILED, "worker_lost")


# --- ends ---------------------------------------------------------------------------------------


def test_the_end_makes_model_files_usage_and_outcome_at_once(plant: TuningPlant) -> None:
    job_id, claim = plant.training()
    end = training_end(claim)
    assert plant.finish_training(claim, end)
    assert plant.finish_training(claim, end)
    job = plant.job(job_id)
    assert (job.state, job.progress, job.input_tokens) == (JobState.SUCCEEDED, 1.0, 1234)
    assert job.result == {
        "fine_tuned_model": name_of(claim),
        "trained_tokens": 1234,
        "result_files": [end.files[0].file_id],
        "metrics": {"after": {"valid_loss": 0.5}},
    }
    assert job.detail["training"] == {"step": 40, "seconds": 12.5}
    assert plant.usage(job_id) == [(claim.epoch, 1, 1234, 0)]
    assert plant.events(job_id)[-1] == "fine_tune.succeeded"
    with plant.connection() as connection:
        model = get_model(connection, TENANT, name_of(claim))
        assert get_model(connection, OTHER, name_of(claim)) is None
    assert model is not None
    assert (model.base_model, model.adapter, model.job_id) == ("writer", True, job_id)
    assert model.files == tuple(end.model.files)
    other = training_end(claim, sha256="f" * 64)
    assert not plant.finish_training(claim, other)


def test_the_card_of_the_data_is_among_the_results(plant: TuningPlant) -> None:
    job_id = plant.fine_tune()
    held = plant.claim_one("up", pools=["upkeep"]).held
    card = NewFile(new_file_id(), "dataset_card.md", StoredObject("t/x/card", "e" * 64, 9))
    with plant.engine.begin() as connection:
        assert working.open_training(connection, "up", held, found=FOUND, card=card)
    plant.dispatch("train")
    plant.finish_training(plant.claim_training())
    assert plant.job(job_id).result["result_files"][-1] == card.file_id


def test_a_recipe_that_cannot_go_on_fails_the_job(plant: TuningPlant) -> None:
    job_id, claim = plant.training()
    why = {"code": "training_diverged", "message": "the loss is not a number"}
    for _ in range(2):
        with plant.engine.begin() as connection:
            assert working.fail_training(connection, "trainer", claim.held, **why)
    job = plant.job(job_id)
    assert (job.state, job.error_code) == (JobState.FAILED, "training_diverged")
    assert plant.events(job_id)[-1] == "fine_tune.failed"


def test_a_cancelled_training_keeps_its_checkpoints(plant: TuningPlant) -> None:
    job_id, claim = plant.training()
    plant.checkpoint(claim, 10)
    assert plant.stop(job_id)
    with plant.connection() as connection:
        (watched,) = working.watch(connection, "trainer")
    assert watched.stop_reason == "cancelled"
    assert plant.release("trainer", claim.held, ReleaseReason.PREEMPTED) == ShardState.CANCELLED
    assert plant.job(job_id).state == JobState.CANCELLED
    with plant.connection() as connection:
        assert get_model(connection, TENANT, name_of(claim, 10)) is not None


def test_a_model_that_its_tenant_deleted_stays_deleted(plant: TuningPlant) -> None:
    _, claim = plant.training()
    plant.checkpoint(claim, 10)
    plant.sql("UPDATE models SET deleted_at = clock_timestamp()")
    plant.checkpoint(claim, 10)
    with plant.connection() as connection:
        assert get_model(connection, TENANT, name_of(claim, 10)) is None


def test_nobody_elses_model_is_written_over(plant: TuningPlant) -> None:
    _, claim = plant.training(OTHER)
    plant.sql(
        "INSERT INTO models (id, tenant_id, pool, engine, source, endpoints)"
        " VALUES (:id, :tenant, 'text', 'text', 'mine', '{}')",
        id="ft:taken",
        tenant=TENANT,
    )
    plant.finish_training(claim, training_end(claim, model=model_of("ft:taken", [])))
    assert plant.scalar("SELECT source FROM models WHERE id = 'ft:taken'") == "mine"
