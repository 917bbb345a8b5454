"""Cancelling, pausing and resuming sweeps, at every point of their way; what goes with them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from shared.db.models import delete_model
from shared.errors import NotFound
from shared.lifecycle import working
from shared.lifecycle.settle import MAX_ERRORS
from shared.lifecycle.working import Claim, ReleaseReason
from shared.states import JobState
from shared.storage.local import LocalStore
from tests.integration.protocol import OTHER, TENANT
from tests.integration.sweep_case import SweepPlant
from tests.integration.tuning_case import training_end
from worker.upkeep.cleaner import Cleaner


@pytest.fixture
def plant(database_url: str) -> Iterator[SweepPlant]:
    plant = SweepPlant(database_url)
    yield plant
    plant.close()


def state(plant: SweepPlant, job_id: str) -> str:
    return str(plant.job(job_id).state)


# --- cancelling ---------------------------------------------------------------------------------


def test_a_search_that_waits_for_its_turn_ends_at_once(plant: SweepPlant) -> None:
    job_id = plant.new_sweep()
    assert plant.stop(job_id)
    assert state(plant, job_id) == JobState.CANCELLED


def test_a_search_that_is_claimed_adds_nothing_more(plant: SweepPlant) -> None:
    job_id = plant.new_sweep()
    claim = plant.claim_sweep()
    assert plant.stop(job_id)
    assert plant.add(claim, 1)
    assert state(plant, job_id) == JobState.CANCELLED
    assert plant.trials(job_id) == []


def test_waiting_trials_end_with_it(plant: SweepPlant) -> None:
    job_id = plant.new_sweep(parallel=2)
    plant.add(plant.claim_sweep(), 2, parallel=2)
    assert plant.stop(job_id)
    assert [trial.state for trial in plant.trials(job_id)] == ["cancelled", "cancelled"]
    assert state(plant, job_id) == JobState.RUNNING
    assert plant.collect() == 2
    plant.sweep()
    assert state(plant, job_id) == JobState.CANCELLED
    assert plant.events(job_id)[-1] == "fine_tune.cancelled"


def test_it_ends_with_the_last_of_its_running_trials(plant: SweepPlant) -> None:
    job_id = plant.new_sweep(parallel=2)
    first, second = plant.started(job_id, 2, parallel=2)
    assert plant.stop(job_id)
    with plant.connection() as connection:
        told = {item.held: item.stop_reason for item in working.watch(connection, "trainer")}
    assert told == {first.held: "cancelled", second.held: "cancelled"}
    plant.give_back(first)
    plant.collect()
    plant.sweep()
    assert plant.add(plant.claim_sweep(), 1, parallel=2)  # there is a place, and nobody takes it
    assert plant.waits(job_id)
    assert len(plant.trials(job_id)) == 2
    plant.end(second)  # it had come to its end before it heard
    plant.collect()
    plant.sweep()
    assert state(plant, job_id) == JobState.CANCELLED
    assert state(plant, second.job_id) == JobState.SUCCEEDED


def test_a_search_that_was_claimed_for_its_last_trials_ends_by_its_commit(
    plant: SweepPlant,
) -> None:
    job_id = plant.new_sweep(parallel=2)
    first, second = plant.started(job_id, 2, parallel=2)
    plant.end(first)
    plant.collect()
    claim = plant.claim_sweep()
    plant.stop(job_id)
    plant.give_back(second)
    plant.collect()
    assert plant.add(claim, 0, parallel=2)
    assert state(plant, job_id) == JobState.CANCELLED


@pytest.mark.parametrize("open_trials", [0, 1])
def test_a_search_that_is_given_back_while_stopping(plant: SweepPlant, open_trials: int) -> None:
    job_id = plant.new_sweep(parallel=2)
    (trial,) = plant.started(job_id, 1, parallel=2)
    claim = plant.claim_sweep()
    plant.stop(job_id)
    if not open_trials:
        plant.give_back(trial)
        plant.collect()
    given_back = plant.release("up", claim.held, ReleaseReason.PREEMPTED)
    assert given_back == ("ready" if open_trials else "cancelled")
    assert state(plant, job_id) == ("running" if open_trials else "cancelled")


def test_a_trial_that_somebody_held_is_stopped_by_the_pass(plant: SweepPlant) -> None:
    job_id = plant.new_sweep()
    (claim,) = plant.started(job_id)
    with plant.engine.begin() as busy:
        busy.execute(text("SELECT 1 FROM jobs WHERE id = :id FOR UPDATE"), {"id": claim.job_id})
        assert plant.stop(job_id)
        assert plant.carry_over() == (0, 0)
    assert plant.job(claim.job_id).stop_reason is None
    assert plant.carry_over() == (1, 0)
    assert plant.carry_over() == (0, 0)
    assert plant.job(claim.job_id).stop_reason == "cancelled"


def test_trials_of_a_search_that_failed_are_stopped(plant: SweepPlant) -> None:
    job_id = plant.new_sweep(parallel=2)
    (trial,) = plant.started(job_id, 1, parallel=2)
    for _ in range(MAX_ERRORS):
        claim = plant.claim_sweep()
        plant.release("up", claim.held, ReleaseReason.ERROR, code="internal_error", message="…")
    assert state(plant, job_id) == JobState.FAILED
    assert plant.carry_over() == (1, 0)
    plant.give_back(trial)
    assert state(plant, trial.job_id) == JobState.CANCELLED
    assert plant.collect() == 1
    assert plant.events(job_id)[-1] == "fine_tune.failed"


def test_cancelling_one_trial_is_a_failed_trial(plant: SweepPlant) -> None:
    job_id = plant.new_sweep()
    (claim,) = plant.started(job_id)
    assert plant.stop(claim.job_id)
    plant.give_back(claim)
    plant.collect()
    (trial,) = plant.trials(job_id)
    assert (trial.state, trial.pruned, trial.value) == ("cancelled", False, None)
    assert plant.add(plant.claim_sweep(), 1)
    assert len(plant.trials(job_id)) == 2


# --- pausing ------------------------------------------------------------------------------------


def paused(plant: SweepPlant, job_id: str) -> bool:
    return plant.job(job_id).paused_at is not None


def test_a_paused_search_adds_nothing_until_it_is_resumed(plant: SweepPlant) -> None:
    job_id = plant.new_sweep()
    assert plant.pause(job_id)
    assert plant.add(plant.claim_sweep(), 1)
    assert plant.trials(job_id) == []
    assert plant.waits(job_id)
    assert plant.resume(job_id)
    assert plant.add(plant.claim_sweep(), 1)
    assert len(plant.trials(job_id)) == 1


def test_a_pause_while_it_decides_is_seen(plant: SweepPlant) -> None:
    job_id = plant.new_sweep()
    claim = plant.claim_sweep()
    assert plant.pause(job_id)
    assert plant.add(claim, 1)
    assert (plant.trials(job_id), plant.waits(job_id)) == ([], True)


def test_trials_are_paused_and_resumed_with_their_sweep(plant: SweepPlant) -> None:
    job_id = plant.new_sweep(parallel=2)
    assert plant.add(plant.claim_sweep(), 2, parallel=2)
    plant.dispatch("train", window=1)
    running = plant.claim_training()
    waiting = next(t.job_id for t in plant.trials(job_id) if t.job_id != running.job_id)
    assert plant.pause(job_id)
    assert paused(plant, waiting)
    assert plant.dispatch("train") == 0
    with plant.connection() as connection:
        (watched,) = working.watch(connection, "trainer")
    assert (watched.held, watched.paused) == (running.held, True)
    plant.give_back(running)
    assert plant.dispatch("train") == 0
    assert not plant.resume(job_id, OTHER)
    assert plant.resume(job_id)
    assert not paused(plant, waiting)
    assert not paused(plant, running.job_id)
    assert plant.dispatch("train") == 2
    assert plant.add(plant.claim_sweep(), 0, parallel=2)
    assert plant.waits(job_id)


def test_a_trial_that_somebody_held_is_paused_by_the_pass(plant: SweepPlant) -> None:
    job_id = plant.new_sweep()
    (claim,) = plant.started(job_id)
    with plant.engine.begin() as busy:
        busy.execute(text("SELECT 1 FROM jobs WHERE id = :id FOR UPDATE"), {"id": claim.job_id})
        assert plant.pause(job_id)
    assert not paused(plant, claim.job_id)
    assert plant.carry_over() == (0, 1)
    assert plant.carry_over() == (0, 0)
    assert paused(plant, claim.job_id)
    plant.resume(job_id)
    assert plant.carry_over() == (0, 0)
    assert not paused(plant, claim.job_id)


def test_a_trial_that_ends_all_the_same_wakes_a_paused_search_in_vain(plant: SweepPlant) -> None:
    job_id = plant.new_sweep()
    (claim,) = plant.started(job_id)
    plant.pause(job_id)
    plant.end(claim)
    plant.collect()
    assert plant.add(plant.claim_sweep(), 1)
    assert plant.waits(job_id)
    assert len(plant.trials(job_id)) == 1
    plant.resume(job_id)
    assert not plant.waits(job_id)


def test_a_paused_sweep_can_be_cancelled(plant: SweepPlant) -> None:
    job_id = plant.new_sweep()
    (claim,) = plant.started(job_id)
    plant.pause(job_id)
    plant.give_back(claim)
    assert plant.stop(job_id)
    plant.collect()
    plant.sweep()
    assert state(plant, job_id) == state(plant, claim.job_id) == JobState.CANCELLED


# --- files --------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path, "a signing key of some length")


def promoted(plant: SweepPlant, store: LocalStore) -> tuple[str, str, str]:
    """(the key of the weights, the trial's model, the sweep's model), all ended long ago."""
    job_id = plant.new_sweep(trials=1)
    (claim,) = plant.started(job_id)
    end = training_end(claim)
    store.put_bytes(end.model.files[0].key, b"x", media_type="x")
    assert plant.finish_training(claim, end)
    plant.collect()
    search: Claim = plant.claim_sweep()
    found = plant.sweep_end(search)
    assert plant.finish_sweep(search, found)
    plant.sql("UPDATE jobs SET ended_at = ended_at - interval '2 hours'")
    return end.model.files[0].key, end.model.id, found.model


def delete(plant: SweepPlant, store: LocalStore, model: str) -> None:
    """By its tenant; an hour later its files go."""
    with plant.engine.begin() as connection:
        assert delete_model(connection, TENANT, model)
    plant.sql(
        "UPDATE models SET deleted_at = deleted_at - interval '2 hours' WHERE id = :id", id=model
    )
    Cleaner(plant.engine, store).run()


def there(store: LocalStore, key: str) -> bool:
    try:
        return store.size(key) > 0
    except NotFound:
        return False


@pytest.mark.parametrize("first", [0, 1], ids=["the trial's first", "the sweep's first"])
@pytest.mark.parametrize("cleaned", [True, False], ids=["cleaned before", "cleaned after"])
def test_files_go_with_the_last_model_that_needs_them(
    plant: SweepPlant, store: LocalStore, first: int, cleaned: bool
) -> None:
    key, *models = promoted(plant, store)
    if cleaned:
        Cleaner(plant.engine, store).run()
    delete(plant, store, models[first])
    assert there(store, key)
    delete(plant, store, models[1 - first])
    assert not there(store, key)


def test_files_of_models_that_are_deleted_together_go_once(
    plant: SweepPlant, store: LocalStore
) -> None:
    key, *models = promoted(plant, store)
    Cleaner(plant.engine, store).run()
    with plant.engine.begin() as connection:
        for model in models:
            assert delete_model(connection, TENANT, model)
    Cleaner(plant.engine, store).run()
    assert there(store, key)
    plant.sql("UPDATE models SET deleted_at = deleted_at - interval '2 hours'")
    Cleaner(plant.engine, store).run()
    assert not there(store, key)
    assert plant.scalar("SELECT count(*) FROM models WHERE cleaned_at IS NOT NULL") == 2
